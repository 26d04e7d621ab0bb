//! Planning: evaluate, then decide for each machine whether anything has to be done there.

use std::collections::BTreeMap;

use nixos_activator::build::Kept;
use nixos_activator::evaluate::{self, Evaluation, Key, Node, Texts};
use nixos_activator::network::Fact;
use nixos_activator::reboot::When;
use nixos_activator::{MachineName, StorePath};
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Path, PlanRequest, PlanResponse};
use tokio_util::sync::CancellationToken;

use super::generations;
use super::identity;
use super::ids;
use super::model::{Deployment, System};
use super::pin;
use super::private::{Deployed, Earlier, Planned, Private};
use super::request::evaluation_request;
use super::secrets::{self, Fingerprints, Wanted};
use super::specialisations;
use super::texts;
use crate::context::Context;
use crate::diagnose;
use crate::machines::Sameness;

pub(super) async fn plan(
    cx: &Cx<Context>,
    request: PlanRequest<Deployment, Private>,
) -> Result<PlanResponse<Deployment, Private>, Diagnostics> {
    let PlanRequest { prior, config, mut proposed, planned: first, .. } = request;
    let (prior, mut private) =
        prior.map_or((None, Private::default()), |state| (Some(state.value), state.private));
    let Some(names) = machine_names(&proposed)? else {
        // Not even the set of machines is known.
        proposed.systems = Attr::Unknown;
        return Ok(PlanResponse::new(proposed, private));
    };
    let uuid = prior.as_ref().and_then(|prior| prior.id.known().cloned()).map_or(Fact::Unknown, Fact::Known);
    let earlier = generations::find(cx, &proposed, prior.as_ref(), &private).await?;
    let evaluated: Vec<_> = names.iter().filter(|name| !earlier.contains_key(*name)).cloned().collect();
    let evaluation = if evaluated.is_empty() && !earlier.is_empty() {
        None
    } else {
        // Terraform shows what both plans of an apply warn of.
        let told = match &first {
            Some(first) => Some(first.planned.clone()),
            None if cx.client.stores_planned_private => None,
            None => pin::repeated(&proposed),
        };
        evaluate(cx, &cx.cancel, &proposed, uuid.clone(), &evaluated, &told.unwrap_or_default()).await?
    };

    let texts = if proposed.gets_secrets() && private.secrets_key.is_some() {
        let exact = evaluation.iter().flat_map(|evaluation| &evaluation.nodes);
        let exact =
            exact.filter(|(_, node)| matches!(node, Node::Exact(system) if texts::are_among(&system.keys)));
        let exact = exact.map(|(name, _)| name.clone()).collect();
        let back = earlier.iter().filter(|(name, generation)| {
            let last = private.deployed.get(*name);
            generation.is_some() && last.is_some_and(|last| texts::are_among(&last.keys))
        });
        let back = back.map(|(name, _)| name.clone()).collect();
        texts::ask(cx, &cx.cancel, &proposed, &uuid, exact, back).await?
    } else {
        Texts::new()
    };
    let wanted = Wanted::new(&config.secrets, texts, private.secrets_key.clone(), &cx.cancel).await?;
    let mut systems = BTreeMap::new();
    let mut to_keep = vec![];
    let mut exact = Planned::default();
    for name in &names {
        let now = Now::of(name, prior.as_ref(), &proposed);
        let node = evaluation.as_ref().and_then(|evaluation| evaluation.nodes.get(name));
        let next = match (earlier.get(name), node) {
            (Some(Some(generation)), _) => Next::earlier(generation, private.deployed.get(name)),
            (None, Some(Node::Exact(system))) => Next::new(system, changes(name, system, &now, &private)),
            (_, node) => {
                if let Some(Node::Waits { on }) = node {
                    tracing::info!(machine = %name, on, "the system is known only after apply");
                }
                systems.insert(name.to_string(), Attr::Known(System::unknown()));
                continue;
            }
        };
        let secrets = if proposed.gets_secrets() {
            let has = now.runs.map_or(&Attr::Null, |runs| &runs.secrets);
            wanted.fingerprints(name.as_str(), &next.keys, has, &cx.cancel).await?
        } else {
            // Nothing is sent to a machine that does not run its new system.
            now.secrets()
        };
        exact.secrets.insert(name.clone(), secrets::known(&secrets));
        let planned = planned_system(&next, secrets, &now, &proposed);
        if let Some(drv) = &next.drv {
            if planned.generation.is_unknown() {
                to_keep.push(drv.clone());
            }
            exact.drvs.insert(name.clone(), drv.clone());
        }
        if let Some(Node::Exact(system)) = node {
            private.deployed.insert(name.clone(), Deployed::new(system));
        }
        systems.insert(name.to_string(), Attr::Known(planned));
    }
    private.earlier = generations::known(earlier);
    let changed = match first {
        Some(first) => pin::compare(&first.planned, &exact),
        // Terraform itself brings back what was planned.
        None if cx.client.stores_planned_private => None,
        None => pin::check(&proposed, &exact),
    };
    if let Some(changed) = changed {
        return Err(changed.into());
    }
    private.planned = exact;
    private.deployed.retain(|name, _| names.contains(name));
    private.met.retain(|name, _| names.contains(name));
    let id = prior.as_ref().and_then(|prior| prior.id.known());
    cx.data.deployments.claim(id, &config, &systems)?;
    keep_planned(cx, &proposed, &to_keep).await;
    proposed.systems = Attr::Known(systems);
    Ok(PlanResponse::new(proposed, private))
}

