//! From what is planned to what is asked of the machines: a job for each whose entry of `systems` differs from the
//! prior one.

use std::collections::BTreeMap;
use std::time::Duration;

use nixos_activator::agent::Action;
use nixos_activator::deploy::{Job, Settings, Source};
use nixos_activator::push::CopySettings;
use nixos_activator::reboot::Reboot;
use nixos_activator::ssh::Endpoint;
use nixos_activator::{MachineName, StorePath};
use tfplugin::{Cx, Diagnostic, Diagnostics, Path};

use super::model::Deployment;
use super::private::Private;
use super::{health, identity, ids, rollout};
use crate::context::Context;
use crate::machines::{Sameness, provider_unknown};
use crate::settings;

/// How long a machine may take to answer: it was there at plan.
const CONNECT: Duration = Duration::from_mins(1);
/// How long `switch-to-configuration` may take.
const ACTIVATION: Duration = Duration::from_mins(10);
/// How long a machine may be away when it reboots.
const REBOOT: Duration = Duration::from_mins(10);
/// How long a machine waits for a new login before it goes back.
const CONFIRMATION: Duration = Duration::from_secs(30);

/// The machines on which something has to be done, and those of them that it is not known how to reach, with the
/// reason.
///
/// In a rollout the latter keep all from being begun: what it allows of failures is for those that were tried.
pub(super) fn jobs(
    cx: &Cx<Context>,
    deployment: &Deployment,
    private: &Private,
    prior: Option<&Deployment>,
) -> Result<(Vec<Job>, Vec<(MachineName, Diagnostic)>), Diagnostics> {
    let (mut jobs, mut stuck) = (vec![], vec![]);
    let mut errors = Diagnostics::default();
    let defaults = cx.data.ssh.as_ref().ok_or_else(provider_unknown)?;
    for (name, target) in deployment.machines.known().into_iter().flatten() {
        let path = Path::root().attribute("machines").key(name);
        let planned = deployment.system(name).cloned().unwrap_or_default();
        let before = prior.and_then(|prior| prior.system(name));
        if before.is_some_and(|before| *before == planned) {
            continue;
        }
        let machine = name.parse::<MachineName>().ok();
        let source = match machine.as_ref().and_then(|machine| private.earlier.get(machine)) {
            Some(_) => Some(Source::OnMachine),
            None => planned.drv.known().and_then(|path| path.parse().ok()).map(Source::Build),
        };
        let parsed = (
            machine,
            source,
            planned.toplevel.known().and_then(|path| path.parse::<StorePath>().ok()),
            target.known(),
        );
        let (Some(machine), Some(source), Some(toplevel), Some(target)) = parsed else {
            errors.push(Diagnostic::error(format!("The plan has no system for machine \"{name}\"")).at(path));
            continue;
        };
        let system = match private.earlier.get(&machine) {
            Some(earlier) => earlier.system.clone(),
            None => private.deployed.get(&machine).and_then(|deployed| deployed.system.clone()),
        };
        let system = system.or_else(|| target.system.known().cloned()).unwrap_or_default();
        match target.endpoint(defaults, &path) {
            Ok(endpoint) => {
                let compress = deployment.copy.known().and_then(|copy| copy.compress.known()).copied();
                let endpoint =
                    Endpoint { compress: compress.unwrap_or_default(), ..private.pinned(name, endpoint) };
                let (checks, checks_from_here) = health::of_machine(&deployment.health_checks, name);
                // Only where the state says what ran on this very machine.
                let same = prior.filter(|prior| {
                    identity::sameness(prior, deployment, machine.as_str()) == Sameness::Same
                });
                let met = same.and_then(|_| private.met_id(machine.as_str(), &endpoint));
                let machine_id = target.machine_id.known().cloned().or(met);
                let planned_from = same
                    .filter(|prior| prior.runs_now() && deployment.runs_now())
                    .and_then(|_| before?.toplevel.known()?.parse().ok());
                jobs.push(Job {
                    secrets: None,
                    machine,
                    endpoint,
                    source,
                    toplevel,
                    system,
                    machine_id,
                    planned_from,
                    checks,
                    checks_from_here,
                });
            }
            Err(reason) if deployment.rollout.is_null() => stuck.push((machine, reason.into())),
            Err(reason) => errors.push(reason.into()),
        }
    }
    if errors.is_empty() { Ok((jobs, stuck)) } else { Err(errors) }
}

/// What holds for all machines.
pub(super) fn settings(deployment: &Deployment) -> Settings {
    let action = match deployment.action.known().map(String::as_str) {
        Some("boot") => Some(Action::Boot),
        Some("test") => Some(Action::Test),
        Some("dry_activate") => Some(Action::DryActivate),
        Some("push") => None,
        _ => Some(Action::Switch),
    };
    let copy = deployment.copy.known().cloned().unwrap_or_default();
    Settings {
        id: deployment.id.known().and_then(|id| id.parse().ok()),
        roots: ids::roots(deployment),
        action,
        copy: CopySettings {
            substitute_on_destination: copy.substitute_on_destination.known().copied().unwrap_or_default(),
        },
        rollback: deployment.rollback.known().copied().unwrap_or(true),
        connect_deadline: CONNECT,
        activation_timeout: deployment.activation_timeout.or(ACTIVATION),
        confirmation_window: deployment.confirm_timeout.or(CONFIRMATION),
        reboot: Reboot { when: deployment.reboots(), deadline: deployment.reboot_timeout.or(REBOOT) },
        keep_generations: deployment.keep_generations.known().copied(),
        rollout: rollout::settings(&deployment.rollout),
        tolerated_units: tolerated_units(deployment),
        switch_environment: switch_environment(deployment),
    }
}

/// Units as systemd names them: a name without a kind is a service's.
fn tolerated_units(deployment: &Deployment) -> Vec<String> {
    let named = settings::texts(&deployment.tolerated_units).unwrap_or_default();
    named.into_iter().map(|unit| if unit.contains('.') { unit } else { format!("{unit}.service") }).collect()
}

fn switch_environment(deployment: &Deployment) -> BTreeMap<String, String> {
    let variables = deployment.switch_environment.known().into_iter().flatten();
    variables.filter_map(|(name, value)| Some((name.clone(), value.known()?.clone()))).collect()
}
