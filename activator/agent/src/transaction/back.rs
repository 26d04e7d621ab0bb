//! The way back to the old system.
//!
//! It must not depend on anything that a bad system can stop. Where the machine is in emergency mode, the files of the
//! old system are activated first, so that what stopped the machine is gone, and then everything is started again.
//! Where the machine still does not run the old system, or stays in emergency mode, it reboots into the system that it
//! boots.

use std::time::Duration;

use nixos_agent::{Outcome, Phase};

use super::model::{Ending, Transaction};
use crate::emergency::leave_emergency;
use crate::switch::{BACK, Exit, StepResult, forget_missing_units, tail};
use crate::systemd::{self, Mode, systemctl};
use crate::{program, systems, trial};

/// How going back ended.
struct Back {
    exit: Exit,
    /// Whether the machine runs the old system and is not in emergency mode.
    is_back: bool,
    /// Why the last try was stopped.
    stopped: Option<String>,
}

impl Transaction<'_> {
    /// Goes back to the old system, if there is one and the request allows that. `why` begins the message of the
    /// report.
    pub(super) fn roll_back(&mut self, why: &str) -> Ending {
        let Some(old) = self.record.before.current.clone() else {
            return Ending::new(
                Outcome::RollbackFailed,
                format!("{why}, and there is no system to go back to."),
            );
        };
        if self.request.verify {
            let message = match trial::way_back(&self.request.toplevel) {
                Some(system) => format!("{why}. Its next boot brings {system} back."),
                None => format!("{why}. It was booted with this system, so there is none to go back to."),
            };
            return self.keep_secrets(Ending::new(Outcome::RollbackFailed, message));
        }
        if !self.request.rollback {
            return self.keep_secrets(Ending::new(
                Outcome::RollbackFailed,
                format!("{why}; `rollback` is off, so it was left as it is."),
            ));
        }
        self.events.phase(Phase::RollingBack);
        if self.record.secrets_only && systemd::mode() != Mode::Emergency {
            let message = format!("{why}. The machine has its old secrets again.");
            return self.restore_secrets(Ending::new(Outcome::RolledBack, message));
        }
        forget_missing_units(&old);
        // Before the switch, so that units that it starts find the old secrets.
        let restored = self.secrets().map_or(Ok(()), |secrets| secrets.restore());
        let back = self.switch_back(&old);
        let mut ending = if back.is_back {
            let code = match back.exit {
                Exit::Code(0 | 4) => String::new(),
                // The old system may always have ended its switches with this code.
                Exit::Code(code) => format!(" Its `switch-to-configuration` ended with exit code {code}."),
                Exit::Killed => " Its `switch-to-configuration` did not come to an end.".to_owned(),
            };
            Ending::new(Outcome::RolledBack, format!("{why}. The machine went back to {old}.{code}"))
        } else {
            self.not_back(why, &old, &back)
        };
        if let Some(secrets) = self.secrets() {
            secrets.refresh_units_again();
        }
        if let Err(error) = restored {
            ending.message.push_str(&format!(" The old secrets could not be put back: {error}."));
        }
        ending
    }

    /// Switches to the old system, with several tries: it ran before, so what keeps it from running may pass.
    fn switch_back(&mut self, old: &str) -> Back {
        const TRIES: u32 = 3;
        let mut tries = 0;
        loop {
            tries += 1;
            let left_emergency = leave_emergency(old);
            if let Err(why) = &left_emergency {
                println!("{why}");
            }
            restart_deaf_logind();
            let StepResult { exit, stopped, .. } = self.run_step(BACK, old, "test");
            // Again, because the switch itself may have started another message bus.
            restart_deaf_logind();
            let is_back =
                systems::state().current.as_deref() == Some(old) && systemd::mode() != Mode::Emergency;
            // With any other code the program may have ended before it started the units of the old system.
            let is_done = is_back && matches!(exit, Exit::Code(0 | 2 | 3 | 4));
            if tries == TRIES || is_done {
                return Back { exit, is_back, stopped: stopped.or(left_emergency.err()) };
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// The ending where no try has brought the old system back.
    ///
    /// The machine reboots where it boots the old system. It also reboots in emergency mode, because then any system is
    /// better than none.
    fn not_back(&self, why: &str, old: &str, back: &Back) -> Ending {
        let how = match (back.exit, &back.stopped) {
            (_, Some(stopped)) => format!(": it {stopped}"),
            (Exit::Code(code), None) => format!(": exit code {code}"),
            (Exit::Killed, None) => ": it did not come to an end".to_owned(),
        };
        let printed = tail(self.activation, BACK);
        let printed =
            if printed.is_empty() { String::new() } else { format!(" It said:\n  {}", printed.join("\n  ")) };
        let mut ending = Ending::new(
            Outcome::RollbackFailed,
            format!("{why}, and going back to {old} by its `switch-to-configuration` failed too{how}."),
        );
        let state = systems::state();
        let boots_old = state.profile.as_deref() == Some(old) && state.generation.is_some();
        if boots_old || systemd::mode() == Mode::Emergency {
            let boots = state.profile.as_deref().unwrap_or("the system of its boot loader");
            ending.message.push_str(&format!(" The machine reboots now; it boots {boots}."));
            ending.reboots = true;
        }
        ending.message.push_str(&printed);
        ending
    }
}

/// Starts systemd-logind again where it runs but does not answer.
///
/// When D-Bus dies, systemd-logind goes on without a connection to it. Then `switch-to-configuration` ends half-way,
/// and every login through `pam_systemd` takes half a minute or more.
fn restart_deaf_logind() {
    const LOGIND: &str = "systemd-logind.service";
    const ANSWER: Duration = Duration::from_secs(5);
    let state = program::output("systemctl", &["is-active", LOGIND]);
    let runs = state.is_ok_and(|state| state.trim() == "active");
    let answers = || {
        let mut loginctl = program::command("loginctl");
        program::output_within(loginctl.args(["list-users", "--no-legend"]), ANSWER).is_ok()
    };
    if runs && !answers() {
        println!("{LOGIND} does not answer: it is started again");
        let _ = systemctl(&["restart", LOGIND]);
    }
}
