//! The deployment's configuration and state as types.

use std::collections::BTreeMap;

use nixos_activator::reboot::When;
use serde::{Deserialize, Serialize};
use tfplugin::{Attr, DurationText, Path, Timeouts, Value};

use super::health::HealthChecks;
use super::rollout::Rollout;
use super::secrets::{Fingerprints, SecretConfigs};
use crate::machines::Target;
use crate::settings::List;

/// The attribute: numbers by the names of machines.
pub(crate) type Generations = Attr<BTreeMap<String, Attr<u64>>>;

/// The attribute: names of specialisations by the names of machines.
pub(crate) type Specialisations = Attr<BTreeMap<String, Attr<String>>>;

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
    pub(crate) reboot_timeout: Attr<DurationText>,
    pub(crate) rollback: Attr<bool>,
    pub(crate) confirm_timeout: Attr<DurationText>,
    pub(crate) activation_timeout: Attr<DurationText>,
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

    /// Whether `systems` is what the machines run, as opposed to what they have.
    pub(crate) fn runs_now(&self) -> bool {
        self.action.known().is_some_and(|action| matches!(action.as_str(), "switch" | "test"))
    }

    /// Whether the machines go on running, and booting, what they did.
    pub(crate) fn only_puts(&self) -> bool {
        self.action.known().is_some_and(|action| matches!(action.as_str(), "push" | "dry_activate"))
    }

    /// Whether the machines come to run their new systems in the course of an apply, and need their secrets then.
    pub(crate) fn gets_secrets(&self) -> bool {
        let boots = self.action.known().is_some_and(|action| action == "boot");
        self.runs_now() || (boots && self.reboots() != When::Never)
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
