//! The deployment's configuration and state as types.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nixos_activator::evaluate;
use nixos_activator::inventory::Inventory;
use nixos_activator::network::{Fact, Request, Spec};
use nixos_activator::reboot::When;
use nixos_activator::secrets::Key;
use nixos_activator::{MachineName, StorePath};
use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Diagnostic, Diagnostics, Path, Value};

use super::generations::{Earlier, Generations};
use super::health::HealthChecks;
use super::identity::Met;
use super::pin::Planned;
use super::rollout::Rollout;
use super::secrets::{Fingerprints, SecretConfigs};
use super::specialisations::{self, Specialisations};
use crate::machines::Target;
use crate::settings::{List, Timeouts, to_json};

/// Configuration and state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deployment {
    pub(crate) id: Attr<String>,
    pub(crate) name: Attr<String>,
    /// One path or a list of them.
    pub(crate) network: Value,
    pub(crate) flake: Attr<String>,
    pub(crate) configuration: Attr<String>,
    pub(crate) import_from_derivation: Attr<bool>,
    pub(crate) machines: Attr<BTreeMap<String, Attr<Target>>>,
    pub(crate) arguments: Value,
    pub(crate) resources: Value,
    pub(crate) specialisations: Specialisations,
    pub(crate) action: Attr<String>,
    pub(crate) reboot: Attr<String>,
    pub(crate) reboot_timeout: Attr<String>,
    pub(crate) rollback: Attr<bool>,
    pub(crate) confirm_timeout: Attr<String>,
    pub(crate) activation_timeout: Attr<String>,
    pub(crate) tolerated_units: List<String>,
    pub(crate) switch_environment: Attr<BTreeMap<String, Attr<String>>>,
    pub(crate) health_checks: HealthChecks,
    pub(crate) rollout: Attr<Rollout>,
    pub(crate) secrets: SecretConfigs,
    pub(crate) keep_generations: Attr<usize>,
    pub(crate) generations: Generations,
    pub(crate) copy: Attr<Copy>,
    pub(crate) on_unreachable: Attr<String>,
    pub(crate) timeouts: Attr<Timeouts>,
    pub(crate) systems: Attr<BTreeMap<String, Attr<System>>>,
}

/// How closures travel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Copy {
    pub(crate) substitute_on_destination: Attr<bool>,
    pub(crate) compress: Attr<bool>,
}

/// What one machine runs, or will run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct System {
    pub(crate) toplevel: Attr<String>,
    pub(crate) drv: Attr<String>,
    pub(crate) generation: Attr<u64>,
    pub(crate) specialisation: Attr<String>,
    pub(crate) nixos_version: Attr<String>,
    pub(crate) kernel: Attr<String>,
    pub(crate) reboot_required: Attr<bool>,
    pub(crate) secrets: Fingerprints,
    pub(crate) changes: Attr<String>,
}

/// What is remembered beside the state: enough to say what a plan changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Private {
    /// Per machine, what is in the system that it runs, or boots with `action = "boot"` (or that is planned for it).
    #[serde(default, deserialize_with = "readable")]
    pub(crate) deployed: BTreeMap<MachineName, Deployed>,
    /// What fingerprints of secrets are made with; drawn at the first apply.
    #[serde(default)]
    pub(crate) secrets_key: Option<Key>,
    /// What is planned; only plans have it.
    #[serde(default, skip_serializing_if = "Planned::is_empty")]
    pub(crate) planned: Planned,
    /// Per machine that is to run an earlier generation, what that is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "readable")]
    pub(crate) earlier: BTreeMap<MachineName, Earlier>,
    /// Per machine, which one it was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "readable")]
    pub(crate) met: BTreeMap<MachineName, Met>,
}

impl Private {
    /// What is in a machine's system is what it was: the planned one has not come to be there.
    pub(crate) fn keep_deployed(&mut self, machine: &MachineName, prior: &Self) {
        match prior.deployed.get(machine) {
            Some(before) => self.deployed.insert(machine.clone(), before.clone()),
            None => self.deployed.remove(machine),
        };
    }
}

