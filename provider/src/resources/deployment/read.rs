//! Reading: ask every machine what it runs. Drift is whatever differs from the last state.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use nixos_activator::agent::DeploymentId;
use nixos_activator::facts::{self, Facts, FactsError};
use nixos_activator::secrets;
use nixos_activator::ssh::{Endpoint, SshError, Wait};
use nixos_activator::{MachineName, StorePath};
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Path, State};

use super::model::{Deployment, System};
use super::private::Private;
use super::secrets::Fingerprints;
use crate::context::Context;
use crate::diagnose;
use crate::machines::{NoEndpoint, Target, not_refreshed, provider_unknown};

/// How many machines are asked at once.
pub(super) const AT_ONCE: usize = 32;

pub(super) async fn read(
    cx: &Cx<Context>,
    state: State<Deployment, Private>,
) -> Result<State<Deployment, Private>, Diagnostics> {
    let State { value: mut deployment, mut private } = state;
    let machines = deployment.machines.known().cloned().unwrap_or_default();
    let limit = deployment.timeouts.read_or(Duration::ZERO);
    let visits: Vec<_> = machines
        .iter()
        .map(|(name, target)| {
            let owner = deployment.id.known().and_then(|id| id.parse().ok());
            let owner =
                owner.filter(|_| deployment.system(name).is_some_and(|system| system.secrets.is_known()));
            let private = &private;
            async move { (name, target, visit(cx, target, name, limit, owner.as_ref(), private).await) }
                .boxed()
        })
        .collect();
    let answers: Vec<_> = futures::stream::iter(visits).buffer_unordered(AT_ONCE).collect().await;

    let mut systems = deployment.systems.known().cloned().unwrap_or_default();
    let mut errors = Diagnostics::default();
    let must_answer = deployment.on_unreachable.known().is_some_and(|policy| policy == "fail");
    for (name, target, answer) in answers {
        let path = Path::root().attribute("machines").key(name);
        match answer {
            Ok(Seen { endpoint, facts, secrets }) => {
                let target = target.known().cloned().unwrap_or_default();
                let is_another = private.is_another(name, &endpoint, &target, &facts);
                let before = systems.get(name).and_then(Attr::known).cloned().unwrap_or_default();
                let kept = if is_another { Attr::Null } else { before.secrets.clone() };
                let secrets = match secrets {
                    None => kept,
                    Some(Ok(found)) => fingerprints(found),
                    Some(Err(error)) => {
                        cx.warn(unseen_secrets(name, &error).at(path.clone()));
                        kept
                    }
                };
                let system = if is_another {
                    of_another(&facts, &deployment)
                } else if let Some(other) = deployed_by_another(&before, &facts, &deployment) {
                    cx.warn(taken_over(name, other).at(path));
                    System {
                        changes: Attr::Known(format!("deployed by another nixos_deployment, {other}")),
                        ..refreshed(before, &facts, &deployment)
                    }
                } else {
                    refreshed(before, &facts, &deployment)
                };
                systems.insert(name.clone(), Attr::Known(System { secrets, ..system }));
                if let Ok(name) = name.parse::<MachineName>() {
                    if is_another {
                        private.earlier.remove(&name);
                    }
                    let accepted = cx.data.tools.pool.accepted_key(&endpoint);
                    private.meet(&name, &endpoint, facts.machine_id, accepted);
                }
            }
            Err(silent) if silent.concerns_machine() && !must_answer => {
                cx.warn(silent.warning(name, &path));
            }
            // What is only later known is no failure of the machine.
            Err(Silent::Setting(NoEndpoint::Later(why))) => cx.warn(not_refreshed(name, &why).at(path)),
            Err(silent) => errors.push(silent.diagnostic(name, &path)),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    deployment.systems = Attr::Known(systems);
    Ok(State { value: deployment, private })
}

/// What a machine told.
struct Seen {
    /// How it was reached.
    endpoint: Endpoint,
    facts: Facts,
    /// Where it was to have secrets, the fingerprints of those that it has.
    secrets: Option<Result<BTreeMap<String, String>, SshError>>,
}

/// Why a machine said nothing.
enum Silent {
    Setting(NoEndpoint),
    Facts(FactsError),
}

impl Silent {
    /// Whether it says something about this machine alone.
    fn concerns_machine(&self) -> bool {
        match self {
            Self::Setting(_) | Self::Facts(FactsError::Shell { .. }) => true,
            Self::Facts(FactsError::Ssh(error)) => error.concerns_machine(),
        }
    }

    /// What a refresh says that goes on.
    fn warning(self, name: &str, path: &Path) -> Diagnostic {
        match self {
            Self::Setting(reason) => not_refreshed(name, &reason.into()).at(path.clone()),
            Self::Facts(_) => diagnose::kept(self.diagnostic(name, path))
                .appended("Set `on_unreachable = \"fail\"` to stop here instead."),
        }
    }

    fn diagnostic(self, name: &str, path: &Path) -> Diagnostic {
        match self {
            Self::Setting(reason) => reason.into(),
            Self::Facts(error) => diagnose::facts(name, &error, path),
        }
    }
}

async fn visit(
    cx: &Cx<Context>,
    target: &Attr<Target>,
    name: &str,
    limit: Duration,
    owner: Option<&DeploymentId>,
    private: &Private,
) -> Result<Seen, Silent> {
    let path = Path::root().attribute("machines").key(name);
    let later = |why: Diagnostic| Silent::Setting(NoEndpoint::Later(why));
    let defaults = cx.data.ssh.as_ref().ok_or_else(|| later(provider_unknown()))?;
    let unknown = || later(Diagnostic::error("The machine is not known yet."));
    let endpoint = target.known().ok_or_else(unknown)?.endpoint(defaults, &path).map_err(Silent::Setting)?;
    let endpoint = private.pinned(name, endpoint);
    let connection = cx
        .data
        .tools
        .pool
        .connect(&endpoint, Wait::UntilReachable(limit), &cx.cancel)
        .await
        .map_err(|error| Silent::Facts(error.into()))?;
    let facts = facts::gather(name, &connection).await.map_err(Silent::Facts)?;
    let secrets = match owner {
        Some(owner) => Some(secrets::look(&connection, owner).await),
        None => None,
    };
    Ok(Seen { endpoint, facts, secrets })
}

/// Fingerprints as the state has them: no secrets are null.
pub(super) fn fingerprints(found: impl IntoIterator<Item = (String, String)>) -> Fingerprints {
    let found: BTreeMap<_, _> = found.into_iter().map(|(name, print)| (name, Attr::Known(print))).collect();
    if found.is_empty() { Attr::Null } else { Attr::Known(found) }
}

fn unseen_secrets(name: &str, error: &SshError) -> Diagnostic {
    Diagnostic::warning(format!("The secrets of machine \"{name}\" cannot be looked at"))
        .detail(format!("{error}\n\nThe plan may not show what has become of them."))
}

/// The entry of `systems` of a machine that nothing is known of yet, because it was another one before.
fn of_another(facts: &Facts, deployment: &Deployment) -> System {
    System {
        changes: Attr::Known("another machine than the one that was deployed to".to_owned()),
        ..refreshed(System::default(), facts, deployment)
    }
}

/// The other deployment that has replaced the system of this one on a machine; `None`: nothing was replaced, or no
/// deployment did it.
fn deployed_by_another<'a>(
    before: &System,
    facts: &'a Facts,
    deployment: &Deployment,
) -> Option<&'a DeploymentId> {
    let own = deployment.id.known()?.parse().ok()?;
    let found = facts.current_system.as_ref().map(StorePath::as_str);
    let is_replaced = before.toplevel.known().is_some_and(|deployed| Some(deployed.as_str()) != found);
    facts.deployment_other_than(Some(&own)).filter(|_| is_replaced && deployment.runs_now())
}