fn machine_names(deployment: &Deployment) -> Result<Option<Vec<MachineName>>, Diagnostics> {
    let Some(machines) = deployment.machines.known() else {
        return Ok(None);
    };
    let parse = |name: &String| {
        name.parse::<MachineName>().map_err(|error| {
            let path = Path::root().attribute("machines").key(name);
            Diagnostic::error("The key is not a machine name").detail(error.to_string()).at(path).into()
        })
    };
    machines.keys().map(parse).collect::<Result<_, _>>().map(Some)
}

/// Evaluates `names`; `None` while it is not known what to evaluate. What is warned of is said but for machines whose
/// systems were told of before.
pub(super) async fn evaluate(
    cx: &Cx<Context>,
    cancel: &CancellationToken,
    deployment: &Deployment,
    uuid: Fact<String>,
    names: &[MachineName],
    told: &Planned,
) -> Result<Option<Evaluation>, Diagnostics> {
    let Some(request) = evaluation_request(&deployment.spec(), uuid, Some(names.to_vec()))? else {
        return Ok(None);
    };
    if !cx.data.is_nix_known() {
        return Ok(None);
    }
    let nix = cx.data.nix().await.map_err(|error| diagnose::nix(&error))?;
    let evaluation = cx
        .data
        .evaluator
        .evaluate(nix, &request, cancel)
        .await
        .map_err(|error| diagnose::evaluation(&error, &deployment.spec_path()))?;
    let untold = evaluation.nodes.iter().filter(|(name, _)| !told.drvs.contains_key(*name));
    diagnose::warnings(untold).into_iter().for_each(|warning| cx.warn(warning));
    if told.drvs.is_empty() {
        let spec = deployment.spec_path();
        evaluation.warnings.iter().for_each(|warning| cx.warn(diagnose::of_specification(warning, &spec)));
    }
    // All that is wrong at once, not the first of it.
    let problems = diagnose::nodes(&evaluation.nodes);
    if !problems.is_empty() {
        return Err(problems);
    }
    if deployment.flake.is_known() {
        warn_of_keys(cx, &evaluation);
    }
    let undeployed: Vec<String> = evaluation
        .names
        .iter()
        .flatten()
        .filter(|name| {
            deployment.machines.known().is_some_and(|machines| !machines.contains_key(name.as_str()))
        })
        .map(|name| format!("\"{name}\""))
        .collect();
    if !undeployed.is_empty() {
        cx.warn(
            Diagnostic::warning("Some nodes have no machine")
                .detail(format!(
                    "The specification also describes {}, which `machines` does not mention; they are not \
                     deployed.",
                    undeployed.join(", ")
                ))
                .at(Path::root().attribute("machines")),
        );
    }
    Ok(Some(evaluation))
}

/// What a flake contains is in the Nix store.
fn warn_of_keys(cx: &Cx<Context>, evaluation: &Evaluation) {
    for (name, node) in &evaluation.nodes {
        let Node::Exact(system) = node else { continue };
        let texts: Vec<String> = system
            .keys
            .iter()
            .filter(|(_, key)| key.is_text())
            .map(|(key, _)| format!("\"{key}\""))
            .collect();
        if texts.is_empty() {
            continue;
        }
        cx.warn(
            Diagnostic::warning(format!("`deployment.keys` of machine \"{name}\" have a `text`"))
                .detail(format!(
                    "What is written in a flake is copied to the Nix store, where everyone on this machine \
                     can read it. If that is so for the content of {}, use `keyFile` or `keyCommand`, or \
                     `secrets` of this resource.",
                    texts.join(", ")
                ))
                .at(Path::root().attribute("machines").key(name.as_str())),
        );
    }
}

