//! The straight way of one deployment: build everything, then for each machine push and activate, side by side.
//!
//! A failed build stops everything while nothing has happened yet. After that machines are independent, unless a [`Rollout`]
//! says otherwise: one that fails does not keep the others from their new system, and each one's outcome says what it really
//! runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use nixos_agent::health::{self, Check, Probe};
use nixos_agent::{
    Action, Confirmation, DeploymentId, FailedCheck, Outcome, Report, Request, SystemState, Word,
};
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;

use crate::activate::{self, ActivateError, Task};
use crate::build::{self, BuildError};
use crate::facts::{self, Facts, FactsError};
use crate::nix::Nix;
use crate::progress::{Progress, Stage};
use crate::push::{self, CopySettings, PushError};
use crate::reboot::{self, Reboot, RebootError, When};
use crate::rollout::{Conductor, NoTurn, Rollout, Turn};
use crate::scheduler::Scheduler;
use crate::secrets::{self, OfMachine, SecretError};
use crate::ssh::{Connection, Endpoint, Pool, SshError};
use crate::{MachineName, StorePath};

/// How long it may take to tell a machine what is to become of its new system.
const VERDICT: Duration = Duration::from_mins(1);

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
    /// It has another system than the one that the plan saw.
    #[error("the machine runs {found}, the plan was made for {expected}")]
    ChangedSincePlan {
        /// What was there at plan.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The closure did not arrive.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The content of a secret could not be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The agent could not be asked.
    #[error(transparent)]
    Activate(#[from] ActivateError),
    /// The agent reports that the new system does not run.
    #[error("{}", .0.message)]
    Refused(Box<Report>),
    /// It has its new system, and was to be rebooted.
    #[error(transparent)]
    Reboot(#[from] RebootError),
    /// It was rebooted into its new system, and is not well.
    #[error("{}", .0.message)]
    NotWellAfterReboot(Box<Report>),
    /// Others failed, and that was as much as may.
    #[error("not begun, because of {failed}")]
    NotBegun {
        /// Their names.
        failed: String,
    },
    /// The user cancelled before this machine's turn.
    #[error("cancelled before anything was changed on it")]
    Cancelled,
}

impl Ended {
    /// Whether the machine was given what was asked for, whatever came after that.
    pub fn is_activated(&self) -> bool {
        matches!(self.error, None | Some(DeployError::Reboot(_) | DeployError::NotWellAfterReboot(_)))
    }
}

/// Deploys; the result has an entry for every job.
pub async fn deploy(
    tools: &Tools,
    nix: &Nix,
    jobs: &[Job],
    settings: &Settings,
    cancel: &CancellationToken,
) -> Result<BTreeMap<MachineName, Ended>, BuildError> {
    let systems: Vec<_> = jobs.iter().filter_map(to_build).collect();
    if !systems.is_empty() {
        build::build(nix, &systems, &tools.progress, cancel).await?;
    }
    let conductor = Conductor::new(&settings.rollout, jobs.iter().map(|job| &job.machine));
    let deployment = Deployment { tools, nix, settings, conductor: &conductor, machines: jobs.len(), cancel };
    let deployment = &deployment;
    let machines: Vec<_> = jobs
        .iter()
        .map(|job| async { (job.machine.clone(), deployment.machine(job).await) }.boxed())
        .collect();
    // All of them at once: one that waits for its turn must not keep another from having it.
    Ok(futures::future::join_all(machines).await.into_iter().collect())
}

fn to_build(job: &Job) -> Option<(StorePath, StorePath)> {
    match &job.source {
        Source::Build(drv) => Some((drv.clone(), job.toplevel.clone())),
        Source::OnMachine => None,
    }
}

/// A machine while we are there.
struct Visit<'a> {
    job: &'a Job,
    connection: Arc<Connection>,
    facts: Facts,
    agent: &'a str,
}

/// What all machines of a deployment share.
struct Deployment<'a> {
    tools: &'a Tools,
    nix: &'a Nix,
    settings: &'a Settings,
    conductor: &'a Conductor<'a>,
    machines: usize,
    cancel: &'a CancellationToken,
}

