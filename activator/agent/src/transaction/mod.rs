//! The transaction: lock, check, write down, activate, then commit or go back.
//!
//! The new system first runs under `switch-to-configuration test`, which touches neither profile nor boot loader. So a
//! power cut brings the old system back until the new one has proved itself. Going back means the recorded path of the
//! old system, never "the generation before".

mod back;
mod booting;
mod commit;
mod crashes;
mod forward;
mod model;

use std::time::Duration;

use nixos_agent::{Action, EventKind, Outcome, Phase};

use crate::activation::Activation;
use crate::emergency::leave_emergency;
use crate::error::AgentError;
use crate::event_log::EventLog;
use crate::lock::lock;
use crate::record::Record;
use crate::secrets::{self, SecretChange};
use crate::switch::{ACTIVATE, DRY, Exit};
use crate::{preflight, reboot, rescue_timer, roots, systems};
use model::{Ending, Transaction};

/// Carries out an activation that was written down, to its report: from the beginning, or from the phase in which an
/// agent was killed.
pub(crate) fn run(activation: &Activation) -> Result<(), AgentError> {
    let reached = activation.last_phase();
    perform(activation, |transaction| match reached {
        None | Some(Phase::Locked | Phase::Preflight | Phase::Recorded) => transaction.attempt(),
        Some(phase) => transaction.resume(phase),
    })
}

/// Ends an activation that has not ended in time: what was confirmed is completed, what was not is undone.
pub(crate) fn rescue(activation: &Activation) -> Result<(), AgentError> {
    if activation.is_over() {
        return Ok(());
    }
    rescue_timer::stop_units_of(activation);
    let reached = activation.last_phase();
    perform(activation, |transaction| match reached {
        Some(phase @ Phase::Committing) => transaction.resume(phase),
        Some(
            Phase::Activating
            | Phase::AwaitingConfirmation
            | Phase::CheckingHealth
            | Phase::Holding
            | Phase::RollingBack,
        ) => transaction.roll_back("The activation did not come to an end"),
        _ => Ending::rejected(
            "The activation did not come to an end before it had begun; nothing was changed.",
        ),
    })
}

