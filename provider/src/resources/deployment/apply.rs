//! Applying: build and deploy what was planned, then write down what every machine really runs.

use std::collections::BTreeMap;
use std::time::Duration;

use nixos_activator::agent::DeploymentId;
use nixos_activator::build::Kept;
use nixos_activator::deploy::{self, Ended, Job};
use nixos_activator::evaluate::{Node, Texts};
use nixos_activator::network::{Fact, Spec};
use nixos_activator::nix::Nix;
use nixos_activator::secrets::{Key, OfMachine};
use nixos_activator::{MachineName, StorePath};
use tfplugin::{ApplyRequest, Attr, Cx, Diagnostic, Diagnostics, Failed, Path, State};
use tokio_util::sync::CancellationToken;

use super::jobs::{jobs, settings};
use super::model::{Deployment, System};
use super::private::Planned;
use super::private::{Deployed, Private};
use super::secrets::{Fingerprints, Wanted};
use super::stop::Stop;
use super::{generations, identity, ids, look, plan, texts};
use crate::context::Context;
use crate::diagnose;
use crate::machines::Sameness;

/// The limit for a whole create or update.
const APPLY: Duration = Duration::from_hours(1);
/// What follows from a first apply that was not done for all machines.
const TAINTED: &str = "Terraform calls a deployment tainted whose first apply failed in part, and replaces \
                       it at the next one: no machine loses anything by that, but the deployment gets \
                       another id, which specifications see as `uuid`. `terraform untaint` keeps it.";

pub(super) async fn apply(
    cx: &Cx<Context>,
    prior: Option<State<Deployment, Private>>,
    request: ApplyRequest<Deployment, Private>,
) -> Result<State<Deployment, Private>, Failed<Deployment, Private>> {
    let ApplyRequest { planned: mut deployment, config, mut private, .. } = request;
    let (prior, prior_private) =
        prior.map_or((None, Private::default()), |state| (Some(state.value), state.private));
    if !deployment.id.is_known() {
        deployment.id = Attr::Known(ids::new_id()?);
    }
    // A limit of time ends as a cancellation does: at the next safe point, with a true state.
    let timeouts = &deployment.timeouts;
    let limit = if prior.is_some() { timeouts.update_or(APPLY) } else { timeouts.create_or(APPLY) };
    let stop = Stop::after(&cx.cancel, limit);

    private.planned = Planned::default();
    complete(cx, &stop.token, &mut deployment, &mut private)
        .await
        .map_err(|found| stop.explain_all(found))?;
    let systems = deployment.systems.known().cloned().unwrap_or_default();
    cx.data.deployments.claim(deployment.id.known(), &config, &systems)?;
    if private.secrets_key.is_none() {
        private.secrets_key = Some(Key::random().map_err(ids::no_randomness)?);
    }
    // What another machine had is nothing that this one has.
    let same = |name: &str| {
        let prior = prior.as_ref();
        prior.filter(|prior| identity::sameness(prior, &deployment, name) == Sameness::Same)
    };
    let before = |name: &str| same(name).and_then(|prior| prior.system(name)).cloned();
    let (mut jobs, stuck) = jobs(cx, &deployment, &private, prior.as_ref())?;
    let mut diagnostics = Diagnostics::default();
    let mut left = BTreeMap::new();
    for (name, diagnostic) in stuck {
        left.insert(name.to_string(), Attr::Known(before(name.as_str()).unwrap_or_default()));
        private.keep_deployed(&name, &prior_private);
        diagnostics.push(diagnostic);
    }
    let texts = texts_of(cx, &stop.token, &deployment, &private, &jobs).await;
    let texts = texts.map_err(|found| stop.explain_all(found))?;
    let wanted = Wanted::new(&config.secrets, texts, private.secrets_key.clone(), &stop.token).await?;
    for job in &mut jobs {
        let planned = deployment.system(job.machine.as_str()).map_or(&Attr::Null, |system| &system.secrets);
        let had = before(job.machine.as_str()).is_some_and(|before| before.secrets.is_known());
        job.secrets = secrets_of(job, &deployment, &private, planned, had, &wanted, &stop.token).await?;
    }
    let ended = if jobs.is_empty() {
        BTreeMap::new()
    } else {
        let nix = cx.data.nix().await.map_err(|error| Diagnostics::from(diagnose::nix(&error)))?;
        let settings = settings(&deployment);
        let nix = &nix_for(cx, nix, &deployment, &stop.token).await;
        deploy::deploy(&cx.data.tools, nix, &jobs, &settings, &stop.token)
            .await
            .map_err(|error| Diagnostics::from(stop.explain(diagnose::build(&error))))?
    };

    let mut systems = deployment.systems.known().cloned().unwrap_or_default();
    systems.extend(left);
    for (job, ended, planned, real) in look::at_all(cx, &jobs, &ended, &deployment, before).await {
        let name = job.machine.as_str();
        let accepted = cx.data.tools.pool.accepted_key(&job.endpoint);
        private.meet(&job.machine, &job.endpoint, ended.machine_id.clone(), accepted);
        if ended.error.is_none() && real.toplevel != planned.toplevel {
            diagnostics.push(changed_meanwhile(job, &real));
        }
        for diagnostic in told(job, ended, deployment.action.known().map(String::as_str)) {
            cx.warn(diagnostic);
        }
        if let Some(other) = &ended.displaced
            && before(name).is_none()
            && !cx.data.deployments.is_deleted(other)
        {
            cx.warn(displaced(name, other));
        }
        let is_there = real.toplevel == planned.toplevel;
        systems.insert(name.to_owned(), Attr::Known(real));
        if let Some(error) = &ended.error {
            let mut diagnostic = diagnose::deployment(name, error);
            if error.is_cancellation() {
                diagnostic = stop.explain(diagnostic);
            }
            if ended.asked && ended.report.is_none() {
                diagnostic = diagnostic.appended(
                    "Its activation had been asked for, and what came of it is not known. The next plan \
                     shows what it runs.",
                );
            }
            diagnostics.push(diagnostic);
            if is_there {
                continue;
            }
            // What was planned is not what is there.
            private.keep_deployed(&job.machine, &prior_private);
        }
    }
    if deployment.only_puts() {
        // The machines run what they ran before.
        private.deployed = prior_private.deployed;
    }
    deployment.systems = Attr::Known(systems);
    keep_deployed(cx, &deployment).await;
    let state = State { value: deployment, private };
    if diagnostics.is_empty() {
        return Ok(state);
    }
    // Where nothing came to be there is nothing to keep, and Terraform need not destroy it before the next try.
    let nothing = prior.is_none() && ended.values().all(|ended| ended.error.is_some() && !ended.asked);
    if prior.is_none() && !nothing {
        diagnostics = diagnostics
            .into_iter()
            .enumerate()
            .map(|(n, found)| if n == 0 { found.appended(TAINTED) } else { found })
            .collect();
    }
    Err(Failed { diagnostics, partial: (!nothing).then_some(state) })
}

