//! Which deployments of a run give which machine what system. Two that give one machine different systems would
//! replace each other's at every apply.
//!
//! Terraform asks about one resource at a time and does not say which one it is, so that the deployments that were
//! planned are remembered for as long as the provider is configured: one walk over the graph.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use nixos_activator::agent::DeploymentId;
use tfplugin::{Attr, Diagnostic, Diagnostics, Path};

use super::model::{Deployment, System};
use super::request::untyped;
use crate::machines::{Sameness, Target};

/// The deployments that were planned, and those that were deleted.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    planned: Mutex<Vec<Claim>>,
    deleted: Mutex<Vec<DeploymentId>>,
}

#[derive(Debug)]
struct Claim {
    id: Option<String>,
    config: Deployment,
    /// The systems that are known, by the names of their machines.
    toplevels: BTreeMap<String, String>,
}

impl Claims {
    /// Notes a deployment, with its id where it has one. An error for each machine to which another one gives another
    /// system.
    pub(super) fn claim(
        &self,
        id: Option<&String>,
        config: &Deployment,
        systems: &BTreeMap<String, Attr<System>>,
    ) -> Result<(), Diagnostics> {
        if config.only_puts() {
            return Ok(());
        }
        let named_twice = named_twice(config);
        if !named_twice.is_empty() {
            return Err(named_twice);
        }
        let known = systems
            .iter()
            .filter_map(|(name, system)| Some((name.clone(), system.known()?.toplevel.known()?.clone())));
        let claim = Claim { id: id.cloned(), config: config.clone(), toplevels: known.collect() };
        let mut claims = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        // A replacement is planned twice, with its state and without; what was not known at plan is claimed at apply.
        claims.retain(|other| !other.is_of_same(&claim));
        let twice: Diagnostics = claim
            .machines()
            .filter_map(|(name, target, toplevel)| {
                claims.iter().find_map(|other| {
                    let (theirs, ..) = other
                        .machines()
                        .find(|(_, theirs, other)| *other != toplevel && is_one(target, theirs))?;
                    Some(error(name, target, theirs, other))
                })
            })
            .collect();
        if twice.is_empty() {
            claims.push(claim);
            Ok(())
        } else {
            Err(twice)
        }
    }

