//! The id of a deployment, and what is kept under it.

use nixos_activator::agent::{DeploymentId, NoRandomness};
use nixos_activator::build::Roots;
use tfplugin::Diagnostic;

use super::model::Deployment;

/// The garbage collector roots of a deployment. An id that is none, in a state that others have written, has no
/// directory.
pub(super) fn roots(deployment: &Deployment) -> Option<Roots> {
    Roots::of(&deployment.id.known()?.parse().ok()?)
}

/// An id that no other deployment has.
pub(super) fn new_id() -> Result<String, Diagnostic> {
    DeploymentId::random().map(|id| id.to_string()).map_err(no_randomness)
}

/// Without random numbers there are no ids and no keys.
pub(super) fn no_randomness(error: NoRandomness) -> Diagnostic {
    Diagnostic::error("There are no random numbers").detail(format!(
        "{error}. They are needed for the id of the deployment and for the key of its secrets' \
         fingerprints. Nothing was changed."
    ))
}
