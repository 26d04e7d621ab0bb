//! `generations`: machines that are to run an earlier generation of their system profile, whatever is specified.
//!
//! A generation's number means something on its machine only, so a plan that names one has to ask; what it was told
//! is remembered beside the state, and not asked again once the machine runs it.

use std::collections::BTreeMap;

use nixos_activator::facts::{self, FactsError};
use nixos_activator::ssh::{SshError, Wait};
use nixos_activator::{MachineName, generations};
use tfplugin::{Attribute, Cx, Diagnostic, Diagnostics, Path, Type};

use super::identity;
use super::model::{Deployment, Generations};
use super::private::{Earlier, Private};
use crate::context::Context;
use crate::diagnose;
use crate::machines::{NoEndpoint, Sameness};

pub(super) fn attribute() -> Attribute {
    Attribute::map(Type::Number).optional().description(
        "Machines that go back to an earlier generation of their system profile, by its number: `{ web = \
         41 }`. They are not evaluated, so that this works with a specification that is broken for them. \
         Taken out again, they get what is specified. `nixos-activator generations` lists what a machine \
         has.",
    )
}

/// What is wrong with it by itself.
pub(super) fn problems(generations: &Generations, machines: Option<&[&str]>) -> Diagnostics {
    let mut found = Diagnostics::default();
    for (name, number) in generations.known().into_iter().flatten() {
        if machines.is_some_and(|machines| !machines.contains(&name.as_str())) {
            let detail = format!("Found \"{name}\", which is not a key of `machines` of the deployment.");
            found.push(Diagnostic::error("No such machine").detail(detail).at(path(name)));
        }
        if number.known() == Some(&0) {
            let detail = "Found 0, expected the number of a generation: 1 or more.";
            found.push(Diagnostic::error("There is no generation 0").detail(detail).at(path(name)));
        }
    }
    found
}

/// What each machine in `generations` is to go back to; `None` while that cannot be known.
pub(super) async fn find(
    cx: &Cx<Context>,
    deployment: &Deployment,
    prior: Option<&Deployment>,
    private: &Private,
) -> Result<BTreeMap<MachineName, Option<Earlier>>, Diagnostics> {
    if deployment.generations.is_unknown() {
        // Any of them may be meant.
        let names = deployment.machines.known().into_iter().flat_map(BTreeMap::keys);
        return Ok(names.filter_map(|name| Some((name.parse().ok()?, None))).collect());
    }
    let visits = deployment.generations.known().into_iter().flatten().filter_map(|(name, number)| {
        let machine = name.parse::<MachineName>().ok()?;
        Some(async move {
            let Some(number) = number.known() else {
                return Ok((machine, None));
            };
            let told = private.earlier.get(&machine).filter(|earlier| earlier.generation == *number);
            let same = prior.map(|prior| identity::sameness(prior, deployment, name));
            if same == Some(Sameness::Open) {
                // The numbers of one machine mean nothing on another.
                return Ok((machine, None));
            }
            // What it runs need not be asked for; what it is to run may be gone, or be another machine's.
            let runs_it = |told: &&Earlier| {
                let runs = prior.filter(|_| same == Some(Sameness::Same));
                let runs = runs.and_then(|prior| prior.system(name)?.toplevel.known());
                runs.is_some_and(|runs| runs == told.toplevel.as_str())
            };
            match told.filter(runs_it) {
                Some(told) => Ok((machine, Some(told.clone()))),
                None => {
                    ask(cx, deployment, private, &machine, *number).await.map(|earlier| (machine, earlier))
                }
            }
        })
    });
    let mut found = BTreeMap::new();
    let mut errors = Diagnostics::default();
    for answer in futures::future::join_all(visits).await {
        match answer {
            Ok((machine, earlier)) => drop(found.insert(machine, earlier)),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

/// Those that are known.
pub(super) fn known(found: BTreeMap<MachineName, Option<Earlier>>) -> BTreeMap<MachineName, Earlier> {
    found.into_iter().filter_map(|(name, earlier)| Some((name, earlier?))).collect()
}

pub(super) fn still_unknown(machine: &MachineName) -> Diagnostic {
    Diagnostic::error(format!("The generation of machine \"{machine}\" is still not known"))
        .detail(
            "Neither its number nor how to reach the machine may be unknown when the deployment is applied.",
        )
        .at(path(machine.as_str()))
}

/// Asks a machine; `None` while it is not known how.
async fn ask(
    cx: &Cx<Context>,
    deployment: &Deployment,
    private: &Private,
    machine: &MachineName,
    number: u64,
) -> Result<Option<Earlier>, Diagnostic> {
    let path = path(machine.as_str());
    let (Some(defaults), Some(target)) = (&cx.data.ssh, deployment.target(machine.as_str())) else {
        return Ok(None);
    };
    if target.machine_id.is_unknown() || target.instance_id.is_unknown() {
        // Whoever answers at this address by now need not be the machine that is meant.
        return Ok(None);
    }
    let endpoint = match target.endpoint(defaults, &path) {
        Ok(endpoint) => private.pinned(machine.as_str(), endpoint),
        Err(NoEndpoint::Later(_)) => return Ok(None),
        Err(NoEndpoint::Wrong(diagnostic)) => return Err(diagnostic),
    };
    let unreachable = |error: SshError| diagnose::facts(machine.as_str(), &FactsError::Ssh(error), &path);
    let pool = &cx.data.tools.pool;
    let connection = pool.connect(&endpoint, Wait::ONE_TRY, &cx.cancel).await.map_err(unreachable)?;
    let facts = facts::gather(machine.as_str(), &connection)
        .await
        .map_err(|error| diagnose::facts(machine.as_str(), &error, &path))?;
    let generations = generations::list(&connection).await.map_err(unreachable)?;
    let Some(found) = generations.iter().find(|generation| generation.number == number) else {
        let numbers: Vec<String> =
            generations.iter().map(|generation| generation.number.to_string()).collect();
        let there = if numbers.is_empty() { "none at all".to_owned() } else { numbers.join(", ") };
        return Err(Diagnostic::error(format!("Machine \"{machine}\" has no generation {number}"))
            .detail(format!(
                "Its system profile has {there}. `nixos-activator generations {machine}` says when they \
                 were made and which of them boots."
            ))
            .at(path));
    };
    Ok(Some(Earlier {
        generation: number,
        toplevel: found.toplevel.clone(),
        nixos_version: found.nixos_version.clone(),
        system: facts.system,
    }))
}

fn path(machine: &str) -> Path {
    Path::root().attribute("generations").key(machine)
}
