//! What the agent tells while an activation runs.

use serde::{Deserialize, Serialize};

use super::report::Report;

/// One thing that happened on the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The number of the event within its activation, from 0.
    pub seq: u64,
    /// What happened.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The transaction entered a phase.
    Phase(Phase),
    /// A line that `switch-to-configuration` printed.
    Output(String),
    /// The activation is over. No event follows.
    Done(Box<Report>),
}

/// Where a transaction is. The agent writes each phase to disk before it begins the work of the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The agent holds the lock: no other activation changes the machine.
    Locked,
    /// The agent looks whether the new system can work at all.
    Preflight,
    /// What runs now is written down and safe from the garbage collector.
    Recorded,
    /// The new system is taking over.
    Activating,
    /// The new system runs; the client has to log in anew and say so.
    AwaitingConfirmation,
    /// The client could log in; the health checks of the machine run.
    CheckingHealth,
    /// The machine is healthy; the client has to decide whether it keeps the new system.
    Holding,
    /// The new system is confirmed; the agent sets the profile and installs the boot loader.
    Committing,
    /// The new system failed; the old one is taking over again.
    RollingBack,
    /// Nothing more will happen.
    Finished,
}

impl Phase {
    /// How many phases there are.
    pub const COUNT: usize = Self::Finished as usize + 1;

    /// Which of them it is, from 1 to [`Phase::COUNT`].
    pub fn position(self) -> usize {
        self as usize + 1
    }
}
