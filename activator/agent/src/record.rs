//! How the machine was, for the way back.

use nixos_agent::SystemState;
use serde::{Deserialize, Serialize};

use crate::AgentError;
use crate::files::{Deployment, replace};
use crate::host::{self, Mode};
use crate::verdict::Units;

const RECORD: &str = "record.json";

/// What was so before anything was changed; on disk, for an agent that has to go on where another one was killed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) before: SystemState,
    /// The profile's generation, and all there were.
    pub(crate) generation: Option<u64>,
    pub(crate) generations: Vec<u64>,
    /// The states of its units; `None` where systemd did not say.
    #[serde(default)]
    pub(crate) units: Option<Units>,
    /// Whether it was in emergency mode already.
    #[serde(default)]
    pub(crate) emergency: bool,
    /// Whether the machine runs and boots the system already: only secrets change, or only its health is asked for.
    #[serde(default)]
    pub(crate) secrets_only: bool,
}

impl Record {
    /// What is so now.
    pub(crate) fn now() -> Self {
        Self {
            before: host::state(),
            generation: host::generation(),
            generations: host::generations(),
            units: None,
            emergency: host::mode() == Mode::Emergency,
            secrets_only: false,
        }
    }

    /// What an agent before us wrote down.
    pub(crate) fn of(deployment: &Deployment) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(deployment.path(RECORD)).ok()?).ok()
    }

    /// Writes it down.
    pub(crate) fn write(&self, deployment: &Deployment) -> Result<(), AgentError> {
        let json = serde_json::to_vec(self).map_err(|error| AgentError::Request(error.to_string()))?;
        replace(&deployment.path(RECORD), &json, 0o600)
    }
}