impl Deployment<'_> {
    async fn machine(&self, job: &Job) -> Ended {
        let mut ended = Ended { now: None, report: None, error: None, asked: false };
        if let Err(error) = self.try_machine(job, &mut ended).await {
            ended.error = Some(error);
        }
        self.conductor.ended(&job.machine, ended.error.is_none());
        ended
    }

    async fn try_machine(&self, job: &Job, ended: &mut Ended) -> Result<(), DeployError> {
        let Self { tools, settings, cancel, .. } = *self;
        let machine = &job.machine;
        let facts = {
            let _slot = tools.scheduler.machine().await;
            self.prepare(job, ended).await?
        };
        let mut turn = self.conductor.turn(machine, cancel).await.map_err(|no| match no {
            NoTurn::Failures(failed) => DeployError::NotBegun { failed },
            NoTurn::Cancelled => DeployError::Cancelled,
        })?;
        let Some(action) = settings.action else {
            return Ok(());
        };
        let slot = tools.scheduler.activate().await;
        // Most often the one from before. Nobody has kept it: a thousand machines may have waited here.
        let connection = connect(tools, job, settings, cancel).await?;
        let agent = activate::install(&connection, &job.system).await?;
        let mut visit = Visit { job, connection, facts, agent: &agent };
        let request = self.request(job, action, &visit.facts);
        let mut report = self.activate(&visit, request, slot, &mut turn, ended).await?;
        if report.outcome == Outcome::RebootRequired && settings.reboot.when != When::Never {
            // What cannot take over from the running system can be booted.
            let request = self.request(job, Action::Boot, &visit.facts);
            let slot = tools.scheduler.activate().await;
            report = self.activate(&visit, request, slot, &mut turn, ended).await?;
        }
        if !runs_what_was_asked(&report) {
            return Err(DeployError::Refused(Box::new(report)));
        }
        if settings.reboot.when == When::Never {
            return Ok(());
        }
        visit.facts = facts::gather(machine.as_str(), &visit.connection).await?;
        let boots_it = visit.facts.profile.as_ref() == Some(&job.toplevel);
        let mut fallback = None;
        let rebooted = boots_it && settings.reboot.when.is_due(&visit.facts);
        if rebooted {
            fallback = self.try_once(&visit).await?;
            self.reboot(&mut visit, &job.toplevel, fallback.as_ref(), ended).await?;
        } else if action != Action::Boot || visit.facts.current_system.as_ref() != Some(&job.toplevel) {
            return Ok(());
        }
        // What was in memory is gone, and what is booted may be less well than what was switched to.
        let request = self.request(job, Action::Switch, &visit.facts);
        let request = Request { verify: rebooted, rollback: request.rollback && !rebooted, ..request };
        let slot = tools.scheduler.activate().await;
        let mut report = self.activate(&visit, request, slot, &mut turn, ended).await?;
        if runs_what_was_asked(&report) {
            return Ok(());
        }
        if let Some(fallback) = fallback {
            let back = self.reboot(&mut visit, &fallback, None, ended).await;
            report.message += &match back {
                Ok(()) => " It was rebooted.".to_owned(),
                Err(error) => format!(" It was to be rebooted: {error}."),
            };
        }
        let report = Box::new(report);
        Err(if rebooted { DeployError::NotWellAfterReboot(report) } else { DeployError::Refused(report) })
    }

    /// Has the machine boot its new system once only; `None` where it stays with it, because it cannot or is not to go back.
    async fn try_once(&self, visit: &Visit<'_>) -> Result<Option<StorePath>, DeployError> {
        let Visit { job, connection, agent, .. } = visit;
        let settings = self.settings;
        if !settings.rollback {
            return Ok(None);
        }
        let tried = reboot::try_once(connection, agent, &job.toplevel, settings.reboot.deadline).await?;
        if let Err(reason) = &tried {
            tracing::info!(machine = %job.machine, reason, "the boot loader keeps the new system, whatever becomes of it");
        }
        Ok(tried.ok())
    }

    async fn reboot(
        &self,
        visit: &mut Visit<'_>,
        toplevel: &StorePath,
        fallback: Option<&StorePath>,
        ended: &mut Ended,
    ) -> Result<(), DeployError> {
        let Self { tools, settings, cancel, .. } = *self;
        tools.progress.machine(&visit.job.machine, Stage::Activate, "rebooting");
        let Visit { connection, facts, .. } = &*visit;
        let deadline = settings.reboot.deadline;
        let (connection, facts) =
            reboot::reboot(&tools.pool, connection, facts, toplevel, fallback, deadline, cancel).await?;
        ended.now = Some(state_of(&facts));
        visit.connection = connection;
        visit.facts = facts;
        Ok(())
    }

    /// Has the agent do what is asked for, and sends the secrets that belong to it. `slot` is held until the machine waits for others.
    async fn activate(
        &self,
        visit: &Visit<'_>,
        request: Request,
        slot: Option<SemaphorePermit<'_>>,
        turn: &mut Turn<'_>,
        ended: &mut Ended,
    ) -> Result<Report, DeployError> {
        let Self { tools, cancel, .. } = *self;
        let Visit { job, connection, agent, .. } = visit;
        let machine = &job.machine;
        // The last safe point: from here on the agent brings it to an end.
        if cancel.is_cancelled() {
            return Err(DeployError::Cancelled);
        }
        let (secrets, contents) = match job.secrets.as_ref().filter(|_| runs_new(request.action)) {
            Some(declared) => {
                let there = secrets::look(connection, &declared.owner).await?;
                let (secrets, contents) = declared.request(&there, cancel).await?;
                (Some(secrets), contents)
            }
            None => Default::default(),
        };
        let request = Request { secrets, ..request };
        tools.progress.machine(machine, Stage::Activate, "activating");
        ended.asked = true;
        let mut failed_here = vec![];
        let verdict = async {
            failed_here = check_from_here(&job.checks_from_here).await;
            if !failed_here.is_empty() {
                return Word::GoBack(
                    "The machine is not healthy, as seen from where Terraform runs".to_owned(),
                );
            }
            drop(slot);
            self.conductor.verdict(machine, turn).await
        };
        let (pool, progress) = (&tools.pool, &tools.progress);
        let task = Task { machine, agent, request: &request, contents: &contents };
        let mut report = activate::activate(pool, connection, task, verdict, progress).await?;
        report.failed_checks.append(&mut failed_here);
        ended.now = Some(report.system.clone());
        ended.report = Some(report.clone());
        Ok(report)
    }

    /// Brings the system to the machine.
    async fn prepare(&self, job: &Job, ended: &mut Ended) -> Result<Facts, DeployError> {
        let Self { tools, nix, settings, cancel, .. } = *self;
        let machine = &job.machine;
        let connection = connect(tools, job, settings, cancel).await?;
        let facts = facts::gather(machine.as_str(), &connection).await?;
        ended.now = Some(state_of(&facts));
        check(job, &facts)?;
        activate::check_root(&connection, &facts).await?;
        if job.source == Source::OnMachine {
            return Ok(facts);
        }
        let _slot = tools.scheduler.push().await;
        tools.progress.machine(machine, Stage::Push, format!("copying {}", job.toplevel.name()));
        push::push(nix, &connection, &job.toplevel, settings.copy, cancel).await.map_err(
            |error| match error {
                PushError::Nix(crate::nix::NixError::Cancelled) => DeployError::Cancelled,
                error => error.into(),
            },
        )?;
        Ok(facts)
    }

    fn request(&self, job: &Job, action: Action, facts: &Facts) -> Request {
        let settings = self.settings;
        let runs_new = runs_new(action);
        // A machine that must not go back has no use for it.
        let window = if settings.rollback { seconds(settings.confirmation_window) } else { 0 };
        let hold = seconds(self.hold(job));
        let confirmation = (runs_new && window + hold > 0).then(|| Confirmation {
            nonce: DeploymentId::random().to_string(),
            window_seconds: window,
            hold_seconds: hold,
        });
        Request {
            id: DeploymentId::random(),
            toplevel: job.toplevel.to_string(),
            action,
            expected_system: facts.current_system.as_ref().map(ToString::to_string),
            rollback: settings.rollback,
            activation_timeout_seconds: seconds(settings.activation_timeout),
            confirmation,
            health_checks: if runs_new { job.checks.clone() } else { vec![] },
            keep_generations: settings.keep_generations,
            secrets: None,
            verify: false,
            // Who does not ask for a login afterwards may want to end this way in.
            login: facts.login.clone().filter(|_| !settings.confirmation_window.is_zero()),
        }
    }

    /// How long a machine may have to wait for our verdict; zero: there is nothing to wait for.
    fn hold(&self, job: &Job) -> Duration {
        let longest = |checks: &[Check]| checks.iter().map(|check| check.deadline + check.timeout).max();
        let here = longest(&job.checks_from_here);
        if here.is_none() && !self.settings.rollout.atomic {
            return Duration::ZERO;
        }
        let mut hold = here.unwrap_or_default() + VERDICT;
        if self.settings.rollout.atomic {
            let settings = self.settings;
            let one = settings.activation_timeout
                + settings.confirmation_window
                + longest(&job.checks).unwrap_or_default()
                + hold;
            hold += one * u32::try_from(settings.rollout.rounds(self.machines)).unwrap_or(u32::MAX);
        }
        hold
    }
}

