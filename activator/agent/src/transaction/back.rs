//! The way back to the old system.

use std::path::Path;
use std::time::Duration;

use nixos_agent::{Outcome, Phase};

use super::{End, Ran, Transaction};
use crate::host::{self, PROFILE};
use crate::secrets::Secrets;
use crate::trial;
use crate::verdict::Exit;

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
        if self.record.secrets_only {
            let end = End::new(Outcome::RolledBack, format!("{why}. The machine has its old secrets again."));
            return self.restore_secrets(end);
        }
        forget_pending(&old);
        // Before the switch, so that what it starts finds the old ones.
        let restored = Secrets::of(self.deployment, self.request).map_or(Ok(()), |secrets| secrets.restore());
        let (exit, back) = self.switch_back(&old);
        let end = match exit {
            Exit::Code(0 | 4) if back => {
                End::new(Outcome::RolledBack, format!("{why}. The machine went back to {old}."))
            }
            _ => End::new(
                Outcome::RollbackFailed,
                format!("{why}, and going back to {old} failed too ({exit:?})."),
            ),
        };
        if let Some(secrets) = Secrets::of(self.deployment, self.request) {
            secrets.refresh_units_again();
        }
        match restored {
            Ok(()) => end,
            Err(error) => End {
                message: format!("{} The old secrets could not be put back: {error}.", end.message),
                ..end
            },
        }
    }

    /// The old system ran before, so it can again; what keeps it from that may pass.
    fn switch_back(&mut self, old: &str) -> (Exit, bool) {
        const TRIES: u32 = 3;
        let mut tries = 0;
        loop {
            tries += 1;
            let Ran { exit, .. } = self.switch("rollback", old, "test");
            let back = host::state().current.as_deref() == Some(old);
            if tries == TRIES || (back && matches!(exit, Exit::Code(0 | 4))) {
                return (exit, back);
            }
            std::thread::sleep(Duration::from_secs(1));
        }
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
        self.install_boot_loader("boot-again", &system)?;
        host::mark_committed();
        if let Some(new) = new.filter(|new| *new != old && !self.record.generations.contains(new)) {
            // It would only be clutter; that it could not go is no reason to fail.
            let _ = host::output("nix-env", &["-p", PROFILE, "--delete-generations", &new.to_string()]);
        }
        Ok(())
    }

    pub(super) fn install_boot_loader(&mut self, step: &str, system: &str) -> Result<(), String> {
        match self.switch(step, system, "boot").exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(code) => Err(format!("the boot loader could not be installed (exit code {code})")),
            Exit::Killed => Err("installing the boot loader took too long or was killed".to_owned()),
        }
    }
}

/// An interrupted switch leaves lists of units for the next one, which may name units that the old system does not have.
fn forget_pending(old: &str) {
    for list in ["start-list", "restart-list", "reload-list"] {
        let path = Path::new("/run/nixos").join(list);
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let known = |unit: &&str| Path::new(old).join("etc/systemd/system").join(unit).exists();
        let kept: Vec<&str> = text.lines().filter(known).collect();
        let _ = std::fs::write(&path, kept.join("\n"));
    }
}
