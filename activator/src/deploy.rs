//! The straight way of one deployment: build everything, then for each machine push and activate, side by side.
//!
//! A failed build stops everything while nothing has happened yet. After that machines are independent: one that fails does
//! not keep the others from their new system, and each one's outcome says what it really runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use nixos_agent::{Action, Confirmation, DeploymentId, Outcome, Report, Request, SystemState};
use tokio_util::sync::CancellationToken;

use crate::activate::{self, ActivateError};
use crate::build::{self, BuildError};
use crate::facts::{self, Facts, FactsError};
use crate::nix::Nix;
use crate::progress::{Progress, Stage};
use crate::push::{self, CopySettings, PushError};
use crate::scheduler::Scheduler;
use crate::ssh::{Connection, Endpoint, Pool, SshError};
use crate::{MachineName, StorePath};

/// One machine and what it is to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The machine.
    pub machine: MachineName,
    /// How to reach it.
    pub endpoint: Endpoint,
    /// The derivation of its system.
    pub drv: StorePath,
    /// Its system.
    pub toplevel: StorePath,
    /// The platform of the system.
    pub system: String,
}

/// What holds for all machines of a deployment.
#[derive(Clone, Debug)]
pub struct Settings {
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
    /// What the machine runs now; `None` when it could not be asked.
    pub now: Option<SystemState>,
    /// The agent's report, where it came to that.
    pub report: Option<Report>,
    /// What went wrong before or beside the agent's report.
    pub error: Option<DeployError>,
    /// Whether the agent was asked to activate: from then on the machine may have changed, whatever is known about it.
    pub asked: bool,
}

/// Why a machine does not run its new system.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// It cannot be reached.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// It does not say what it is.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// It cannot receive store paths.
    #[error("there is no `nix-store` on the machine")]
    NoNix,
    /// It is another kind of machine than the system is for.
    #[error("the system is for {system}, the machine is {found}")]
    Platform {
        /// What was built.
        system: String,
        /// What is there.
        found: String,
    },
    /// The closure did not arrive.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The agent could not be asked.
    #[error(transparent)]
    Activate(#[from] ActivateError),
    /// The agent reports that the new system does not run.
    #[error("{}", .0.message)]
    Refused(Box<Report>),
    /// The user cancelled before this machine's turn.
    #[error("cancelled before anything was changed on it")]
    Cancelled,
}

/// Deploys; the result has an entry for every job.
pub async fn deploy(
    tools: &Tools,
    nix: &Nix,
    jobs: &[Job],
    settings: &Settings,
    cancel: &CancellationToken,
) -> Result<BTreeMap<MachineName, Ended>, BuildError> {
    let systems: Vec<_> = jobs.iter().map(|job| (job.drv.clone(), job.toplevel.clone())).collect();
    build::build(nix, &systems, &tools.progress, cancel).await?;
    let machines: Vec<_> = jobs
        .iter()
        .map(|job| {
            async { (job.machine.clone(), deploy_one(tools, nix, job, settings, cancel).await) }.boxed()
        })
        .collect();
    let at_once = tools.scheduler.machines();
    Ok(futures::stream::iter(machines).buffer_unordered(at_once).collect().await)
}

async fn deploy_one(
    tools: &Tools,
    nix: &Nix,
    job: &Job,
    settings: &Settings,
    cancel: &CancellationToken,
) -> Ended {
    let mut ended = Ended { now: None, report: None, error: None, asked: false };
    match try_deploy(tools, nix, job, settings, cancel, &mut ended).await {
        Ok(Some(report)) => {
            ended.now = Some(report.system.clone());
            ended.report = Some(report.clone());
            if !runs_what_was_asked(&report) {
                ended.error = Some(DeployError::Refused(Box::new(report)));
            }
        }
        Ok(None) => {}
        Err(error) => ended.error = Some(error),
    }
    ended
}

fn runs_what_was_asked(report: &Report) -> bool {
    matches!(report.outcome, Outcome::Activated | Outcome::Unchanged)
}

async fn try_deploy(
    tools: &Tools,
    nix: &Nix,
    job: &Job,
    settings: &Settings,
    cancel: &CancellationToken,
    ended: &mut Ended,
) -> Result<Option<Report>, DeployError> {
    let machine = &job.machine;
    let connection = connect(tools, job, settings, cancel).await?;
    let facts = facts::gather(machine.as_str(), &connection).await?;
    ended.now = Some(state_of(&facts));
    check(job, &facts)?;
    activate::check_root(&connection, &facts).await?;
    {
        let _slot = tools.scheduler.push().await;
        tools.progress.machine(machine, Stage::Push, format!("copying {}", job.toplevel.name()));
        push::push(nix, &connection, &job.toplevel, settings.copy, cancel).await.map_err(
            |error| match error {
                PushError::Nix(crate::nix::NixError::Cancelled) => DeployError::Cancelled,
                error => error.into(),
            },
        )?;
    }
    let Some(action) = settings.action else {
        return Ok(None);
    };
    let agent = activate::install(&connection, &job.system).await?;
    let _slot = tools.scheduler.activate().await;
    // The last safe point: from here on the agent brings it to an end.
    if cancel.is_cancelled() {
        return Err(DeployError::Cancelled);
    }
    let request = Request {
        id: DeploymentId::random(),
        toplevel: job.toplevel.to_string(),
        action,
        expected_system: facts.current_system.as_ref().map(ToString::to_string),
        rollback: settings.rollback,
        activation_timeout_seconds: settings.activation_timeout.as_secs(),
        // A machine that must not go back has no use for it.
        confirmation: (settings.rollback && settings.confirmation_window.as_secs() > 0).then(|| {
            Confirmation {
                nonce: DeploymentId::random().to_string(),
                window_seconds: settings.confirmation_window.as_secs(),
            }
        }),
    };
    tools.progress.machine(machine, Stage::Activate, "activating");
    ended.asked = true;
    let report =
        activate::activate(&tools.pool, &connection, machine, &agent, &request, &tools.progress).await?;
    Ok(Some(report))
}

async fn connect(
    tools: &Tools,
    job: &Job,
    settings: &Settings,
    cancel: &CancellationToken,
) -> Result<Arc<Connection>, DeployError> {
    tools.pool.connect(&job.endpoint, settings.connect_deadline, cancel).await.map_err(|error| match error {
        SshError::Cancelled => DeployError::Cancelled,
        error => error.into(),
    })
}

fn check(job: &Job, facts: &Facts) -> Result<(), DeployError> {
    if !facts.has_nix {
        return Err(DeployError::NoNix);
    }
    match &facts.system {
        Some(found) if !runs_on(&job.system, found) => {
            Err(DeployError::Platform { system: job.system.clone(), found: found.clone() })
        }
        _ => Ok(()),
    }
}

/// A 64-bit x86 machine runs 32-bit systems too.
fn runs_on(system: &str, machine: &str) -> bool {
    system == machine || (system == "i686-linux" && machine == "x86_64-linux")
}

fn state_of(facts: &Facts) -> SystemState {
    let text = |path: &Option<StorePath>| path.as_ref().map(ToString::to_string);
    SystemState {
        current: text(&facts.current_system),
        booted: text(&facts.booted_system),
        profile: text(&facts.profile),
        generation: facts.generation,
        boot_id: facts.boot_id.clone().unwrap_or_default(),
    }
}