/// Whole seconds, none too few: 0 would mean something else.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Tries checks side by side and returns those that did not hold.
async fn check_from_here(checks: &[Check]) -> Vec<FailedCheck> {
    let tried = checks.iter().map(|check| {
        let check = check.clone();
        async move {
            let name = check.name.clone();
            let held = tokio::task::spawn_blocking(move || health::hold(&check, look)).await;
            let reason = held.unwrap_or_else(|error| Err(error.to_string())).err()?;
            Some(FailedCheck { name, reason })
        }
    });
    futures::future::join_all(tried).await.into_iter().flatten().collect()
}

/// Looks once, from here.
fn look(probe: &Probe, timeout: Duration) -> Result<(), String> {
    match probe {
        Probe::Units { .. } => Err("units can only be looked at on the machine".to_owned()),
        Probe::Command(words) => {
            let (program, arguments) = words.split_first().ok_or("there is no command")?;
            let output = tempfile::tempfile().map_err(|error| error.to_string())?;
            health::command(std::process::Command::new(program).args(arguments), output, timeout)
        }
        Probe::Http { url, statuses, contains } => health::http(url, statuses, contains.as_deref(), timeout),
        Probe::Tcp(address) => health::tcp(address, timeout),
    }
}

/// Whether the new system takes over now.
fn runs_new(action: Action) -> bool {
    matches!(action, Action::Switch | Action::Test)
}

fn runs_what_was_asked(report: &Report) -> bool {
    matches!(report.outcome, Outcome::Activated | Outcome::Unchanged)
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
    if let Some(expected) = &job.planned_from
        && facts.current_system.as_ref().is_none_or(|found| found != expected && *found != job.toplevel)
    {
        let found = facts.current_system.as_ref().map_or("nothing that is known", StorePath::as_str);
        return Err(DeployError::ChangedSincePlan {
            expected: expected.to_string(),
            found: found.to_owned(),
        });
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