/// Nix with the settings that a flake asks for, where its user lets flakes do that.
async fn nix_for(cx: &Cx<Context>, nix: &Nix, deployment: &Deployment, cancel: &CancellationToken) -> Nix {
    let Attr::Known(flake) = &deployment.flake else {
        return nix.clone();
    };
    let asked = cx.data.evaluator.settings_of(nix, &Spec::Flake(flake.clone()), cancel).await;
    nix.with(asked.unwrap_or_else(|error| {
        // What is to be built is known without it.
        tracing::warn!(%error, "the flake's `nixConfig` is not known");
        vec![]
    }))
}

/// Evaluates what could not be evaluated at plan.
async fn complete(
    cx: &Cx<Context>,
    cancel: &CancellationToken,
    deployment: &mut Deployment,
    private: &mut Private,
) -> Result<(), Diagnostics> {
    let mut systems = deployment.systems.known().cloned().unwrap_or_default();
    let machines = deployment.machines.known().cloned().unwrap_or_default();
    let open: Vec<MachineName> = machines
        .keys()
        .filter(|name| {
            systems.get(*name).and_then(Attr::known).is_none_or(|system| !system.toplevel.is_known())
        })
        .filter_map(|name| name.parse().ok())
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    let earlier = generations::find(cx, deployment, None, private).await?;
    let (open_earlier, open): (Vec<_>, Vec<_>) =
        open.into_iter().partition(|name| earlier.contains_key(name));
    for name in open_earlier {
        let Some(Some(generation)) = earlier.get(&name) else {
            return Err(generations::still_unknown(&name).into());
        };
        systems.insert(name.to_string(), Attr::Known(generation.system()));
    }
    private.earlier = generations::known(earlier);
    let evaluation = if open.is_empty() {
        None
    } else {
        let uuid = Fact::from(deployment.id.known().cloned());
        plan::evaluate(cx, cancel, deployment, uuid, &open, &Planned::default()).await?
    };
    for name in open {
        let path = Path::root().attribute("machines").key(name.as_str());
        match evaluation.as_ref().and_then(|evaluation| evaluation.nodes.get(&name)) {
            Some(Node::Exact(system)) => {
                systems.insert(
                    name.to_string(),
                    Attr::Known(System {
                        toplevel: Attr::Known(system.toplevel.to_string()),
                        drv: Attr::Known(system.drv.to_string()),
                        specialisation: Attr::from(system.specialisation.clone()),
                        nixos_version: Attr::from(system.nixos_version.clone()),
                        kernel: Attr::from(system.inventory.kernel.clone()),
                        changes: Attr::Known(system.inventory.summary()),
                        ..System::unknown()
                    }),
                );
                private.deployed.insert(name, Deployed::new(system));
            }
            Some(Node::Waits { on }) => {
                return Err(Diagnostic::error(format!(
                    "The system of machine \"{name}\" is still not known"
                ))
                .detail(format!("It needs `{on}`, which has no value even now."))
                .at(path)
                .into());
            }
            // Anything wrong was an error already.
            Some(Node::NoMachine { .. } | Node::Broken { .. }) | None => {
                return Err(Diagnostic::error(format!("Machine \"{name}\" was not evaluated"))
                    .at(path)
                    .into());
            }
        }
    }
    deployment.systems = Attr::Known(systems);
    Ok(())
}

