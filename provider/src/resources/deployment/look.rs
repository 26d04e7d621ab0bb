//! A look at machines after a deployment: what is really there goes into the state.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use nixos_activator::agent::SystemState;
use nixos_activator::deploy::{DeployError, Ended, Job};
use nixos_activator::facts::{self, Facts};
use nixos_activator::ssh::Wait;
use nixos_activator::{MachineName, secrets};
use tfplugin::{Attr, Cx};
use tokio_util::sync::CancellationToken;

use super::model::{Deployment, System};
use super::read;
use crate::context::Context;

/// What has become of each machine: how it ended, what was planned for it, and what it has.
pub(super) async fn at_all<'a>(
    cx: &Cx<Context>,
    jobs: &'a [Job],
    ended: &'a BTreeMap<MachineName, Ended>,
    deployment: &Deployment,
    before: impl Fn(&str) -> Option<System>,
) -> Vec<(&'a Job, &'a Ended, System, System)> {
    let looks = jobs.iter().filter_map(|job| {
        let name = job.machine.as_str();
        let (ended, before) = (ended.get(&job.machine)?, before(name));
        let planned = deployment.system(name).cloned().unwrap_or_default();
        let look = async move {
            let real = real_system(cx, job, deployment, planned.clone(), before, ended).await;
            (job, ended, planned, real)
        };
        Some(look.boxed())
    });
    // In their order, which is that of the diagnostics.
    futures::stream::iter(looks.collect::<Vec<_>>()).buffered(read::AT_ONCE).collect().await
}

/// The entry of `systems` to store: what the machine says; if it does not answer, what the agent reported; else the
/// prior entry.
async fn real_system(
    cx: &Cx<Context>,
    job: &Job,
    deployment: &Deployment,
    planned: System,
    before: Option<System>,
    ended: &Ended,
) -> System {
    let (facts, secrets) = look_again(cx, job, ended).await;
    let secrets = match (&job.secrets, secrets) {
        (Some(given), _) if ended.error.is_none() => {
            let prints = given.declared.iter();
            read::fingerprints(prints.map(|(secret, print)| (secret.file.name.to_string(), print.clone())))
        }
        (_, Some(found)) => read::fingerprints(found),
        // Nothing was sent, or nobody knows.
        (_, None) => before.as_ref().map_or(Attr::Null, |before| before.secrets.clone()),
    };
    let Some(facts) = facts else {
        // Nobody knows; what was true before is the best there is.
        return before.unwrap_or_default();
    };
    // A machine that runs what was planned, or was only to be given it, has what the plan says.
    let as_planned = read::refreshed(planned.clone(), &facts, deployment);
    // Nothing on the machine tells what was only copied there.
    let tells = deployment.runs_now() || deployment.action.known().is_some_and(|action| action == "boot");
    if (tells || ended.is_activated()) && as_planned.toplevel == planned.toplevel {
        return System {
            secrets,
            changes: known_or_null(as_planned.changes),
            generation: known_or_null(as_planned.generation),
            reboot_required: match as_planned.reboot_required {
                // What was only put there waits for nothing by itself.
                Attr::Unknown => Attr::Known(facts.reboot_required),
                known => known,
            },
            ..as_planned
        };
    }
    System { secrets, ..read::refreshed(before.unwrap_or_default(), &facts, deployment) }
}

fn known_or_null<T>(value: Attr<T>) -> Attr<T> {
    if value.is_unknown() { Attr::Null } else { value }
}

/// A fresh look at the machine and its secrets, or what the deployment itself saw last.
async fn look_again(
    cx: &Cx<Context>,
    job: &Job,
    ended: &Ended,
) -> (Option<Facts>, Option<BTreeMap<String, String>>) {
    let seen = ended.now.as_ref().map(facts_of);
    // What it was to be rebooted for is not among what the agent says.
    let waits = matches!(ended.error, Some(DeployError::Reboot(_)));
    let seen = seen.map(|seen| Facts { reboot_required: waits, ..seen });
    if ended.error.is_some() && !ended.asked {
        // Nothing was done there, so nothing is new.
        return (seen, None);
    }
    let pool = &cx.data.tools.pool;
    // Not cancellable: the state has to be true also when the user wants to leave.
    let wait = Wait::UntilReachable(Duration::from_secs(10));
    let connected = pool.connect(&job.endpoint, wait, &CancellationToken::new()).await;
    let Ok(connection) = connected else { return (seen, None) };
    let secrets = match &job.secrets {
        Some(secrets) if ended.error.is_some() => secrets::look(&connection, &secrets.owner).await.ok(),
        _ => None,
    };
    (facts::gather(job.machine.as_str(), &connection).await.ok().or(seen), secrets)
}

fn facts_of(state: &SystemState) -> Facts {
    let path = |path: &Option<String>| path.as_ref().and_then(|path| path.parse().ok());
    Facts {
        current_system: path(&state.current),
        booted_system: path(&state.booted),
        profile: path(&state.profile),
        generation: state.generation,
        ..Facts::default()
    }
}