/// What is known of a machine before anything is done.
struct Now<'a> {
    /// The prior state, where it has the machine.
    prior: Option<&'a Deployment>,
    /// Its entry there.
    runs: Option<&'a System>,
    /// Whether that entry is of this machine.
    same: Sameness,
}

impl<'a> Now<'a> {
    fn of(name: &MachineName, prior: Option<&'a Deployment>, config: &Deployment) -> Self {
        let runs = prior.and_then(|prior| prior.system(name.as_str()));
        let prior = prior.filter(|_| runs.is_some());
        let same = prior.map_or(Sameness::Other, |prior| identity::sameness(prior, config, name.as_str()));
        Self { prior, runs, same }
    }

    /// The secrets that it has.
    fn secrets(&self) -> Fingerprints {
        match (self.runs, self.same) {
            (None, _) | (_, Sameness::Other) => Attr::Null,
            (Some(runs), Sameness::Open) if !runs.secrets.is_null() => Attr::Unknown,
            (Some(runs), _) => runs.secrets.clone(),
        }
    }
}

/// The system that a machine is to have next.
struct Next {
    toplevel: StorePath,
    /// `None`: nothing is built.
    drv: Option<StorePath>,
    specialisation: Option<String>,
    nixos_version: Option<String>,
    kernel: Option<String>,
    keys: BTreeMap<String, Key>,
    /// Against what it has now.
    changes: String,
}

impl Next {
    fn new(system: &evaluate::System, changes: String) -> Self {
        Self {
            toplevel: system.toplevel.clone(),
            drv: Some(system.drv.clone()),
            specialisation: system.specialisation.clone(),
            nixos_version: system.nixos_version.clone(),
            kernel: system.inventory.kernel.clone(),
            keys: system.keys.clone(),
            changes,
        }
    }

    /// An earlier generation. What it was made of is not known any more; it gets the keys of what was evaluated last.
    fn earlier(earlier: &Earlier, last: Option<&Deployed>) -> Self {
        Self {
            toplevel: earlier.toplevel.clone(),
            drv: None,
            specialisation: None,
            nixos_version: earlier.nixos_version.clone(),
            kernel: None,
            keys: last.map(|last| last.keys.clone()).unwrap_or_default(),
            changes: format!("back to generation {}", earlier.generation),
        }
    }
}

/// The entry of `systems` for a machine whose system is known exactly. It is the prior entry, unchanged, if nothing
/// has to be done: an apply makes a job of every entry that differs from the prior one (`jobs.rs`).
fn planned_system(next: &Next, secrets: Fingerprints, now: &Now<'_>, config: &Deployment) -> System {
    let stays = now.prior.zip(now.runs).filter(|(prior, runs)| {
        runs.toplevel.known().map(String::as_str) == Some(next.toplevel.as_str())
            && is_where_wanted(runs, config.action.known().map(String::as_str))
            && was_activated(prior, config)
    });
    if let Some((prior, runs)) = stays.filter(|_| now.same == Sameness::Same) {
        let reboot = match config.reboots() {
            When::Never => "",
            _ if runs.reboot_required.known() == Some(&true) => "reboot",
            // The last look at the machine was with another policy.
            When::Always if prior.reboots() != When::Always => "reboot if needed",
            When::IfNeeded if prior.reboots() == When::Never && !config.runs_now() => "reboot if needed",
            When::IfNeeded | When::Always => "",
        };
        let reboot_required = if reboot.is_empty() { runs.reboot_required.clone() } else { Attr::Unknown };
        let drv = next.drv.as_ref().map_or_else(|| runs.drv.clone(), |drv| Attr::Known(drv.to_string()));
        let Attr::Known(of_secrets) = secrets::changes(&runs.secrets, &secrets) else {
            // Whether anything has to be done is open, and so is all that follows from it.
            let drv = if drv == runs.drv { drv } else { Attr::Unknown };
            return System { drv, secrets, reboot_required, changes: Attr::Unknown, ..runs.clone() };
        };
        let changes = joined([of_secrets, reboot.to_owned()]);
        if changes.is_empty() {
            return runs.clone();
        }
        return System { drv, secrets, reboot_required, changes: Attr::Known(changes), ..runs.clone() };
    }
    let has = now.runs.filter(|_| now.same != Sameness::Other);
    let of_secrets = secrets::changes(has.map_or(&Attr::Null, |runs| &runs.secrets), &secrets);
    let reboot = match config.reboots() {
        When::Never => "",
        When::IfNeeded if config.action.known().is_some_and(|action| action == "switch") => {
            "reboot if needed"
        }
        When::IfNeeded | When::Always => "reboot",
    };
    let changes = of_secrets.map(|of_secrets| joined([next.changes.clone(), of_secrets, reboot.to_owned()]));
    let new = System {
        toplevel: Attr::Known(next.toplevel.to_string()),
        drv: Attr::from(next.drv.as_ref().map(ToString::to_string)),
        generation: Attr::Unknown,
        specialisation: Attr::from(next.specialisation.clone()),
        nixos_version: Attr::from(next.nixos_version.clone()),
        kernel: Attr::from(next.kernel.clone()),
        reboot_required: Attr::Unknown,
        secrets,
        changes,
    };
    if now.same != Sameness::Open {
        return new;
    }
    // Known is what holds either way: for the machine that has it, and for another one that gets it.
    let either = |new: Attr<String>, old: Option<&Attr<String>>| match old {
        Some(old) if *old != new => Attr::Unknown,
        _ => new,
    };
    let old = stays.map(|(_, runs)| runs);
    System {
        drv: either(new.drv, old.map(|old| &old.drv)),
        specialisation: either(new.specialisation, old.map(|old| &old.specialisation)),
        nixos_version: either(new.nixos_version, old.map(|old| &old.nixos_version)),
        kernel: either(new.kernel, old.map(|old| &old.kernel)),
        changes: Attr::Unknown,
        ..new
    }
}

