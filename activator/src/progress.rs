//! What happens to which machine, as it happens. Every stage emits the same events.

use std::sync::Arc;

use crate::MachineName;

/// A stage of a deployment, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// The Nix specification becomes derivations.
    Evaluate,
    /// Derivations become store paths.
    Build,
    /// Store paths travel to the machine.
    Push,
    /// The machine switches to the new system.
    Activate,
}

/// One step of progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The machine it is about; `None` for all of them together.
    pub machine: Option<MachineName>,
    /// Where on its way the deployment is.
    pub stage: Stage,
    /// A line for a person.
    pub message: String,
}

/// Receives progress. The default one writes a `tracing` event for each.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(&Event) + Send + Sync>);

impl Progress {
    /// Calls `sink` for every event.
    pub fn new(sink: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Reports a line about one machine.
    pub fn machine(&self, machine: &MachineName, stage: Stage, message: impl Into<String>) {
        (self.0)(&Event { machine: Some(machine.clone()), stage, message: message.into() });
    }

    /// Reports a line about the whole deployment.
    pub fn all(&self, stage: Stage, message: impl Into<String>) {
        (self.0)(&Event { machine: None, stage, message: message.into() });
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new(|event| {
            let machine = event.machine.as_ref().map_or("", MachineName::as_str);
            tracing::info!(machine, stage = ?event.stage, "{}", event.message);
        })
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Progress")
    }
}
