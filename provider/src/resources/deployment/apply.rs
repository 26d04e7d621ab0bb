//! Applying: build and deploy what was planned, then write down what every machine really runs.

use std::collections::BTreeMap;
use std::time::Duration;

use nixos_activator::agent::{Action, DeploymentId};
use nixos_activator::build::Kept;
use nixos_activator::deploy::{self, Ended, Job, Settings, Source};
use nixos_activator::evaluate::{Node, Texts};
use nixos_activator::network::{Fact, Spec};
use nixos_activator::nix::Nix;
use nixos_activator::push::CopySettings;
use nixos_activator::reboot::Reboot;
use nixos_activator::secrets::{Key, OfMachine};
use nixos_activator::ssh::Endpoint;
use nixos_activator::{MachineName, StorePath};
use tfplugin::{ApplyRequest, Attr, Cx, Diagnostic, Diagnostics, Failed, Path, State};
use tokio_util::sync::CancellationToken;

use super::model::{Deployment, System};
use super::private::Planned;
use super::private::{Deployed, Private};
use super::secrets::{Fingerprints, Wanted};
use super::{generations, health, identity, ids, look, plan, rollout, texts};
use crate::context::Context;
use crate::diagnose;
use crate::machines::{Sameness, provider_unknown};
use crate::settings;

/// The limit for a whole create or update.
const APPLY: Duration = Duration::from_hours(1);
/// How long a machine may take to answer: it was there at plan.
const CONNECT: Duration = Duration::from_mins(1);
/// How long `switch-to-configuration` may take.
const ACTIVATION: Duration = Duration::from_mins(10);
/// How long a machine may be away when it reboots.
const REBOOT: Duration = Duration::from_mins(10);
/// How long a machine waits for a new login before it goes back.
const CONFIRMATION: Duration = Duration::from_secs(30);

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
                    "Its activation had been asked for, and what came of it is not known. The next plan shows what it runs.",
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

/// The machines on which something has to be done, and those of them that it is not known how to reach, with the reason.
///
/// In a rollout the latter keep all from being begun: what it allows of failures is for those that were tried.
fn jobs(
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

fn settings(deployment: &Deployment) -> Settings {
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
            "The nixos_deployment with the id {other} had activated it, perhaps from another Terraform state. If that deployment still \
             exists, each of the two replaces what the other one deploys, at every apply: take the machine out of one of them. If it does \
             not exist any more, nothing is wrong, and this is not said again."
        ))
        .at(Path::root().attribute("machines").key(name))
}

/// The deployment was done, but a look afterwards finds something else.
fn changed_meanwhile(job: &Job, real: &System) -> Diagnostic {
    let found = real.toplevel.known().map_or("nothing that is known", String::as_str);
    Diagnostic::error(format!("Machine \"{}\" does not keep its new system", job.machine))
        .detail(format!(
            "{} was activated, but right afterwards the machine has {found}. Someone else changes it at the same time, or it \
             went back by itself; plan again to see what it runs.",
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

/// A token that is cancelled by the user or by a limit of time.
struct Stop {
    token: CancellationToken,
    limit: Duration,
    user: CancellationToken,
    timer: tokio::task::JoinHandle<()>,
}

impl Stop {
    fn after(user: &CancellationToken, limit: Duration) -> Self {
        let token = user.child_token();
        let cancel = token.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            cancel.cancel();
        });
        Self { token, limit, user: user.clone(), timer }
    }

    /// Says so where it was the limit, not the user, that ended something.
    fn explain(&self, diagnostic: Diagnostic) -> Diagnostic {
        if self.token.is_cancelled() && !self.user.is_cancelled() {
            let seconds = self.limit.as_secs();
            return diagnostic.appended(&format!("The limit of {seconds} s in `timeouts` was reached."));
        }
        diagnostic
    }

    fn explain_all(&self, diagnostics: Diagnostics) -> Diagnostics {
        diagnostics.into_iter().map(|diagnostic| self.explain(diagnostic)).collect()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.timer.abort();
    }
}
