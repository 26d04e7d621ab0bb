//! What a deployment is told, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use nixos_agent::health::Check;
use nixos_agent::{Action, DeploymentId, Report, SystemState};

use super::error::DeployError;
use crate::build::Roots;
use crate::progress::Progress;
use crate::push::CopySettings;
use crate::reboot::Reboot;
use crate::rollout::Rollout;
use crate::scheduler::Scheduler;
use crate::secrets::OfMachine;
use crate::ssh::{Endpoint, Pool};
use crate::{MachineName, StorePath};

/// One machine and what it is to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The machine.
    pub machine: MachineName,
    /// How to reach it.
    pub endpoint: Endpoint,
    /// Where its system comes from.
    pub source: Source,
    /// Its system.
    pub toplevel: StorePath,
    /// The platform of the system.
    pub system: String,
    /// `/etc/machine-id` of the machine that this was planned for, where that is known.
    pub machine_id: Option<String>,
    /// What the machine ran when this was planned, where that matters.
    pub planned_from: Option<StorePath>,
    /// The secrets it is to have; `None`: nothing is said about any.
    pub secrets: Option<OfMachine>,
    /// What must hold on the machine with its new system.
    pub checks: Vec<Check>,
    /// What must hold as seen from here.
    pub checks_from_here: Vec<Check>,
}

/// Where a system comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is built from this derivation, and copied.
    Build(StorePath),
    /// The machine has it: an earlier generation.
    OnMachine,
}

/// What holds for all machines of a deployment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which deployment it is. The machines remember it beside their systems.
    pub id: Option<DeploymentId>,
    /// Where what is built is kept from the garbage collector here; `None`: nowhere.
    pub roots: Option<Roots>,
    /// What to do with the system once it is there; `None`: nothing, only push.
    pub action: Option<Action>,
    /// How it gets there.
    pub copy: CopySettings,
    /// Whether the machine goes back to what it ran before when activation fails.
    pub rollback: bool,
    /// How long a machine may take to answer.
    pub connect_deadline: Duration,
    /// How long `switch-to-configuration` may take.
    pub activation_timeout: Duration,
    /// How long a machine waits with its new system until we have logged in anew; zero: not at all.
    pub confirmation_window: Duration,
    /// When a machine is rebooted; not with an atomic rollout, in which it could not go back.
    pub reboot: Reboot,
    /// How many of the generations that we made stay on a machine; `None`: all.
    pub keep_generations: Option<usize>,
    /// Who goes when, and what follows from a failure.
    pub rollout: Rollout,
    /// Units that may fail in a new system.
    pub tolerated_units: Vec<String>,
    /// Further environment of `switch-to-configuration`.
    pub switch_environment: BTreeMap<String, String>,
}

/// Everything a deployment uses and shares with others in this process.
#[derive(Debug)]
pub struct Tools {
    /// Open connections.
    pub pool: Pool,
    /// Limits.
    pub scheduler: Scheduler,
    /// Where progress goes.
    pub progress: Progress,
}

/// How it ended for one machine.
#[derive(Debug)]
pub struct Ended {
    /// `/etc/machine-id` of the machine that was found and is the right one.
    pub machine_id: Option<String>,
    /// The deployment whose system the machine ran when this one came, where that was another one.
    pub displaced: Option<DeploymentId>,
    /// What the machine runs now; `None` when it could not be asked.
    pub now: Option<SystemState>,
    /// The agent's report, where it came to that.
    pub report: Option<Report>,
    /// What went wrong before or beside the agent's report.
    pub error: Option<DeployError>,
    /// Whether the agent was asked to activate: from then on the machine may have changed, whatever is known about it.
    pub asked: bool,
}

impl Ended {
    /// Whether the machine was given what was asked for, whatever came after that.
    pub fn is_activated(&self) -> bool {
        matches!(self.error, None | Some(DeployError::Reboot(_) | DeployError::NotWellAfterReboot(_)))
    }
}
