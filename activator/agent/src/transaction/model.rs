//! A transaction at work: what it knows, and the steps that it runs.

use std::time::Duration;

use nixos_agent::{EventKind, FailedCheck, FailedUnit, Outcome, Report, Request};

use crate::activation::Activation;
use crate::event_log::EventLog;
use crate::record::Record;
use crate::secrets::{FilesWithoutUser, SecretChange};
use crate::switch::{self, ACTIVATE, BACK, Exit, Printed, Step, StepResult, Watcher, tail};
use crate::systemd::{self, Mode, Units};
use crate::systems;

/// How a transaction ends, for its report.
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) message: String,
    pub(super) exit: Option<Exit>,
    pub(super) failed_units: Vec<FailedUnit>,
    pub(super) failed_checks: Vec<FailedCheck>,
    pub(super) reboots: bool,
}

impl Ending {
    pub(super) fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { outcome, message, exit: None, failed_units: vec![], failed_checks: vec![], reboots: false }
    }

    pub(super) fn rejected(message: impl Into<String>) -> Self {
        Self::new(Outcome::Rejected, message)
    }
}

/// What the switch to the new system left behind.
pub(super) struct Switched {
    pub(super) printed: Printed,
    /// The units right after the switch.
    pub(super) units: Units,
    /// Services that crashed after the switch and have run well since.
    pub(super) recovered: Vec<String>,
}

/// A transaction at work.
pub(super) struct Transaction<'a> {
    pub(super) activation: &'a Activation,
    pub(super) request: &'a Request,
    pub(super) events: &'a mut EventLog,
    /// How the machine was before.
    pub(super) record: Record,
    /// `None`: there was no switch, or an agent that was killed has seen it.
    pub(super) switched: Option<Switched>,
    pub(super) warnings: Vec<String>,
    /// The step whose output tells most about how the transaction ended.
    pub(super) telling_step: &'static str,
}

impl<'a> Transaction<'a> {
    pub(super) fn secrets(&self) -> Option<SecretChange<'a>> {
        SecretChange::of(self.activation, self.request)
    }

    /// Whether the machine is in emergency mode, and was not before.
    pub(super) fn is_in_emergency(&self) -> bool {
        !self.record.emergency && systemd::mode() == Mode::Emergency
    }

    /// How long each run of `switch-to-configuration` may take.
    pub(super) fn step_limit(&self) -> Duration {
        Duration::from_secs(self.request.activation_timeout_seconds)
    }

    /// Runs a step of `switch-to-configuration` to its end.
    pub(super) fn run_step(&mut self, step: &'static str, system: &str, action: &str) -> StepResult {
        let step = Step { name: step, system, action, limit: self.step_limit(), at_any_price: step == BACK };
        let secrets = self.secrets().filter(|_| step.name == ACTIVATE);
        let files = secrets.as_ref().map(SecretChange::files_without_user);
        switch::run(self.activation, &step, &mut Relay { events: &mut *self.events, files })
    }

    /// Goes on with the switch to the new system that an agent has begun that was killed.
    pub(super) fn resume_switch(&mut self) -> StepResult {
        let limit = self.step_limit();
        let secrets = self.secrets();
        let files = secrets.as_ref().map(SecretChange::files_without_user);
        switch::resume(self.activation, ACTIVATE, limit, &mut Relay { events: &mut *self.events, files })
    }

    /// Makes the secrets of the new system the ones that the machine has.
    pub(super) fn keep_secrets(&self, ending: Ending) -> Ending {
        let Some(secrets) = self.secrets() else {
            return ending;
        };
        match secrets.keep() {
            Ok(()) => ending,
            // The secrets are in place and the system works. The next look from outside only takes them for lost, and
            // they are sent again.
            Err(error) => Ending { message: format!("{} {error}.", ending.message), ..ending },
        }
    }

    /// Puts the old secrets back, and has the units that use them see that.
    pub(super) fn restore_secrets(&self, ending: Ending) -> Ending {
        let Some(secrets) = self.secrets() else {
            return ending;
        };
        match secrets.restore() {
            Ok(()) => {
                secrets.refresh_units_again();
                ending
            }
            Err(error) => Ending {
                message: format!("{} The old secrets could not be put back: {error}.", ending.message),
                ..ending
            },
        }
    }

    pub(super) fn report(&self, ending: Ending) -> Report {
        Report {
            outcome: ending.outcome,
            message: ending.message,
            exit_code: ending.exit.and_then(|exit| match exit {
                Exit::Code(code) => Some(code),
                Exit::Killed => None,
            }),
            system: systems::state(),
            old_system: self.record.before.current.clone(),
            failed_units: ending.failed_units,
            failed_checks: ending.failed_checks,
            output_tail: tail(self.activation, self.telling_step),
            warnings: self.warnings.clone(),
            reboots: ending.reboots,
        }
    }
}

/// Passes on what a step prints, and gives files of secrets to users as soon as the step has made those.
struct Relay<'a> {
    events: &'a mut EventLog,
    files: Option<FilesWithoutUser<'a>>,
}

impl Watcher for Relay<'_> {
    fn line(&mut self, line: &str) {
        println!("{line}");
        self.events.add(EventKind::Output(line.to_owned()));
    }

    fn tick(&mut self) {
        if let Some(files) = &mut self.files {
            files.give_to_new_users();
        }
    }
}