/// The entries that this version can read. Without one a plan knows less of what it changes; without any of the rest it would take
/// every secret for a changed one.
fn readable<'de, D, T>(deserializer: D) -> Result<BTreeMap<MachineName, T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let entries = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
    let read = |(name, entry): (String, serde_json::Value)| {
        Some((name.parse().ok()?, serde_json::from_value(entry).ok()?))
    };
    Ok(entries.into_iter().filter_map(read).collect())
}

/// A system that was evaluated here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deployed {
    pub(crate) toplevel: StorePath,
    #[serde(default)]
    pub(crate) system: Option<String>,
    #[serde(default)]
    pub(crate) inventory: Inventory,
    /// Its `deployment.keys`, without contents.
    #[serde(default)]
    pub(crate) keys: BTreeMap<String, evaluate::Key>,
}

impl Deployed {
    pub(crate) fn new(system: &evaluate::System) -> Self {
        Self {
            toplevel: system.toplevel.clone(),
            system: system.system.clone(),
            inventory: system.inventory.clone(),
            keys: system.keys.clone(),
        }
    }
}

impl System {
    /// Everything will be known only after apply.
    pub(crate) fn unknown() -> Self {
        Self {
            toplevel: Attr::Unknown,
            drv: Attr::Unknown,
            generation: Attr::Unknown,
            specialisation: Attr::Unknown,
            nixos_version: Attr::Unknown,
            kernel: Attr::Unknown,
            reboot_required: Attr::Unknown,
            secrets: Attr::Unknown,
            changes: Attr::Unknown,
        }
    }
}

/// The attributes that say what to evaluate; the data source has them too.
#[derive(Debug)]
pub(crate) struct SpecAttributes<'a> {
    pub(crate) name: &'a Attr<String>,
    pub(crate) network: &'a Value,
    pub(crate) flake: &'a Attr<String>,
    pub(crate) configuration: &'a Attr<String>,
    pub(crate) import_from_derivation: &'a Attr<bool>,
    pub(crate) machines: &'a Attr<BTreeMap<String, Attr<Target>>>,
    pub(crate) arguments: &'a Value,
    pub(crate) resources: &'a Value,
    pub(crate) specialisations: &'a Specialisations,
}

impl Deployment {
    pub(crate) fn spec(&self) -> SpecAttributes<'_> {
        SpecAttributes {
            name: &self.name,
            network: &self.network,
            flake: &self.flake,
            configuration: &self.configuration,
            import_from_derivation: &self.import_from_derivation,
            machines: &self.machines,
            arguments: &self.arguments,
            resources: &self.resources,
            specialisations: &self.specialisations,
        }
    }

    /// The attribute the specification comes from, for diagnostics.
    pub(crate) fn spec_path(&self) -> Path {
        self.spec().path()
    }

    /// When machines are rebooted.
    pub(crate) fn reboots(&self) -> When {
        match self.reboot.known().map(String::as_str) {
            Some("if_needed") => When::IfNeeded,
            Some("always") => When::Always,
            _ => When::Never,
        }
    }

    /// The entry of a machine in `systems`, where there is one.
    pub(crate) fn system(&self, machine: &str) -> Option<&System> {
        self.systems.known()?.get(machine)?.known()
    }

    /// The entry of a machine in `machines`, where it is known.
    pub(crate) fn target(&self, machine: &str) -> Option<&Target> {
        self.machines.known()?.get(machine)?.known()
    }
}

impl SpecAttributes<'_> {
    /// The attribute the specification comes from, for diagnostics.
    pub(crate) fn path(&self) -> Path {
        Path::root().attribute(match (self.flake, self.configuration) {
            (Attr::Null, Attr::Null) => "network",
            (Attr::Null, _) => "configuration",
            _ => "flake",
        })
    }
}

