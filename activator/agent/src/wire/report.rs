//! How an activation ended.

use serde::{Deserialize, Serialize};

/// The agent's report, in the last event of an activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How it ended, in one word.
    pub outcome: Outcome,
    /// How it ended and why, in a sentence or a few.
    pub message: String,
    /// The exit code of `switch-to-configuration`; `None`: it did not run, or did not run to an end.
    pub exit_code: Option<i32>,
    /// What the machine runs now.
    pub system: SystemState,
    /// The system that the machine ran before.
    pub old_system: Option<String>,
    /// Units that failed because of the new system.
    pub failed_units: Vec<FailedUnit>,
    /// Health checks that did not pass.
    #[serde(default)]
    pub failed_checks: Vec<FailedCheck>,
    /// The last lines that `switch-to-configuration` printed.
    pub output_tail: Vec<String>,
    /// What is not as it should be although the activation ended well, a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Whether the machine reboots right after this report, because only a reboot brings it back to a system that
    /// works.
    #[serde(default)]
    pub reboots: bool,
}

/// Ways to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The machine is as requested.
    Activated,
    /// The machine was as requested before.
    Unchanged,
    /// The new system failed; the old one runs again.
    RolledBack,
    /// The new system failed, and the old one could not be brought back, or was not to be.
    RollbackFailed,
    /// Agent or machine ended while the new system was activated; the old one runs.
    Interrupted,
    /// The agent refused the request; nothing was changed.
    Rejected,
    /// The new system runs, but the next boot starts the old one.
    NotPersisted,
    /// The new system cannot take over from the running one without a reboot; nothing was changed.
    RebootRequired,
}

/// The systems of a machine, as store paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemState {
    /// The system that runs.
    pub current: Option<String>,
    /// The system that the machine was booted with.
    pub booted: Option<String>,
    /// The system that the system profile points at.
    pub profile: Option<String>,
    /// The number of that generation of the profile; `None`: there is none, or it may not be the one that boots.
    pub generation: Option<u64>,
    /// The kernel's id of this boot: another one after every boot.
    pub boot_id: String,
}

/// A unit that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUnit {
    /// Its name, e.g. `nginx.service`.
    pub name: String,
    /// The last lines of its journal since its last start.
    pub journal: Vec<String>,
}

/// A health check that did not pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCheck {
    /// Its name.
    pub name: String,
    /// Why its last try failed.
    pub reason: String,
}
