//! What is remembered beside the state.

use std::collections::BTreeMap;

use nixos_activator::evaluate;
use nixos_activator::inventory::Inventory;
use nixos_activator::secrets::Key;
use nixos_activator::{MachineName, StorePath};
use serde::{Deserialize, Serialize};
use tfplugin::Attr;

use super::model::System;

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
    /// Restores what is known of the system that a machine had, because the planned one was not activated.
    pub(crate) fn keep_deployed(&mut self, machine: &MachineName, prior: &Self) {
        match prior.deployed.get(machine) {
            Some(before) => self.deployed.insert(machine.clone(), before.clone()),
            None => self.deployed.remove(machine),
        };
    }
}

/// The entries that this version can read. Without one a plan knows less of what it changes; without any of the rest
/// it would take every secret for a changed one.
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

/// An earlier generation of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Earlier {
    pub(super) generation: u64,
    pub(super) toplevel: StorePath,
    pub(super) nixos_version: Option<String>,
    /// The machine's platform.
    pub(super) system: Option<String>,
}

impl Earlier {
    /// What a machine gets of which nothing else is planned.
    pub(super) fn system(&self) -> System {
        System {
            toplevel: Attr::Known(self.toplevel.to_string()),
            drv: Attr::Null,
            specialisation: Attr::Null,
            nixos_version: Attr::from(self.nixos_version.clone()),
            kernel: Attr::Null,
            changes: Attr::Known(format!("back to generation {}", self.generation)),
            ..System::unknown()
        }
    }
}

/// What is planned exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Planned {
    /// What each machine's system is built from.
    #[serde(default)]
    pub(super) drvs: BTreeMap<MachineName, StorePath>,
    /// The fingerprint of each machine's secrets.
    #[serde(default)]
    pub(super) secrets: BTreeMap<MachineName, BTreeMap<String, String>>,
}

impl Planned {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is remembered of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Met {
    /// Where it was reached. What was found elsewhere says nothing of it.
    #[serde(default)]
    pub(super) place: String,
    /// `/etc/machine-id`.
    #[serde(default)]
    pub(super) machine_id: Option<String>,
    /// The host key that was accepted on first use, the only one from then on.
    #[serde(default)]
    pub(super) host_key: Option<String>,
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
