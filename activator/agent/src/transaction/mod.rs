//! The transaction: lock, look, write down, activate, then commit or roll back.
//!
//! The new system first runs under `test`, which touches neither profile nor boot loader: until it has proved itself, a
//! power cut brings the old system back. Rolling back means the recorded path of the old system, never "the generation
//! before".

mod back;
mod forward;
mod ready;

use std::time::Duration;

use nixos_agent::{Action, EventKind, FailedCheck, FailedUnit, Outcome, Phase, Report, Request};

use crate::AgentError;
use crate::files::{Deployment, Events};
use crate::follow::tail;
use crate::host::{self, Mode};
use crate::preflight;
use crate::reboot;
use crate::record::Record;
use crate::said::Said;
use crate::secrets::{self, Orphans, Secrets};
use crate::switch::{self, ACTIVATE, BACK, Ran, Step, Watcher};
use crate::verdict::{Exit, Units};

/// The step of a dry run.
const DRY: &str = "dry";

/// How much longer than everything an activation may wait for systemd waits before it ends it.
const MARGIN: Duration = Duration::from_secs(30);

/// Runs an activation that was written down, to its last event; from the beginning, or from the phase in which an agent before
/// us was killed.
pub(crate) fn run(deployment: &Deployment) -> Result<(), AgentError> {
    let reached = deployment.last_phase();
    perform(deployment, |transaction| match reached {
        None | Some(Phase::Locked | Phase::Preflight | Phase::Recorded) => transaction.attempt(),
        Some(phase) => transaction.resume(phase),
    })
}

/// Ends an activation that did not end in time: what was confirmed is brought to its end, what was not is undone.
pub(crate) fn rescue(deployment: &Deployment) -> Result<(), AgentError> {
    if deployment.is_over() {
        return Ok(());
    }
    host::stop(deployment);
    let reached = deployment.last_phase();
    perform(deployment, |transaction| match reached {
        Some(phase @ Phase::Committing) => transaction.resume(phase),
        Some(
            Phase::Activating
            | Phase::AwaitingConfirmation
            | Phase::CheckingHealth
            | Phase::Holding
            | Phase::RollingBack,
        ) => transaction.roll_back("The activation did not come to an end"),
        _ => End::rejected("The activation did not come to an end before it had begun; nothing was changed."),
    })
}

fn perform(
    deployment: &Deployment,
    work: impl FnOnce(&mut Transaction<'_>) -> End,
) -> Result<(), AgentError> {
    let request = deployment.request()?;
    let mut events = Events::open(deployment)?;
    let record = Record::of(deployment).filter(|_| deployment.last_phase() > Some(Phase::Recorded));
    let fresh = record.is_none();
    let record = record.unwrap_or_else(Record::now);
    let mut transaction = Transaction {
        deployment,
        request: &request,
        events: &mut events,
        record,
        switched: None,
        settled: vec![],
        warnings: vec![],
        decided_by: ACTIVATE,
    };
    let end = match preflight::lock(request.id.as_str()) {
        Ok(_lock) => {
            if fresh {
                // Whoever holds the lock answers for the machine. An activation that is taken up keeps its own timer.
                host::disarm();
                // What one before has left that was cut off.
                if let Err(error) = secrets::undo() {
                    println!("{error}");
                }
                // Only now is it certain that nobody else changes it.
                transaction.record = Record::now();
            }
            let mut end = work(&mut transaction);
            transaction.leave_no_emergency(&mut end);
            if let Some(deployment) = &request.deployment
                && matches!(end.outcome, Outcome::Activated | Outcome::Unchanged)
                && request.action != Action::DryActivate
                && let Err(error) = host::mark_deployed(deployment, &request.toplevel)
            {
                println!("{error}");
            }
            host::disarm();
            if let Some(secrets) = Secrets::of(deployment, &request) {
                secrets.sweep();
            }
            // The lock lives up to here.
            transaction.events.phase(Phase::Finished);
            end
        }
        Err(message) => End::new(Outcome::Rejected, message),
    };
    let report = transaction.report(end);
    println!("{:?}: {}", report.outcome, report.message);
    let reboots = report.reboots;
    events.add(EventKind::Done(Box::new(report)));
    let _ = std::fs::remove_dir_all(deployment.volatile(""));
    if let Some(secrets) = Secrets::of(deployment, &request) {
        secrets.forget();
    }
    if reboots {
        events.sync();
        // Whoever listens hears the report first.
        std::thread::sleep(Duration::from_secs(2));
        reboot::reboot().map_err(AgentError::Reboot)?;
    }
    Ok(())
}

/// How an attempt ended.
struct End {
    outcome: Outcome,
    message: String,
    exit: Option<Exit>,
    failed_units: Vec<FailedUnit>,
    failed_checks: Vec<FailedCheck>,
    reboots: bool,
}

impl End {
    fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { outcome, message, exit: None, failed_units: vec![], failed_checks: vec![], reboots: false }
    }

    fn rejected(message: impl Into<String>) -> Self {
        Self::new(Outcome::Rejected, message)
    }
}

