//! One machine's way through a deployment.

use std::sync::Arc;
use std::time::Duration;

use nixos_agent::health::Check;
use nixos_agent::{
    Action, ActivationId, Answer, Confirmation, Outcome, Report, Request, SystemState, random_id,
};
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::checks::check_from_here;
use super::error::DeployError;
use super::model::{Ended, Job, Settings, Source, Tools};
use crate::StorePath;
use crate::activate::{self, Task};
use crate::agent::{self, AgentError};
use crate::facts::{self, Facts};
use crate::nix::Nix;
use crate::progress::Stage;
use crate::push::{self, PushError};
use crate::reboot::{self, RebootError, When};
use crate::rollout::{Conductor, End, NoTurn, Turn};
use crate::secrets;
use crate::ssh::{Connection, SshError, Wait};

/// How long it may take to tell a machine what is to become of its new system.
const DECISION: Duration = Duration::from_mins(1);

/// A machine while we are there.
struct Visit<'a> {
    job: &'a Job,
    connection: Arc<Connection>,
    facts: Facts,
    agent: &'a str,
}

/// What all machines of a deployment share.
pub(super) struct Deployment<'a> {
    pub(super) tools: &'a Tools,
    pub(super) nix: &'a Nix,
    pub(super) settings: &'a Settings,
    pub(super) conductor: &'a Conductor<'a>,
    pub(super) machines: usize,
    pub(super) cancel: &'a CancellationToken,
}

