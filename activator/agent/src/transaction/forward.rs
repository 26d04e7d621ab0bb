//! The way to the new system: it takes over and proves itself.

use std::time::{Duration, Instant};

use nixos_agent::{Action, Answer, Outcome, Phase, Request};

use super::booting::await_end_of_boot;
use super::model::{Ending, Switched, Transaction};
use crate::activation::{DECISION, REACHABLE};
use crate::switch::{ACTIVATE, Evidence, Exit, Runs, StepResult, Verdict, forget_missing_units, judge};
use crate::{health_checks, journal, rescue_timer, systemd, systems};

/// How often a machine that waits for its client looks whether it is in emergency mode.
const PULSE: Duration = Duration::from_secs(2);
/// Nobody can log in to a machine in emergency mode, so no answer can come.
const EMERGENCY: &str = "The machine went into emergency mode";

impl Transaction<'_> {
    /// Makes the new system run.
    pub(super) fn activate(&mut self, toplevel: &str) -> Ending {
        self.record.units = systemd::units();
        let prepared = self.record.write(self.activation).map_err(|error| error.to_string());
        let limit = whole_limit(self.request);
        if let Err(why) = prepared.and_then(|()| rescue_timer::start(self.activation, limit)) {
            return Ending::rejected(format!(
                "The way back could not be prepared: {why}. Nothing was changed."
            ));
        }
        self.events.phase(Phase::Activating);
        // Before the switch, so that units that it starts find the new secrets.
        if let Err(why) = self.publish_secrets() {
            return self.roll_back(&why);
        }
        if self.record.secrets_only {
            return self.hand_out_secrets(toplevel, Exit::Code(0));
        }
        let limit = self.step_limit();
        if let Err(units) = await_end_of_boot(toplevel, limit, self.events) {
            let ending = Ending::rejected(format!(
                "The machine has not finished booting: it waits for {units}. Its system was not changed. What it \
                 waits for is in the system that runs and in the new one: end it there (`systemctl stop {units}`), \
                 or correct it."
            ));
            return self.restore_secrets(ending);
        }
        forget_missing_units(toplevel);
        let result = self.run_step(ACTIVATE, toplevel, "test");
        self.judge_switch(toplevel, result)
    }

    /// Puts the new secrets in place.
    pub(super) fn publish_secrets(&self) -> Result<(), String> {
        let switches = !self.record.secrets_only;
        self.secrets()
            .map_or(Ok(()), |secrets| secrets.publish(switches))
            .map_err(|error| format!("The secrets could not be put in place: {error}"))
    }

    /// Decides what follows the switch.
    pub(super) fn judge_switch(
        &mut self,
        toplevel: &str,
        StepResult { exit, printed, stopped }: StepResult,
    ) -> Ending {
        let after = systemd::units();
        let runs = match systems::state().current {
            current if current.as_deref() == Some(toplevel) => Runs::New,
            current if current == self.record.before.current => Runs::Old,
            _ => Runs::Other,
        };
        let verdict = judge(&Evidence {
            exit,
            printed: &printed,
            runs,
            emergency: self.is_in_emergency(),
            before: self.record.units.as_ref(),
            after: after.as_ref(),
            tolerated: &self.request.tolerated_units,
        });
        match verdict {
            Verdict::Good { warnings } => {
                self.warnings.extend(warnings);
                let units = after.unwrap_or_default();
                self.switched = Some(Switched { printed, units, recovered: vec![] });
                self.hand_out_secrets(toplevel, exit)
            }
            Verdict::NotStarted => {
                let ending = Ending::rejected(if printed.is_locked {
                    "Another `switch-to-configuration` holds its lock on the machine; nothing was changed."
                } else if printed.check_failed {
                    "A pre-switch check of the new system does not pass; nothing was changed. To switch all \
                     the same, set `switch_environment = { NIXOS_NO_CHECK = \"1\" }`."
                } else {
                    "`switch-to-configuration` refused to begin; nothing was changed."
                });
                self.restore_secrets(Ending { exit: Some(exit), ..ending })
            }
            Verdict::NeedsReboot => {
                let ending = Ending::new(
                    Outcome::RebootRequired,
                    "The system can only be reached by a reboot: set `reboot = \"if_needed\"`, or deploy it with \
                     `action = \"boot\"`.",
                );
                self.restore_secrets(Ending { exit: Some(exit), ..ending })
            }
            Verdict::Bad { why, units } => {
                let failed_units = journal::of_failed_units(&units);
                let why = stopped.map_or(why, |stopped| format!("`switch-to-configuration` {stopped}"));
                let ending = self.roll_back(&why);
                Ending { exit: Some(exit), failed_units, ..ending }
            }
        }
    }

    /// The new system runs; gives new secrets to their users, and makes the units that use them see that.
    pub(super) fn hand_out_secrets(&mut self, toplevel: &str, exit: Exit) -> Ending {
        if let Some(secrets) = self.secrets() {
            match secrets.give_to_users() {
                Ok(obstacles) => self.warnings.extend(obstacles),
                Err(why) => return Ending { exit: Some(exit), ..self.roll_back(&why) },
            }
            let failed_units = secrets.refresh_units();
            if !failed_units.is_empty() {
                let ending = self.roll_back("Units failed with their new secrets");
                return Ending { exit: Some(exit), failed_units, ..ending };
            }
        }
        self.await_confirmation(toplevel, exit)
    }

    /// Waits until the client has logged in anew and said so, where the request asks for that.
    pub(super) fn await_confirmation(&mut self, toplevel: &str, exit: Exit) -> Ending {
        let seconds =
            self.request.confirmation.as_ref().map_or(0, |confirmation| confirmation.window_seconds);
        if seconds > 0 {
            self.events.phase(Phase::AwaitingConfirmation);
            let why = match self.await_answer(&[REACHABLE, DECISION], seconds) {
                Some(Answer::Reachable | Answer::Keep) => None,
                Some(Answer::GoBack(why)) => Some(why),
                None => Some(format!("No login confirmed the new system within {seconds} s")),
            };
            if let Some(why) = why {
                return Ending { exit: Some(exit), ..self.roll_back(&why) };
            }
        }
        self.check_health(toplevel, exit)
    }

    /// Runs the health checks of the request.
    pub(super) fn check_health(&mut self, toplevel: &str, exit: Exit) -> Ending {
        if !self.request.health_checks.is_empty() {
            self.events.phase(Phase::CheckingHealth);
            let output = self.activation.in_memory("health");
            let failed_checks = health_checks::run(&self.request.health_checks, &output);
            if !failed_checks.is_empty() {
                let ending = self.roll_back("The machine is not healthy with its new system");
                return Ending { exit: Some(exit), failed_checks, ..ending };
            }
        }
        self.await_decision(toplevel, exit)
    }

    /// Waits until the client has decided whether the machine keeps the new system, where the request asks for that.
    pub(super) fn await_decision(&mut self, toplevel: &str, exit: Exit) -> Ending {
        let seconds = self.request.confirmation.as_ref().map_or(0, |confirmation| confirmation.hold_seconds);
        if seconds > 0 {
            self.events.phase(Phase::Holding);
            let why = match self.await_answer(&[DECISION], seconds) {
                Some(Answer::Keep | Answer::Reachable) => None,
                Some(Answer::GoBack(why)) => Some(why),
                None => Some(format!("Nobody said within {seconds} s that the new system is to be kept")),
            };
            if let Some(why) = why {
                return Ending { exit: Some(exit), ..self.roll_back(&why) };
            }
        }
        self.keep(toplevel, exit)
    }

    /// Keeps the new system, unless it fails by now: a unit may die, or a file system be lost, soon after the switch.
    fn keep(&mut self, toplevel: &str, exit: Exit) -> Ending {
        if self.is_in_emergency() {
            return Ending { exit: Some(exit), ..self.roll_back(EMERGENCY) };
        }
        let failed = self.units_that_failed_since();
        if !failed.is_empty() {
            let failed_units = journal::of_failed_units(&failed);
            let ending = self.roll_back("Units failed soon after they had been started");
            return Ending { exit: Some(exit), failed_units, ..ending };
        }
        if self.request.action == Action::Test {
            let message = "The system runs; the next boot starts the one before.";
            return self
                .keep_secrets(Ending { exit: Some(exit), ..Ending::new(Outcome::Activated, message) });
        }
        if self.record.secrets_only && self.record.before.generation.is_some() {
            return self.keep_secrets(Ending::new(Outcome::Activated, "The machine has its secrets."));
        }
        self.commit(toplevel, Some(exit))
    }

    /// The client's answer in one of these notes; `None`: none came in time.
    fn await_answer(&self, notes: &[&str], seconds: u64) -> Option<Answer> {
        let window = Duration::from_secs(seconds);
        let start = Instant::now();
        let mut last_look = start;
        loop {
            let answer = notes.iter().find_map(|note| {
                let text = self.activation.read_note(note)?;
                serde_json::from_str(&text).ok()
            });
            if answer.is_some() {
                return answer;
            }
            if start.elapsed() >= window {
                return None;
            }
            if last_look.elapsed() >= PULSE {
                last_look = Instant::now();
                if self.is_in_emergency() {
                    return Some(Answer::GoBack(EMERGENCY.to_owned()));
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// How long the whole activation may take, with the way back and everything that it waits for. After that the rescue
/// timer ends it.
fn whole_limit(request: &Request) -> Duration {
    const MARGIN: Duration = Duration::from_secs(30);
    let waits = request
        .confirmation
        .as_ref()
        .map_or(0, |confirmation| confirmation.window_seconds.saturating_add(confirmation.hold_seconds));
    let switches = request.activation_timeout_seconds.saturating_mul(2);
    let checks = request.health_checks.iter().map(|check| check.deadline.saturating_add(check.timeout));
    let checks = checks.max().unwrap_or_default();
    Duration::from_secs(switches.saturating_add(waits)).saturating_add(checks).saturating_add(MARGIN)
}