struct Transaction<'a> {
    deployment: &'a Deployment,
    request: &'a Request,
    events: &'a mut Events,
    record: Record,
    /// What the switch to the new system said, and the states of units right after it.
    switched: Option<(Said, Units)>,
    /// Services that crashed after it and came up again.
    settled: Vec<String>,
    warnings: Vec<String>,
    /// The step whose output tells most about how it ended.
    decided_by: &'static str,
}

/// Passes on what a step prints, and looks after secrets whose users it makes.
struct Passes<'a> {
    events: &'a mut Events,
    orphans: Option<Orphans<'a>>,
}

impl Watcher for Passes<'_> {
    fn line(&mut self, line: &str) {
        println!("{line}");
        self.events.add(EventKind::Output(line.to_owned()));
    }

    fn tick(&mut self) {
        if let Some(orphans) = &mut self.orphans {
            orphans.adopt();
        }
    }
}

impl Transaction<'_> {
    fn attempt(&mut self) -> End {
        self.events.phase(Phase::Locked);
        let toplevel = self.request.toplevel.clone();
        let current = self.record.before.current.clone();
        if let Some(expected) = &self.request.expected_system
            && current.as_ref() != Some(expected)
        {
            let found = current.as_deref().unwrap_or("nothing that is known");
            return End::rejected(format!(
                "The machine runs {found}, not {expected}: someone else has changed it meanwhile."
            ));
        }
        let runs = current.as_deref() == Some(toplevel.as_str());
        let boots = self.record.before.profile.as_deref() == Some(toplevel.as_str())
            && self.record.before.generation.is_some();
        let secrets = Secrets::of(self.deployment, self.request);
        let pending = secrets.as_ref().is_some_and(Secrets::are_pending);
        match self.request.action {
            Action::Switch if runs && boots && !pending && !self.request.verify => {
                return End::new(Outcome::Unchanged, "The machine runs this system already.");
            }
            Action::Test if runs && !pending => {
                return End::new(Outcome::Unchanged, "The machine runs this system already.");
            }
            Action::Boot if boots => {
                return End::new(Outcome::Unchanged, "The machine boots this system already.");
            }
            _ => {}
        }
        self.events.phase(Phase::Preflight);
        let lost = secrets.map_or(Ok(()), |secrets| secrets.check());
        if let Err(message) = preflight::look(self.request, current.as_deref()).and(lost) {
            return End::rejected(message);
        }
        self.record.secrets_only =
            runs && (boots || self.request.action == Action::Test || self.request.verify);
        self.events.phase(Phase::Recorded);
        let recorded = host::keep("new", &toplevel)
            .and_then(|()| current.as_deref().map_or(Ok(()), |current| host::keep("old", current)))
            .and_then(|()| self.record.write(self.deployment));
        if let Err(error) = recorded {
            return End::rejected(error.to_string());
        }
        if self.request.action != Action::DryActivate {
            host::give_up_pushed();
        }
        match self.request.action {
            Action::DryActivate => {
                self.decided_by = DRY;
                match self.switch(DRY, &toplevel, "dry-activate").exit {
                    Exit::Code(0) => End::new(Outcome::Activated, "Nothing was changed: this was a dry run."),
                    exit => End {
                        exit: Some(exit),
                        ..End::rejected("The dry run did not come to its end. Nothing was changed.")
                    },
                }
            }
            Action::Boot => self.commit(&toplevel, None),
            Action::Switch if runs && !boots && !pending && !self.request.verify => {
                self.commit(&toplevel, None)
            }
            Action::Switch | Action::Test => self.activate(&toplevel),
        }
    }

    /// Goes on in a phase in which an agent before us was killed.
    fn resume(&mut self, phase: Phase) -> End {
        let toplevel = self.request.toplevel.clone();
        match phase {
            Phase::Activating if self.record.secrets_only => match self.publish() {
                Ok(()) => self.works(&toplevel, Exit::Code(0)),
                Err(why) => self.roll_back(&why),
            },
            Phase::Activating => {
                let limit = Duration::from_secs(self.request.activation_timeout_seconds);
                let secrets = Secrets::of(self.deployment, self.request);
                let orphans = secrets.as_ref().map(Secrets::orphans);
                let mut passes = Passes { events: &mut *self.events, orphans };
                let ran = switch::take_up(self.deployment, ACTIVATE, limit, &mut passes);
                self.activated(&toplevel, ran)
            }
            Phase::AwaitingConfirmation => self.confirm(&toplevel, Exit::Code(0)),
            Phase::CheckingHealth => self.check_health(&toplevel, Exit::Code(0)),
            Phase::Holding => self.hold(&toplevel, Exit::Code(0)),
            // Setting the profile and installing the boot loader can be done again.
            Phase::Committing => {
                let runs_anew = self.request.action == Action::Switch
                    && self.record.before.current.as_deref() != Some(toplevel.as_str());
                self.commit(&toplevel, runs_anew.then_some(Exit::Code(0)))
            }
            Phase::RollingBack => self.roll_back("The activation was interrupted while it went back"),
            Phase::Locked | Phase::Preflight | Phase::Recorded | Phase::Finished => {
                let state = host::state();
                let runs = state.current.as_deref() == Some(toplevel.as_str());
                let boots = state.profile.as_deref() == Some(toplevel.as_str()) && state.generation.is_some();
                let outcome = match self.request.action {
                    _ if !runs => Outcome::RolledBack,
                    Action::Switch | Action::Boot if !boots => Outcome::NotPersisted,
                    _ => Outcome::Activated,
                };
                End::new(outcome, "The agent was killed between the end of the activation and its report.")
            }
        }
    }

    /// Runs a step of `switch-to-configuration` to its end.
    fn switch(&mut self, step: &'static str, system: &str, action: &str) -> Ran {
        let limit = Duration::from_secs(self.request.activation_timeout_seconds);
        let step = Step { name: step, system, action, limit, at_any_price: step == BACK };
        let secrets = Secrets::of(self.deployment, self.request).filter(|_| step.name == ACTIVATE);
        let orphans = secrets.as_ref().map(Secrets::orphans);
        switch::run(self.deployment, &step, &mut Passes { events: &mut *self.events, orphans })
    }

    /// Emergency mode, which the machine was not in before, is not left to those who find it unreachable.
    fn leave_no_emergency(&mut self, end: &mut End) {
        if end.reboots || self.record.emergency || host::mode() != Mode::Emergency {
            return;
        }
        let Some(current) = host::state().current else { return };
        if let Err(why) = back::leave_emergency(&current) {
            end.message.push_str(&format!(" {why}; it reboots now."));
            end.reboots = true;
        }
    }

    fn report(&self, end: End) -> Report {
        Report {
            outcome: end.outcome,
            message: end.message,
            exit_code: end.exit.and_then(|exit| match exit {
                Exit::Code(code) => Some(code),
                Exit::Killed => None,
            }),
            system: host::state(),
            old_system: self.record.before.current.clone(),
            failed_units: end.failed_units,
            failed_checks: end.failed_checks,
            output_tail: tail(&switch::log(self.deployment, self.decided_by)),
            warnings: self.warnings.clone(),
            reboots: end.reboots,
        }
    }
}

/// How long everything may take that an activation may wait for: there and back again, and what is asked in between.
fn time_limit(request: &Request) -> Duration {
    let asked = request
        .confirmation
        .as_ref()
        .map_or(0, |confirmation| confirmation.window_seconds.saturating_add(confirmation.hold_seconds));
    let switches = request.activation_timeout_seconds.saturating_mul(2);
    let checks = request.health_checks.iter().map(|check| check.deadline.saturating_add(check.timeout));
    let checks = checks.max().unwrap_or_default();
    Duration::from_secs(switches.saturating_add(asked)).saturating_add(checks).saturating_add(MARGIN)
}

/// Units that failed, with what they wrote to the journal.
fn with_journals(names: &[String]) -> Vec<FailedUnit> {
    const SYNC: Duration = Duration::from_secs(5);
    if !names.is_empty() {
        // What a unit has just said may still be on its way to the journal, and the journal knows only of what it has read.
        std::thread::sleep(Duration::from_millis(200));
        let _ = host::output_of(host::command("journalctl").arg("--sync"), Some(SYNC));
    }
    names.iter().map(|name| FailedUnit { name: name.clone(), journal: host::journal(name) }).collect()
}