/// The contents of keys that the specification has itself, for the machines on which something has to be done.
async fn texts_of(
    cx: &Cx<Context>,
    cancel: &CancellationToken,
    deployment: &Deployment,
    private: &Private,
    jobs: &[Job],
) -> Result<Texts, Diagnostics> {
    if !deployment.gets_secrets() {
        return Ok(Texts::new());
    }
    let names = jobs
        .iter()
        .map(|job| &job.machine)
        .filter(|name| private.deployed.get(*name).is_some_and(|deployed| texts::are_among(&deployed.keys)));
    let (back, exact) = names.cloned().partition(|name| private.earlier.contains_key(name));
    texts::ask(cx, cancel, deployment, &Fact::from(deployment.id.known().cloned()), exact, back).await
}

/// What a machine is to have of secrets; `None` where it neither had nor gets any.
async fn secrets_of(
    job: &Job,
    deployment: &Deployment,
    private: &Private,
    planned: &Fingerprints,
    had: bool,
    wanted: &Wanted,
    cancel: &CancellationToken,
) -> Result<Option<OfMachine>, Diagnostics> {
    if !deployment.gets_secrets() {
        return Ok(None);
    }
    let none = BTreeMap::new();
    let keys = private.deployed.get(&job.machine).map_or(&none, |deployed| &deployed.keys);
    let owner = deployment.id.known().cloned().unwrap_or_default();
    let of_machine = wanted.of_machine(&owner, job.machine.as_str(), keys, planned, cancel).await?;
    Ok((had || !of_machine.declared.is_empty()).then_some(of_machine))
}

/// What a machine's agent has to say although all went well: what is not as it should be, and what a dry run would do.
fn told(job: &Job, ended: &Ended, action: Option<&str>) -> Vec<Diagnostic> {
    let path = Path::root().attribute("machines").key(job.machine.as_str());
    let Some(report) = ended.report.as_ref() else { return vec![] };
    let mut told = vec![];
    if !report.warnings.is_empty() {
        told.push(
            Diagnostic::warning(format!(
                "Machine \"{}\" runs its new system, but not all is well",
                job.machine
            ))
            .detail(report.warnings.join("\n"))
            .at(path.clone()),
        );
    }
    if action == Some("dry_activate") && ended.error.is_none() {
        let lines = match report.output_tail.as_slice() {
            [] => "It would change nothing.".to_owned(),
            lines => lines.join("\n"),
        };
        told.push(
            Diagnostic::warning(format!("What activation would do on machine \"{}\"", job.machine))
                .detail(format!("{lines}\n\nThis was a dry run: nothing was changed."))
                .at(path),
        );
    }
    told
}

/// A machine came to this deployment while it ran the system of another one.
fn displaced(name: &str, other: &DeploymentId) -> Diagnostic {
    Diagnostic::warning(format!("Machine \"{name}\" ran the system of another deployment"))
        .detail(format!(
            "The nixos_deployment with the id {other} had activated it, perhaps from another Terraform \
             state. If that deployment still exists, each of the two replaces what the other one deploys, \
             at every apply: take the machine out of one of them. If it does not exist any more, nothing \
             is wrong, and this is not said again."
        ))
        .at(Path::root().attribute("machines").key(name))
}

/// The deployment was done, but a look afterwards finds something else.
fn changed_meanwhile(job: &Job, real: &System) -> Diagnostic {
    let found = real.toplevel.known().map_or("nothing that is known", String::as_str);
    Diagnostic::error(format!("Machine \"{}\" does not keep its new system", job.machine))
        .detail(format!(
            "{} was activated, but right afterwards the machine has {found}. Someone else changes it at \
             the same time, or it went back by itself; plan again to see what it runs.",
            job.toplevel
        ))
        .at(Path::root().attribute("machines").key(job.machine.as_str()))
}

/// Keeps what machines run from the local garbage collector: the next push and rollback start from it.
async fn keep_deployed(cx: &Cx<Context>, deployment: &Deployment) {
    let Some(roots) = ids::roots(deployment) else {
        return;
    };
    let Ok(nix) = cx.data.nix().await else { return };
    // A system that was not built here is not in this store.
    let paths: Vec<StorePath> = deployment
        .systems
        .known()
        .into_iter()
        .flat_map(BTreeMap::values)
        .filter_map(|system| system.known()?.toplevel.known()?.parse().ok())
        .filter(|path: &StorePath| std::path::Path::new(path.as_str()).exists())
        .collect();
    if let Err(error) = roots.keep(nix, Kept::Deployed, &paths, &CancellationToken::new()).await {
        tracing::warn!(%error, "deployed systems are not protected from garbage collection");
    }
}