/// Those that say something, in one line.
fn joined<const N: usize>(parts: [String; N]) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Whether a machine that runs the right system also has it where `action` wants it.
fn is_where_wanted(runs: &System, action: Option<&str>) -> bool {
    !matches!(action, Some("switch" | "boot")) || runs.generation.is_known()
}

/// A system that was only put on the machine, or behind the next boot, is not running because another action is
/// wanted now.
fn was_activated(prior: &Deployment, config: &Deployment) -> bool {
    let waiting = |action: &String| matches!(action.as_str(), "boot" | "push" | "dry_activate");
    prior.action == config.action || !prior.action.known().is_some_and(waiting)
}

/// A line for people: what the machine gets that it does not have.
fn changes(name: &MachineName, system: &evaluate::System, now: &Now<'_>, private: &Private) -> String {
    let summary = || system.inventory.summary();
    let Some(runs) = now.runs.and_then(|runs| runs.toplevel.known()) else {
        return summary();
    };
    if now.same == Sameness::Other {
        return joined(["another machine".to_owned(), summary()]);
    }
    let deployed = private.deployed.get(name);
    // What was only put on the machine, or tried, is not what it runs.
    if now.prior.is_some_and(Deployment::only_puts) {
        return match deployed {
            Some(before) if before.toplevel == system.toplevel => "same system, activated again".to_owned(),
            Some(before) => before.inventory.changes(&system.inventory),
            None => summary(),
        };
    }
    let earlier = private.earlier.get(name).filter(|earlier| earlier.toplevel.as_str() == runs);
    let ran = now.runs.and_then(|runs| runs.specialisation.known()).map(String::as_str);
    let specialisation = specialisations::changes(ran, system.specialisation.as_deref());
    match deployed {
        _ if runs == system.toplevel.as_str() => "same system, activated again".to_owned(),
        _ if earlier.is_some() => "what is specified, in place of an earlier generation".to_owned(),
        Some(before) if before.toplevel.as_str() == runs => {
            joined([specialisation, before.inventory.changes(&system.inventory)])
        }
        // The machine runs a specialisation of the deployed system, chosen by an administrator.
        Some(before) if ran.is_some() && before.toplevel == system.toplevel => specialisation,
        Some(before) if ran.is_some() => {
            joined([specialisation, before.inventory.changes(&system.inventory)])
        }
        _ => {
            let foreign =
                runs.parse::<StorePath>().map_or_else(|_| runs.clone(), |path| path.name().to_owned());
            let whose = if deployed.is_some() {
                "is not what was deployed last"
            } else {
                "was not deployed from here"
            };
            format!("replaces {foreign}, which {whose}")
        }
    }
}

/// Keeps planned derivations from the garbage collector until they are applied. A failure costs only a second
/// evaluation.
async fn keep_planned(cx: &Cx<Context>, deployment: &Deployment, drvs: &[StorePath]) {
    let Some(roots) = ids::roots(deployment) else {
        return;
    };
    if drvs.is_empty() {
        return;
    }
    if let Ok(nix) = cx.data.nix().await
        && let Err(error) = roots.keep(nix, Kept::Planned, drvs, &cx.cancel).await
    {
        tracing::warn!(%error, "planned derivations are not protected from garbage collection");
    }
}
