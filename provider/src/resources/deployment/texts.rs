//! The contents of `deployment.keys` that a specification has itself: its `text`s. They are asked for when they are
//! needed, and kept nowhere.

use std::collections::BTreeMap;

use nixos_activator::MachineName;
use nixos_activator::evaluate::{Key, Texts};
use nixos_activator::network::Fact;
use tfplugin::{Cx, Diagnostic, Diagnostics, Path};
use tokio_util::sync::CancellationToken;

use super::model::Deployment;
use super::request::evaluation_request;
use crate::context::Context;
use crate::diagnose;

/// Whether there is one among these keys.
pub(super) fn are_among(keys: &BTreeMap<String, Key>) -> bool {
    keys.values().any(Key::is_text)
}

/// Asks for those of some machines. `earlier` ones go back to a generation of theirs, whatever the specification has
/// come to be: what cannot be had of them is left out.
pub(super) async fn ask(
    cx: &Cx<Context>,
    cancel: &CancellationToken,
    deployment: &Deployment,
    uuid: &Fact<String>,
    machines: Vec<MachineName>,
    earlier: Vec<MachineName>,
) -> Result<Texts, Diagnostics> {
    let mut texts = of(cx, cancel, deployment, uuid, machines).await?;
    for machine in earlier {
        if let Ok(found) = of(cx, cancel, deployment, uuid, vec![machine.clone()]).await {
            texts.extend(found);
        } else {
            cx.warn(
                Diagnostic::warning(format!("Some secrets of machine \"{machine}\" cannot be had"))
                    .detail(
                        "They are a `text` of its `deployment.keys`, and the specification does not \
                         evaluate for it. It keeps those that it has; what it has lost it gets when the \
                         specification evaluates again.",
                    )
                    .at(Path::root().attribute("generations").key(machine.as_str())),
            );
        }
    }
    Ok(texts)
}

/// None while it is not known what to evaluate.
async fn of(
    cx: &Cx<Context>,
    cancel: &CancellationToken,
    deployment: &Deployment,
    uuid: &Fact<String>,
    machines: Vec<MachineName>,
) -> Result<Texts, Diagnostics> {
    if machines.is_empty() || !cx.data.is_nix_known() {
        return Ok(Texts::new());
    }
    let Some(request) = evaluation_request(&deployment.spec(), uuid.clone(), Some(machines))? else {
        return Ok(Texts::new());
    };
    let nix = cx.data.nix().await.map_err(|error| diagnose::nix(&error))?;
    let texts = cx.data.evaluator.texts(nix, &request, cancel).await;
    texts.map_err(|error| diagnose::evaluation(&error, &deployment.spec_path()))
}
