//! How the machine was before the activation, for the way back.

use nixos_agent::SystemState;
use serde::{Deserialize, Serialize};

use crate::activation::Activation;
use crate::error::{AgentError, json_error};
use crate::files::replace;
use crate::profile;
use crate::systemd::{self, Mode, Units};
use crate::systems;

const RECORD: &str = "record.json";

/// What was true before anything was changed. It is on disk, because an agent that is killed is started again and goes
/// on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) before: SystemState,
    /// The generation that the profile pointed at.
    pub(crate) generation: Option<u64>,
    /// All generations that there were.
    pub(crate) generations: Vec<u64>,
    /// The units; `None`: systemd did not say.
    #[serde(default)]
    pub(crate) units: Option<Units>,
    /// Whether the machine was in emergency mode already.
    #[serde(default)]
    pub(crate) emergency: bool,
    /// Whether the machine runs and boots the system already, so that only secrets change, or only health is checked.
    #[serde(default)]
    pub(crate) secrets_only: bool,
}

impl Record {
    /// How the machine is now.
    pub(crate) fn now() -> Self {
        Self {
            before: systems::state(),
            generation: profile::generation(),
            generations: profile::generations(),
            units: None,
            emergency: systemd::mode() == Mode::Emergency,
            secrets_only: false,
        }
    }

    /// What an agent that was killed has written down.
    pub(crate) fn of(activation: &Activation) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(activation.on_disk(RECORD)).ok()?).ok()
    }

    pub(crate) fn write(&self, activation: &Activation) -> Result<(), AgentError> {
        let json = serde_json::to_vec(self).map_err(json_error)?;
        replace(&activation.on_disk(RECORD), &json, 0o600)
    }
}