    /// Notes that Terraform has deleted a deployment. Its machines still run its systems.
    pub(super) fn delete(&self, id: DeploymentId) {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    /// Whether a deployment was deleted in this run, so that no other one is in its way.
    pub(super) fn is_deleted(&self, id: &DeploymentId) -> bool {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}

impl Claim {
    fn machines(&self) -> impl Iterator<Item = (&String, &Target, &String)> {
        let machines = self.config.machines.known().into_iter().flatten();
        machines.filter_map(|(name, target)| Some((name, target.known()?, self.toplevels.get(name)?)))
    }

    /// Whether both are of one resource: they have the same id or, before there is one, the same configuration. Two
    /// resources with equal configurations count as one, because neither takes anything from the other.
    fn is_of_same(&self, other: &Self) -> bool {
        match (&self.id, &other.id) {
            (Some(one), Some(other)) => one == other,
            _ => self.config == other.config,
        }
    }
}

/// An error for each machine that a deployment has under two names.
fn named_twice(config: &Deployment) -> Diagnostics {
    let targets = || config.machines.known().into_iter().flatten();
    let targets = || targets().filter_map(|(name, target)| Some((name, target.known()?)));
    let twice = targets().enumerate().filter_map(|(n, (name, target))| {
        let (first, _) = targets().take(n).find(|(_, earlier)| is_one(target, earlier))?;
        let host = target.host.known().map_or("", String::as_str);
        Some(
            Diagnostic::error(format!("Machines \"{first}\" and \"{name}\" are one machine"))
                .detail(format!(
                    "Found the machine at {host} under both names; expected each machine once, because it \
                     can run only one system. Remove one of them, or give it a machine of its own. Nothing \
                     was changed."
                ))
                .at(Path::root().attribute("machines").key(name)),
        )
    });
    twice.collect()
}

fn is_one(one: &Target, other: &Target) -> bool {
    let same_instance = one.instance_id.is_known() && one.instance_id == other.instance_id;
    same_instance || one.is_at_address_of(other) && one.sameness(other) != Sameness::Other
}

fn error(name: &str, target: &Target, theirs: &str, other: &Claim) -> Diagnostic {
    let host = target.host.known().map_or("", String::as_str);
    let config = &other.config;
    let spec = [("flake", &config.flake), ("configuration", &config.configuration)];
    let spec = spec.into_iter().find_map(|(kind, said)| Some(format!("{kind} \"{}\"", said.known()?)));
    let network = || Some(format!("network \"{}\"", untyped(&config.network).as_str()?));
    let known_by = [spec.or_else(network), other.id.as_ref().map(|id| format!("id {id}"))];
    let known_by: Vec<String> = known_by.into_iter().flatten().collect();
    let known_by = if known_by.is_empty() { String::new() } else { format!(" ({})", known_by.join(", ")) };
    Diagnostic::error(format!("Machine \"{name}\" is in two deployments"))
        .detail(format!(
            "Found the machine at {host} also as \"{theirs}\" in `machines` of another \
             nixos_deployment{known_by}, with another system. Each would replace what the other one \
             deploys, at every apply. Take the machine out of one of them; or make one deployment of both, \
             whose `network` is a list of files that are merged. Nothing was changed."
        ))
        .at(Path::root().attribute("machines").key(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tfplugin::Attr;

    use super::super::schema::schema;
    use super::*;

    /// A deployment of a machine at each of these hosts.
    fn deployment(network: &str, action: &str, hosts: &[&str]) -> Deployment {
        let machines: serde_json::Map<_, _> =
            hosts.iter().map(|host| (format!("m-{host}"), json!({ "host": host }))).collect();
        let said = json!({ "network": network, "action": action, "machines": machines });
        schema().read_configuration(&said).unwrap()
    }

    /// All of them with this system.
    fn systems(config: &Deployment, toplevel: &str) -> BTreeMap<String, Attr<System>> {
        let system = System { toplevel: Attr::Known(toplevel.to_owned()), ..System::default() };
        let names = config.machines.known().into_iter().flatten().map(|(name, _)| name.clone());
        names.map(|name| (name, Attr::Known(system.clone()))).collect()
    }

    #[test]
    fn a_machine_has_one_name_in_a_deployment() {
        let machines =
            json!({ "a": { "host": "h" }, "b": { "host": "h" }, "c": { "host": "h", "port": 2222 } });
        let said = json!({ "network": "n.nix", "action": "switch", "machines": machines });
        let config = schema().read_configuration(&said).unwrap();
        let errors = Claims::default().claim(None, &config, &BTreeMap::new()).unwrap_err();
        let summaries: Vec<_> = errors.iter().map(|error| error.summary.as_str()).collect();
        assert_eq!(summaries, ["Machines \"a\" and \"b\" are one machine"]);
    }

    #[test]
    fn a_machine_gets_its_system_from_one_deployment() {
        let claims = Claims::default();
        let id = "5f0c6a3e-0000-4000-8000-000000000000".to_owned();
        let claim = |id: Option<&String>, config: &Deployment, toplevel: &str| {
            claims.claim(id, config, &systems(config, toplevel))
        };
        let (a, b) = (deployment("a.nix", "switch", &["h1", "h2"]), deployment("b.nix", "switch", &["h3"]));
        claim(Some(&id), &a, "one").unwrap();
        claim(None, &b, "two").unwrap();
        // What leaves machines as they are, or gives them the same, takes nothing from anybody.
        claim(None, &deployment("c.nix", "push", &["h1"]), "three").unwrap();
        claims.claim(None, &deployment("e.nix", "switch", &["h1"]), &BTreeMap::new()).unwrap();
        // The same one, once more: without its state when it is replaced, and at apply.
        claim(None, &a, "another").unwrap();
        claim(Some(&id), &a, "one").unwrap();
        claim(None, &deployment("d.nix", "switch", &["h2"]), "one").unwrap();
        claim(Some(&"other id".to_owned()), &b, "two").unwrap();

        let errors = claim(None, &deployment("f.nix", "boot", &["h5", "h3", "h1"]), "three").unwrap_err();
        let said: Vec<String> =
            errors.into_iter().map(|one| format!("{}: {}", one.summary, one.detail)).collect();
        assert_eq!(said.len(), 2, "{said:#?}");
        assert!(said[0].contains("\"m-h1\" is in two") && said[0].contains("a.nix"), "{said:#?}");
        assert!(said[1].contains("\"m-h3\" is in two") && said[1].contains("b.nix"), "{said:#?}");
    }
}
