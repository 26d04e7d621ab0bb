//! The way back to the old system.
//!
//! It must not depend on what a bad system can stop. Where the machine is in emergency mode, the old system's files are activated first, so that
//! what stopped the machine is gone, and then everything is started again. Where the machine still does not run the old system, or stays in
//! emergency mode, it reboots into the system that it boots.

use std::path::Path;
use std::time::{Duration, Instant};

use nixos_agent::{Outcome, Phase};

use super::{End, Transaction};
use crate::follow::tail;
use crate::host::{self, Mode, PROFILE};
use crate::secrets::Secrets;
use crate::switch::{self, BACK, BOOT_AGAIN, Ran};
use crate::trial;
use crate::verdict::Exit;

/// How long the old system's activation script may take in emergency mode.
const ACTIVATE: Duration = Duration::from_mins(5);
/// How long a machine may take to come out of emergency mode.
const LEAVE: Duration = Duration::from_mins(2);

/// How going back ended.
struct Back {
    exit: Exit,
    /// It runs the old system, and is not in emergency mode.
    is_back: bool,
    /// Why the last try was stopped.
    stopped: Option<String>,
}

impl Transaction<'_> {
    pub(super) fn roll_back(&mut self, why: &str) -> End {
        let Some(old) = self.record.before.current.clone() else {
            return End::new(
                Outcome::RollbackFailed,
                format!("{why}, and there is no system to go back to."),
            );
        };
        if self.request.verify {
            let message = match trial::way_back(&self.request.toplevel) {
                Some(system) => format!("{why}. Its next boot brings {system} back."),
                None => format!("{why}. It was booted with this system, so there is none to go back to."),
            };
            return self.keep_secrets(End::new(Outcome::RollbackFailed, message));
        }
        if !self.request.rollback {
            return self.keep_secrets(End::new(
                Outcome::RollbackFailed,
                format!("{why}; `rollback` is off, so it was left as it is."),
            ));
        }
        self.events.phase(Phase::RollingBack);
        if self.record.secrets_only && host::mode() != Mode::Emergency {
            let end = End::new(Outcome::RolledBack, format!("{why}. The machine has its old secrets again."));
            return self.restore_secrets(end);
        }
        forget_pending(&old);
        // Before the switch, so that what it starts finds the old ones.
        let restored = Secrets::of(self.deployment, self.request).map_or(Ok(()), |secrets| secrets.restore());
        let back = self.switch_back(&old);
        let mut end = if back.is_back {
            let code = match back.exit {
                Exit::Code(0 | 4) => String::new(),
                // What it is about may well have been so all the time.
                Exit::Code(code) => format!(" Its `switch-to-configuration` ended with exit code {code}."),
                Exit::Killed => " Its `switch-to-configuration` did not come to an end.".to_owned(),
            };
            End::new(Outcome::RolledBack, format!("{why}. The machine went back to {old}.{code}"))
        } else {
            self.lost(why, &old, &back)
        };
        if let Some(secrets) = Secrets::of(self.deployment, self.request) {
            secrets.refresh_units_again();
        }
        if let Err(error) = restored {
            end.message.push_str(&format!(" The old secrets could not be put back: {error}."));
        }
        end
    }

    /// The old system ran before, so it can again; what keeps it from that may pass.
    fn switch_back(&mut self, old: &str) -> Back {
        const TRIES: u32 = 3;
        let mut tries = 0;
        loop {
            tries += 1;
            let left = leave_emergency(old);
            if let Err(why) = &left {
                println!("{why}");
            }
            restart_deaf_logind();
            let Ran { exit, stopped, .. } = self.switch(BACK, old, "test");
            // The switch itself may bring another bus.
            restart_deaf_logind();
            let is_back = host::state().current.as_deref() == Some(old) && host::mode() != Mode::Emergency;
            // What else ended a switch may pass; half of the old system's units may not have been started yet.
            let is_done = is_back && matches!(exit, Exit::Code(0 | 2 | 3 | 4));
            if tries == TRIES || is_done {
                return Back { exit, is_back, stopped: stopped.or(left.err()) };
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Nothing brings the old system back; a reboot does, where the machine boots it, and brings at least some system where nothing works any more.
    fn lost(&self, why: &str, old: &str, back: &Back) -> End {
        let stopped = back.stopped.as_ref().map(|stopped| format!(": it {stopped}"));
        let how = match (back.exit, &stopped) {
            (_, Some(stopped)) => stopped.clone(),
            (Exit::Code(code), None) => format!(": exit code {code}"),
            (Exit::Killed, None) => ": it did not come to an end".to_owned(),
        };
        let said = tail(&switch::log(self.deployment, BACK));
        let said =
            if said.is_empty() { String::new() } else { format!(" It said:\n  {}", said.join("\n  ")) };
        let mut end = End::new(
            Outcome::RollbackFailed,
            format!("{why}, and going back to {old} by its `switch-to-configuration` failed too{how}."),
        );
        let state = host::state();
        let boots_old = state.profile.as_deref() == Some(old) && state.generation.is_some();
        if boots_old || host::mode() == Mode::Emergency {
            let boots = state.profile.as_deref().unwrap_or("the system of its boot loader");
            end.message.push_str(&format!(" The machine reboots now; it boots {boots}."));
            end.reboots = true;
        }
        end.message.push_str(&said);
        end
    }

    pub(super) fn restore_secrets(&self, end: End) -> End {
        let Some(secrets) = Secrets::of(self.deployment, self.request) else {
            return end;
        };
        match secrets.restore() {
            Ok(()) => {
                secrets.refresh_units_again();
                end
            }
            Err(error) => End {
                message: format!("{} The old secrets could not be put back: {error}.", end.message),
                ..end
            },
        }
    }

    /// Back to the profile's generation from before and to its boot entries, and without the generation that failed, unless
    /// there was one before.
    pub(super) fn restore_profile(&mut self) -> Result<(), String> {
        let new = host::generation();
        let Some(old) = self.record.generation else {
            return Err("there was none".to_owned());
        };
        if new != Some(old) {
            host::output("nix-env", &["-p", PROFILE, "--switch-generation", &old.to_string()])?;
        }
        let system = host::state().profile.ok_or("the profile leads nowhere")?;
        self.install_boot_loader(BOOT_AGAIN, &system)?;
        host::mark_committed();
        if let Some(new) = new.filter(|new| *new != old && !self.record.generations.contains(new)) {
            // It would only be clutter; that it could not go is no reason to fail.
            let _ = host::output("nix-env", &["-p", PROFILE, "--delete-generations", &new.to_string()]);
        }
        Ok(())
    }

    pub(super) fn install_boot_loader(&mut self, step: &'static str, system: &str) -> Result<(), String> {
        let Ran { exit, stopped, .. } = self.switch(step, system, "boot");
        if exit != Exit::Code(0) {
            self.decided_by = step;
        }
        match exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(code) => Err(format!("the boot loader could not be installed (exit code {code})")),
            Exit::Killed => Err(match stopped {
                Some(stopped) => format!("installing the boot loader {stopped}"),
                None => "installing the boot loader took too long or was killed".to_owned(),
            }),
        }
    }
}

/// Brings a machine that is in emergency or rescue mode back into the mode that it boots into, with the files of a system.
pub(super) fn leave_emergency(system: &str) -> Result<(), String> {
    if host::mode() != Mode::Emergency {
        return Ok(());
    }
    println!("the machine is in emergency mode: activating {system} and starting everything again");
    // `switch-to-configuration` needs D-Bus, which is not there. What this script says against it is not decisive.
    let mut script = host::command(&format!("{system}/activate"));
    if let Err(why) = host::output_of(script.env("NIXOS_ACTION", "test").current_dir("/"), Some(ACTIVATE)) {
        println!("{why}");
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["reset-failed"])?;
    systemctl(&["isolate", "--no-block", "default.target"])?;
    let start = Instant::now();
    while start.elapsed() < LEAVE {
        std::thread::sleep(Duration::from_millis(300));
        let boots = host::jobs().iter().any(|job| job.kind == "start");
        if host::mode() != Mode::Emergency && !boots {
            return Ok(());
        }
    }
    match host::mode() {
        Mode::Emergency => Err("The machine does not come out of emergency mode".to_owned()),
        // Some unit takes long to start; what counts is that the others do.
        _ => Ok(()),
    }
}

/// Starts systemd-logind again where it runs but does not answer.
///
/// When D-Bus dies, systemd-logind runs on without a connection to it. Then `switch-to-configuration` ends half-way, and every login through
/// `pam_systemd` takes half a minute or more.
fn restart_deaf_logind() {
    const LOGIND: &str = "systemd-logind.service";
    const ANSWER: Duration = Duration::from_secs(5);
    let runs = host::output("systemctl", &["is-active", LOGIND]).is_ok_and(|state| state.trim() == "active");
    let answers = || {
        host::output_of(host::command("loginctl").args(["list-users", "--no-legend"]), Some(ANSWER)).is_ok()
    };
    if runs && !answers() {
        println!("{LOGIND} does not answer: it is started again");
        let _ = systemctl(&["restart", LOGIND]);
    }
}

/// Asks systemd over its own socket, which may be gone for a moment.
pub(super) fn systemctl(words: &[&str]) -> Result<String, String> {
    const ANSWER: Duration = Duration::from_secs(90);
    let ask = || host::output_of(host::command("systemctl").args(words), Some(ANSWER));
    ask().or_else(|_| {
        std::thread::sleep(Duration::from_secs(2));
        ask()
    })
}

/// An interrupted switch leaves lists of units for the next one, which may name units that a system does not have: that one would fail.
pub(super) fn forget_pending(system: &str) {
    for list in ["start-list", "restart-list", "reload-list"] {
        let path = Path::new("/run/nixos").join(list);
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let known = |unit: &&str| Path::new(system).join("etc/systemd/system").join(unit).exists();
        // The program appends to it: each name ends its line.
        let kept: String = text.lines().filter(known).map(|unit| format!("{unit}\n")).collect();
        let _ = std::fs::write(&path, kept);
    }
}