impl Deployment<'_> {
    pub(super) async fn machine(&self, job: &Job) -> Ended {
        let mut ended =
            Ended { machine_id: None, displaced: None, now: None, report: None, error: None, asked: false };
        if let Err(error) = self.try_machine(job, &mut ended).await {
            ended.error = Some(error);
        }
        self.conductor.ended(
            &job.machine,
            match &ended.error {
                None => End::Well,
                Some(DeployError::NotBegun { .. } | DeployError::Cancelled) => End::NotBegun,
                Some(_) => End::Failed,
            },
        );
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
        let agent = agent::install(&connection, &job.system).await?;
        let mut visit = Visit { job, connection, facts, agent: &agent };
        let request = self.request(job, action, &visit.facts)?;
        let mut report = self.activate(&visit, request, slot, &mut turn, ended).await?;
        if report.outcome == Outcome::RebootRequired && settings.reboot.when != When::Never {
            // What cannot take over from the running system can be booted.
            let request = self.request(job, Action::Boot, &visit.facts)?;
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
        // Whoever stops it now finds it waiting for its reboot. One that was begun is seen through: a system on trial
        // goes back where nobody comes to confirm it.
        if rebooted && cancel.is_cancelled() {
            return Err(RebootError::NotBegun.into());
        }
        let never = CancellationToken::new();
        let through = Deployment { cancel: if rebooted { &never } else { cancel }, ..*self };
        if rebooted {
            fallback = through.try_once(&visit).await?;
            let rebooted = through.reboot(&mut visit, &job.toplevel, fallback.as_ref(), ended).await;
            if let Err(DeployError::Reboot(RebootError::Refused { message })) = rebooted {
                // A later reboot by an operator would start the trial, and no deployment would confirm it.
                let taken_back = match fallback {
                    Some(_) => reboot::take_back(&visit.connection, visit.agent).await,
                    None => Ok(()),
                };
                let message = match taken_back {
                    Ok(()) => message,
                    Err(why) => {
                        format!("{message}\nIt could not be made to boot its new system for good: {why}")
                    }
                };
                return Err(RebootError::Refused { message }.into());
            }
            rebooted?;
        } else if action != Action::Boot || visit.facts.current_system.as_ref() != Some(&job.toplevel) {
            return Ok(());
        }
        // What was in memory is gone, and what is booted may be less well than what was switched to.
        let request = self.request(job, Action::Switch, &visit.facts)?;
        let request = Request { verify: rebooted, rollback: request.rollback && !rebooted, ..request };
        let slot = tools.scheduler.activate().await;
        let mut report = through.activate(&visit, request, slot, &mut turn, ended).await?;
        if runs_what_was_asked(&report) {
            return Ok(());
        }
        if let Some(fallback) = fallback {
            let back = through.reboot(&mut visit, &fallback, None, ended).await;
            report.message += &match back {
                Ok(()) => " It was rebooted.".to_owned(),
                Err(error) => format!(" It was to be rebooted: {error}."),
            };
        }
        let report = Box::new(report);
        Err(if rebooted { DeployError::NotWellAfterReboot(report) } else { DeployError::Refused(report) })
    }

    /// Has the machine boot its new system once only; `None` where it stays with it, because it cannot or is not to
    /// go back.
    async fn try_once(&self, visit: &Visit<'_>) -> Result<Option<StorePath>, DeployError> {
        let Visit { job, connection, agent, .. } = visit;
        let settings = self.settings;
        if !settings.rollback {
            return Ok(None);
        }
        let tried = reboot::try_once(connection, agent, &job.toplevel, settings.reboot.deadline).await?;
        if let Err(reason) = &tried {
            tracing::info!(machine = %job.machine, reason, "the boot loader keeps the new system, whatever \
                                                            becomes of it");
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

    /// Has the agent do what is asked for, and sends the secrets that belong to it. `slot` is held until the machine
    /// waits for others.
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
                let stop = cancel.child_token();
                let limit = async {
                    // After a reboot nobody else stops it, and a trial does not wait for longer.
                    let seconds = if request.verify { self.settings.reboot.deadline } else { Duration::MAX };
                    tokio::time::sleep(seconds).await;
                    stop.cancel();
                    std::future::pending().await
                };
                let (secrets, contents) = tokio::select! {
                    fetched = declared.request(&there, &stop) => fetched?,
                    never = limit => match never {},
                };
                (Some(secrets), contents)
            }
            None => Default::default(),
        };
        let request = Request { secrets, ..request };
        tools.progress.machine(machine, Stage::Activate, "activating");
        ended.asked = true;
        let mut failed_here = vec![];
        let decision = async {
            failed_here = check_from_here(&job.checks_from_here).await;
            if !failed_here.is_empty() {
                return Answer::GoBack(
                    "The machine is not healthy, as seen from where Terraform runs".to_owned(),
                );
            }
            drop(slot);
            self.conductor.decision(machine, turn).await
        };
        let (pool, progress) = (&tools.pool, &tools.progress);
        let task = Task { machine, agent, request: &request, contents: &contents };
        let mut report = activate::activate(pool, connection, task, decision, progress).await?;
        report.failed_checks.append(&mut failed_here);
        ended.now = Some(report.system.clone());
        if report.reboots {
            tools.progress.machine(machine, Stage::Activate, "rebooting into the system that it boots");
            // Not cancellable: the state has to say what it came back with.
            let (deadline, never) = (self.settings.reboot.deadline, CancellationToken::new());
            match reboot::returned(pool, connection, &visit.facts, deadline, &never).await {
                Ok((_, facts)) => ended.now = Some(state_of(&facts)),
                Err(error) => report.message += &format!(" After that {error}."),
            }
        }
        ended.report = Some(report.clone());
        Ok(report)
    }

    /// Brings the system to the machine.
    async fn prepare(&self, job: &Job, ended: &mut Ended) -> Result<Facts, DeployError> {
        let Self { tools, nix, settings, cancel, .. } = *self;
        let machine = &job.machine;
        let connection = connect(tools, job, settings, cancel).await?;
        let facts = facts::gather(machine.as_str(), &connection).await?;
        // Nothing that another machine says is about this one.
        check_identity(job, &facts)?;
        ended.machine_id.clone_from(&facts.machine_id);
        ended.now = Some(state_of(&facts));
        if facts.current_system.as_ref() != Some(&job.toplevel) {
            ended.displaced = facts.deployment_other_than(settings.id.as_ref()).cloned();
        }
        check(job, &facts)?;
        agent::check_login(&connection, &facts).await?;
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

    fn request(&self, job: &Job, action: Action, facts: &Facts) -> Result<Request, AgentError> {
        let settings = self.settings;
        let runs_new = runs_new(action);
        // A machine that must not go back has no use for it.
        let window = if settings.rollback { seconds(settings.confirmation_window) } else { 0 };
        let hold = seconds(self.hold(job));
        let confirmation = if runs_new && window + hold > 0 {
            Some(Confirmation { nonce: random_id()?, window_seconds: window, hold_seconds: hold })
        } else {
            None
        };
        Ok(Request {
            id: ActivationId::random()?,
            deployment: settings.id.clone(),
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
            tolerated_units: settings.tolerated_units.clone(),
            switch_environment: settings.switch_environment.clone(),
        })
    }

    /// How long a machine may have to wait for our decision; zero: there is nothing to wait for.
    fn hold(&self, job: &Job) -> Duration {
        let longest = |checks: &[Check]| checks.iter().map(|check| check.deadline + check.timeout).max();
        let here = longest(&job.checks_from_here);
        if here.is_none() && !self.settings.rollout.atomic {
            return Duration::ZERO;
        }
        let mut hold = here.unwrap_or_default() + DECISION;
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
    let wait = Wait::UntilReachable(settings.connect_deadline);
    tools.pool.connect(&job.endpoint, wait, cancel).await.map_err(|error| match error {
        SshError::Cancelled => DeployError::Cancelled,
        error => error.into(),
    })
}

fn check_identity(job: &Job, facts: &Facts) -> Result<(), DeployError> {
    match (&job.machine_id, &facts.machine_id) {
        (Some(expected), Some(found)) if expected != found => {
            Err(DeployError::AnotherMachine { expected: expected.clone(), found: found.clone() })
        }
        _ => Ok(()),
    }
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
