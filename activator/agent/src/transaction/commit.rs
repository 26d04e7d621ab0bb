//! Making the new system the one that boots, or the old one again where that fails.

use nixos_agent::{Outcome, Phase};

use super::model::{Ending, Transaction};
use crate::generations::prune;
use crate::profile::{PROFILE, generation};
use crate::switch::{BOOT, BOOT_AGAIN, Exit, StepResult};
use crate::{program, systems, trial};

impl Transaction<'_> {
    /// Makes the system the one that boots. `exit` is how its activation ended; `None`: it was not activated, so there
    /// is nothing to undo.
    pub(super) fn commit(&mut self, toplevel: &str, exit: Option<Exit>) -> Ending {
        self.events.phase(Phase::Committing);
        let set = systems::mark_uncommitted(toplevel)
            .map_err(|error| error.to_string())
            .and_then(|()| program::output("nix-env", &["-p", PROFILE, "--set", toplevel]));
        if set.is_ok() {
            // Before the boot loader, so that it offers only generations that exist. Old generations that stay do no
            // harm, so a failure here is only logged.
            let needed: Vec<u64> = self.record.generation.into_iter().chain(generation()).collect();
            if let Err(why) = prune(self.request.keep_generations, &needed) {
                println!("old generations stay: {why}");
            }
        }
        let result = set.and_then(|_| self.install_boot_loader(BOOT, toplevel));
        let Err(mut why) = result else {
            systems::mark_committed();
            trial::forget();
            self.warn_of_late_failures();
            let ending = Ending::new(Outcome::Activated, "The machine runs the system, and boots it.");
            return self.keep_secrets(Ending { exit, ..ending });
        };
        if let Err(also) = self.restore_profile() {
            why = format!("{why}; nor could the one before be made the one that boots: {also}");
        }
        if exit.is_some() && self.request.rollback {
            let ending = self.roll_back(&format!("Committing failed: {why}"));
            return Ending { exit, ..ending };
        }
        let message = format!("The next boot will not start the system: {why}.");
        if exit.is_none() {
            return Ending::rejected(message);
        }
        // The new system runs, and so its secrets stay.
        self.keep_secrets(Ending { exit, ..Ending::new(Outcome::NotPersisted, message) })
    }

    /// Makes the profile point at the generation from before and installs its boot entries. The generation of the new
    /// system is deleted, unless it was there before.
    fn restore_profile(&mut self) -> Result<(), String> {
        let new = generation();
        let Some(old) = self.record.generation else {
            return Err("there was none".to_owned());
        };
        if new != Some(old) {
            program::output("nix-env", &["-p", PROFILE, "--switch-generation", &old.to_string()])?;
        }
        let system = systems::state().profile.ok_or("the profile leads nowhere")?;
        self.install_boot_loader(BOOT_AGAIN, &system)?;
        systems::mark_committed();
        if let Some(new) = new.filter(|new| *new != old && !self.record.generations.contains(new)) {
            // A generation that stays does no harm, so a failure here does not count.
            let _ = program::output("nix-env", &["-p", PROFILE, "--delete-generations", &new.to_string()]);
        }
        Ok(())
    }

    fn install_boot_loader(&mut self, step: &'static str, system: &str) -> Result<(), String> {
        let StepResult { exit, stopped, .. } = self.run_step(step, system, "boot");
        if exit != Exit::Code(0) {
            self.telling_step = step;
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