fn taken_over(name: &str, other: &DeploymentId) -> Diagnostic {
    Diagnostic::warning(format!("Machine \"{name}\" runs the system of another deployment")).detail(format!(
        "The nixos_deployment with the id {other} has replaced the system of this one, perhaps from \
         another Terraform state. Each of the two replaces what the other one deploys, at every apply: \
         take the machine out of one of them."
    ))
}

/// The entry of `systems` after a look at the machine. What a foreign system is made of is not known here.
pub(super) fn refreshed(before: System, facts: &Facts, deployment: &Deployment) -> System {
    let found = match deployment.action.known().map(String::as_str) {
        // Only the next boot shows it; what counts is what is going to boot.
        Some("boot") => &facts.profile,
        // Nothing on the machine tells what was last copied there.
        Some("push" | "dry_activate") => return before,
        _ => &facts.current_system,
    };
    let toplevel = found.as_ref().map(ToString::to_string);
    let generation = facts.generation.filter(|_| facts.profile.is_some() && facts.profile == *found);
    let known = if before.toplevel.known() == toplevel.as_ref() {
        before
    } else if let Some(specialisation) = chosen_specialisation(&before, facts, deployment) {
        System {
            changes: Attr::Known(format!("specialisation {specialisation} of the system that was deployed")),
            specialisation: Attr::Known(specialisation),
            ..System::default()
        }
    } else {
        let what =
            if before.toplevel.is_known() { "not what was deployed last" } else { "not deployed from here" };
        System { changes: Attr::Known(what.to_owned()), ..System::default() }
    };
    System {
        toplevel: Attr::from(toplevel),
        generation: Attr::from(generation),
        reboot_required: Attr::Known(facts.reboot_required || deployment.reboots().is_due(facts)),
        ..known
    }
}

/// The specialisation of the deployed system that an administrator has chosen on the machine; `None` where it runs
/// something else.
fn chosen_specialisation(before: &System, facts: &Facts, deployment: &Deployment) -> Option<String> {
    let is_deployed =
        facts.profile.as_ref().map(StorePath::as_str) == before.toplevel.known().map(String::as_str);
    facts.specialisation.clone().filter(|_| is_deployed && deployment.runs_now())
}
