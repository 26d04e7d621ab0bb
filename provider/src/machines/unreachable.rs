//! Why a machine cannot be connected to, and what a refresh says then.

use tfplugin::{Diagnostic, Path};

/// An attribute of a target has no value yet.
pub(super) fn not_known(path: &Path) -> NoEndpoint {
    NoEndpoint::Later(
        Diagnostic::error("The machine's address is not known yet")
            .detail(format!("`{path}` has no known value, so the machine cannot be reached."))
            .at(path.clone()),
    )
}

/// Why a machine cannot be connected to.
#[derive(Clone, Debug)]
pub(crate) enum NoEndpoint {
    /// Something will be known only after apply.
    Later(Diagnostic),
    /// Something is configured wrongly.
    Wrong(Diagnostic),
}

impl From<NoEndpoint> for Diagnostic {
    fn from(reason: NoEndpoint) -> Self {
        match reason {
            NoEndpoint::Later(diagnostic) | NoEndpoint::Wrong(diagnostic) => diagnostic,
        }
    }
}

/// Says at a refresh that a machine could not be asked yet.
pub(crate) fn not_refreshed(machine: &str, why: &Diagnostic) -> Diagnostic {
    Diagnostic::warning(format!("Machine \"{machine}\" was not refreshed")).detail(format!(
        "{} {}\n\nIts last known state is kept; the plan may not show what has changed on it since.",
        why.summary, why.detail
    ))
}

/// The provider's `ssh` block depends on something that does not exist yet.
pub(crate) fn provider_unknown() -> Diagnostic {
    Diagnostic::error("The provider's `ssh` block is not known yet.").detail(
        "It takes a value from something that does not exist before apply, so no machine can be reached.",
    )
}