/// The question to the evaluator; `None` while it is not even known what to evaluate.
pub(crate) fn evaluation_request(
    spec: &SpecAttributes<'_>,
    uuid: Fact<String>,
    nodes: Option<Vec<MachineName>>,
) -> Result<Option<Request>, Diagnostics> {
    let source = match (spec.flake, spec.configuration, untyped(spec.network)) {
        (Attr::Known(flake), ..) => Spec::Flake(flake.clone()),
        (_, Attr::Known(file), _) => Spec::Configuration(file.into()),
        (Attr::Unknown, ..) | (_, Attr::Unknown, _) | (_, _, Value::Unknown) => return Ok(None),
        (Attr::Null, Attr::Null, network) => match paths(network) {
            Some(paths) => Spec::Network(paths),
            None if network.contains_unknown() => return Ok(None),
            None => return Err(network_problem(spec.network).into_iter().collect()),
        },
    };
    let Some(machines) = spec.machines.known() else {
        if spec.machines.is_unknown() {
            return Ok(None);
        }
        return Ok(Some(request(spec, source, BTreeMap::new(), uuid, nodes)));
    };
    let mut facts = BTreeMap::new();
    for (name, target) in machines {
        let name: MachineName = name.parse().map_err(|error: nixos_activator::NameError| {
            Diagnostic::error("The key is not a machine name")
                .detail(error.to_string())
                .at(Path::root().attribute("machines").key(name))
        })?;
        let unknown = || Target {
            host: Attr::Unknown,
            port: Attr::Unknown,
            host_public_key: Attr::Unknown,
            system: Attr::Unknown,
            state_version: Attr::Unknown,
            public_ipv4: Attr::Unknown,
            private_ipv4: Attr::Unknown,
            public_ipv6: Attr::Unknown,
            target_env: Attr::Unknown,
            machine_id: Attr::Unknown,
            instance_id: Attr::Unknown,
            ..Target::default()
        };
        facts.insert(name, target.known().cloned().unwrap_or_else(unknown).facts());
    }
    Ok(Some(request(spec, source, facts, uuid, nodes)))
}

fn request(
    spec: &SpecAttributes<'_>,
    source: Spec,
    machines: BTreeMap<MachineName, nixos_activator::network::MachineFacts>,
    uuid: Fact<String>,
    nodes: Option<Vec<MachineName>>,
) -> Request {
    let specialisations = specialisations::facts(spec.specialisations, machines.keys());
    let object = |value: &Value, name: &str| match untyped(value) {
        Value::Null => serde_json::json!({}),
        value => to_json(value, name),
    };
    Request {
        spec: source,
        deployment_name: spec.name.known().cloned().unwrap_or_else(|| "default".to_owned()),
        uuid,
        machines,
        arguments: object(spec.arguments, "arguments"),
        resources: object(spec.resources, "resources"),
        specialisations,
        nodes,
        options: vec![],
        import_from_derivation: spec.import_from_derivation.known().copied().unwrap_or_default(),
    }
}

/// The value inside a dynamic attribute.
pub(crate) fn untyped(value: &Value) -> &Value {
    match value {
        Value::Dynamic(typed) => untyped(&typed.1),
        value => value,
    }
}

/// What is wrong with `network`, if anything is.
pub(crate) fn network_problem(network: &Value) -> Option<Diagnostic> {
    let network = untyped(network);
    if matches!(network, Value::Null) || network.contains_unknown() || paths(network).is_some() {
        return None;
    }
    Some(
        Diagnostic::error("`network` is not a path")
            .detail("Expected the path of a NixOps network file, or a list of such paths: \"${path.module}/network.nix\".")
            .at(Path::root().attribute("network")),
    )
}

/// One path or several, none of them empty.
fn paths(network: &Value) -> Option<Vec<PathBuf>> {
    let path = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(PathBuf::from);
    match network {
        Value::List(items) if !items.is_empty() => items.iter().map(path).collect(),
        value => path(value).map(|path| vec![path]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_that_another_version_wrote_otherwise_costs_that_entry() {
        let toplevel = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nixos";
        let stored = json!({
            "deployed": { "web": { "toplevel": toplevel, "later": 1 }, "db": { "path": toplevel }, "a b": {} },
            "earlier": { "web": 7 },
            "secrets_key": "k",
            "later": {}
        });
        let private: Private = serde_json::from_value(stored).unwrap();
        let names: Vec<_> = private.deployed.keys().map(MachineName::as_str).collect();
        assert_eq!((names, private.earlier.len()), (vec!["web"], 0));
        assert!(private.secrets_key.is_some());
    }
}