/// Takes the lock, does the work, and writes the report.
fn perform(
    activation: &Activation,
    work: impl FnOnce(&mut Transaction<'_>) -> Ending,
) -> Result<(), AgentError> {
    let request = activation.request()?;
    let mut events = EventLog::open(activation)?;
    let record = Record::of(activation).filter(|_| activation.last_phase() > Some(Phase::Recorded));
    let is_new = record.is_none();
    let record = record.unwrap_or_else(Record::now);
    let mut transaction = Transaction {
        activation,
        request: &request,
        events: &mut events,
        record,
        switched: None,
        warnings: vec![],
        telling_step: ACTIVATE,
    };
    let ending = match lock(request.id.as_str()) {
        Ok(_lock) => {
            if is_new {
                // Timers of earlier activations are void now. An activation that is resumed keeps its own.
                rescue_timer::stop_all();
                // An earlier activation may have been cut off while it changed secrets.
                if let Err(error) = secrets::undo() {
                    println!("{error}");
                }
                // Once more, because only now is it certain that no other activation changes the machine.
                transaction.record = Record::now();
            }
            let mut ending = work(&mut transaction);
            transaction.leave_no_emergency(&mut ending);
            if let Some(deployment) = &request.deployment
                && matches!(ending.outcome, Outcome::Activated | Outcome::Unchanged)
                && request.action != Action::DryActivate
                && let Err(error) = systems::mark_deployed(deployment, &request.toplevel)
            {
                println!("{error}");
            }
            rescue_timer::stop_all();
            if let Some(secrets) = transaction.secrets() {
                secrets.sweep();
            }
            // The lock is held up to here.
            transaction.events.phase(Phase::Finished);
            ending
        }
        Err(message) => Ending::new(Outcome::Rejected, message),
    };
    let report = transaction.report(ending);
    println!("{:?}: {}", report.outcome, report.message);
    let reboots = report.reboots;
    events.add(EventKind::Done(Box::new(report)));
    let _ = std::fs::remove_dir_all(activation.in_memory(""));
    if let Some(secrets) = SecretChange::of(activation, &request) {
        secrets.forget();
    }
    if reboots {
        events.sync();
        // The client gets the report before the connection breaks.
        std::thread::sleep(Duration::from_secs(2));
        reboot::reboot().map_err(AgentError::Reboot)?;
    }
    Ok(())
}

impl Transaction<'_> {
    /// The transaction from its beginning.
    fn attempt(&mut self) -> Ending {
        self.events.phase(Phase::Locked);
        let toplevel = self.request.toplevel.clone();
        let current = self.record.before.current.clone();
        if let Some(expected) = &self.request.expected_system
            && current.as_ref() != Some(expected)
        {
            let found = current.as_deref().unwrap_or("nothing that is known");
            return Ending::rejected(format!(
                "The machine runs {found}, not {expected}: someone else has changed it meanwhile."
            ));
        }
        let runs = current.as_deref() == Some(toplevel.as_str());
        let boots = self.record.before.profile.as_deref() == Some(toplevel.as_str())
            && self.record.before.generation.is_some();
        let secrets = self.secrets();
        let secrets_change = secrets.as_ref().is_some_and(SecretChange::changes_anything);
        match self.request.action {
            Action::Switch if runs && boots && !secrets_change && !self.request.verify => {
                return Ending::new(Outcome::Unchanged, "The machine runs this system already.");
            }
            Action::Test if runs && !secrets_change => {
                return Ending::new(Outcome::Unchanged, "The machine runs this system already.");
            }
            Action::Boot if boots => {
                return Ending::new(Outcome::Unchanged, "The machine boots this system already.");
            }
            _ => {}
        }
        self.events.phase(Phase::Preflight);
        let secrets_checked = secrets.map_or(Ok(()), |secrets| secrets.check());
        if let Err(message) = preflight::check(self.request, current.as_deref()).and(secrets_checked) {
            return Ending::rejected(message);
        }
        self.record.secrets_only =
            runs && (boots || self.request.action == Action::Test || self.request.verify);
        self.events.phase(Phase::Recorded);
        let recorded = roots::keep("new", &toplevel)
            .and_then(|()| current.as_deref().map_or(Ok(()), |current| roots::keep("old", current)))
            .and_then(|()| self.record.write(self.activation));
        if let Err(error) = recorded {
            return Ending::rejected(error.to_string());
        }
        if self.request.action != Action::DryActivate {
            roots::remove_pushed();
        }
        match self.request.action {
            Action::DryActivate => {
                self.telling_step = DRY;
                match self.run_step(DRY, &toplevel, "dry-activate").exit {
                    Exit::Code(0) => {
                        Ending::new(Outcome::Activated, "Nothing was changed: this was a dry run.")
                    }
                    exit => Ending {
                        exit: Some(exit),
                        ..Ending::rejected("The dry run did not come to its end. Nothing was changed.")
                    },
                }
            }
            Action::Boot => self.commit(&toplevel, None),
            Action::Switch if runs && !boots && !secrets_change && !self.request.verify => {
                self.commit(&toplevel, None)
            }
            Action::Switch | Action::Test => self.activate(&toplevel),
        }
    }

    /// Goes on in the phase in which an agent was killed.
    fn resume(&mut self, phase: Phase) -> Ending {
        let toplevel = self.request.toplevel.clone();
        match phase {
            Phase::Activating if self.record.secrets_only => match self.publish_secrets() {
                Ok(()) => self.hand_out_secrets(&toplevel, Exit::Code(0)),
                Err(why) => self.roll_back(&why),
            },
            Phase::Activating => {
                let result = self.resume_switch();
                self.judge_switch(&toplevel, result)
            }
            Phase::AwaitingConfirmation => self.await_confirmation(&toplevel, Exit::Code(0)),
            Phase::CheckingHealth => self.check_health(&toplevel, Exit::Code(0)),
            Phase::Holding => self.await_decision(&toplevel, Exit::Code(0)),
            // Setting the profile and installing the boot loader can be done twice.
            Phase::Committing => {
                let was_activated = self.request.action == Action::Switch
                    && self.record.before.current.as_deref() != Some(toplevel.as_str());
                self.commit(&toplevel, was_activated.then_some(Exit::Code(0)))
            }
            Phase::RollingBack => self.roll_back("The activation was interrupted while it went back"),
            Phase::Locked | Phase::Preflight | Phase::Recorded | Phase::Finished => {
                let state = systems::state();
                let runs = state.current.as_deref() == Some(toplevel.as_str());
                let boots = state.profile.as_deref() == Some(toplevel.as_str()) && state.generation.is_some();
                let outcome = match self.request.action {
                    _ if !runs => Outcome::RolledBack,
                    Action::Switch | Action::Boot if !boots => Outcome::NotPersisted,
                    _ => Outcome::Activated,
                };
                Ending::new(outcome, "The agent was killed between the end of the activation and its report.")
            }
        }
    }

    /// Brings the machine out of emergency mode where it was not in that mode before. Nobody could log in to repair it.
    fn leave_no_emergency(&mut self, ending: &mut Ending) {
        if ending.reboots || !self.is_in_emergency() {
            return;
        }
        let Some(current) = systems::state().current else { return };
        if let Err(why) = leave_emergency(&current) {
            ending.message.push_str(&format!(" {why}; it reboots now."));
            ending.reboots = true;
        }
    }
}
