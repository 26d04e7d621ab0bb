//! The way to the new system: it takes over, proves itself, and becomes the one that boots.

use std::time::{Duration, Instant};

use nixos_agent::{Action, Outcome, Phase, Word};

use super::{End, Ran, Transaction, time_limit, with_journals};
use crate::examine;
use crate::files::{REACHABLE, VERDICT};
use crate::host::{self, PROFILE};
use crate::secrets::Secrets;
use crate::trial;
use crate::verdict::{Exit, Verdict, judge, newly_failed};

impl Transaction<'_> {
    pub(super) fn activate(&mut self, toplevel: &str) -> End {
        self.record.failed_units = host::failed_units();
        let limit = time_limit(self.request);
        let prepared = self.record.write(self.deployment).map_err(|error| error.to_string());
        if let Err(why) = prepared.and_then(|()| host::arm(self.deployment, limit)) {
            return End::rejected(format!("The way back could not be prepared: {why}. Nothing was changed."));
        }
        self.events.phase(Phase::Activating);
        // Before the switch, so that what it starts finds them.
        if let Err(why) = self.publish() {
            return self.roll_back(&why);
        }
        if self.record.secrets_only {
            return self.works(toplevel, Exit::Code(0));
        }
        let ran = self.switch("activate", toplevel, "test");
        self.activated(toplevel, ran)
    }

    pub(super) fn publish(&self) -> Result<(), String> {
        let secrets = Secrets::of(self.deployment, self.request);
        secrets.map_or(Ok(()), |secrets| {
            secrets.publish().map_err(|error| format!("The secrets could not be put in place: {error}"))
        })
    }

    /// The new system runs; units that use new secrets have to see them.
    pub(super) fn works(&mut self, toplevel: &str, exit: Exit) -> End {
        if let Some(secrets) = Secrets::of(self.deployment, self.request) {
            if let Err(why) = secrets.own() {
                return End { exit: Some(exit), ..self.roll_back(&why) };
            }
            let failed_units = secrets.refresh_units();
            if !failed_units.is_empty() {
                let end = self.roll_back("Units failed with their new secrets");
                return End { exit: Some(exit), failed_units, ..end };
            }
        }
        self.confirm(toplevel, exit)
    }

    pub(super) fn activated(&mut self, toplevel: &str, Ran { exit, changed }: Ran) -> End {
        let begun = changed || host::state().current != self.record.before.current;
        let newly = newly_failed(self.record.failed_units.as_deref(), host::failed_units());
        match judge(exit, begun, newly.as_deref()) {
            Verdict::Good => self.works(toplevel, exit),
            Verdict::NotStarted => {
                let end = End::rejected("`switch-to-configuration` refused to begin; nothing was changed.");
                self.restore_secrets(End { exit: Some(exit), ..end })
            }
            Verdict::NeedsReboot => {
                let end = End::new(
                    Outcome::RebootRequired,
                    "The system can only be reached by a reboot: set `reboot = \"if_needed\"`, or deploy it with `action = \"boot\"`.",
                );
                self.restore_secrets(End { exit: Some(exit), ..end })
            }
            Verdict::Bad => {
                let failed_units = with_journals(&newly.unwrap_or_default());
                let why = match exit {
                    Exit::Killed => "Activation took too long or was killed".to_owned(),
                    Exit::Code(4) => "Units failed".to_owned(),
                    Exit::Code(2) => "The activation script failed".to_owned(),
                    Exit::Code(code) => format!("Activation failed with exit code {code}"),
                };
                let end = self.roll_back(&why);
                End { exit: Some(exit), failed_units, ..end }
            }
        }
    }

    /// Waits until somebody has logged in anew and said so, where that is asked for.
    pub(super) fn confirm(&mut self, toplevel: &str, exit: Exit) -> End {
        let seconds =
            self.request.confirmation.as_ref().map_or(0, |confirmation| confirmation.window_seconds);
        if seconds > 0 {
            self.events.phase(Phase::AwaitingConfirmation);
            let why = match self.wait_for(&[REACHABLE, VERDICT], seconds) {
                Some(Word::Reachable | Word::Keep) => None,
                Some(Word::GoBack(why)) => Some(why),
                None => Some(format!("No login confirmed the new system within {seconds} s")),
            };
            if let Some(why) = why {
                return End { exit: Some(exit), ..self.roll_back(&why) };
            }
        }
        self.check_health(toplevel, exit)
    }

    /// Looks whether the machine does what it is for.
    pub(super) fn check_health(&mut self, toplevel: &str, exit: Exit) -> End {
        if !self.request.health_checks.is_empty() {
            self.events.phase(Phase::CheckingHealth);
            let output = self.deployment.volatile("health");
            let failed_checks = examine::all(&self.request.health_checks, &output);
            if !failed_checks.is_empty() {
                let end = self.roll_back("The machine is not healthy with its new system");
                return End { exit: Some(exit), failed_checks, ..end };
            }
        }
        self.hold(toplevel, exit)
    }

    /// Waits for what others found out, where that is asked for.
    pub(super) fn hold(&mut self, toplevel: &str, exit: Exit) -> End {
        let seconds = self.request.confirmation.as_ref().map_or(0, |confirmation| confirmation.hold_seconds);
        if seconds > 0 {
            self.events.phase(Phase::Holding);
            let why = match self.wait_for(&[VERDICT], seconds) {
                Some(Word::Keep | Word::Reachable) => None,
                Some(Word::GoBack(why)) => Some(why),
                None => Some(format!("Nobody said within {seconds} s that the new system is to be kept")),
            };
            if let Some(why) = why {
                return End { exit: Some(exit), ..self.roll_back(&why) };
            }
        }
        if self.request.action == Action::Test {
            let message = "The system runs; the next boot starts the one before.";
            return self.keep_secrets(End { exit: Some(exit), ..End::new(Outcome::Activated, message) });
        }
        if self.record.secrets_only && self.record.before.generation.is_some() {
            return self.keep_secrets(End::new(Outcome::Activated, "The machine has its secrets."));
        }
        self.commit(toplevel, Some(exit))
    }

    pub(super) fn keep_secrets(&self, end: End) -> End {
        let Some(secrets) = Secrets::of(self.deployment, self.request) else {
            return end;
        };
        match secrets.keep() {
            Ok(()) => end,
            // Everything works; it will only be taken for lost by the next look, and sent again.
            Err(error) => End { message: format!("{} {error}.", end.message), ..end },
        }
    }

    /// The first of these messages, if one comes in time.
    fn wait_for(&self, names: &[&str], seconds: u64) -> Option<Word> {
        let window = Duration::from_secs(seconds);
        let start = Instant::now();
        loop {
            let word = names.iter().find_map(|name| {
                let text = std::fs::read(self.deployment.volatile(name)).ok()?;
                serde_json::from_slice(&text).ok()
            });
            if word.is_some() {
                return word;
            }
            if start.elapsed() >= window {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Makes the system the one that boots. `exit` is how its activation ended, where there was one to undo.
    pub(super) fn commit(&mut self, toplevel: &str, exit: Option<Exit>) -> End {
        self.events.phase(Phase::Committing);
        let set = host::mark_uncommitted(toplevel)
            .map_err(|error| error.to_string())
            .and_then(|()| host::output("nix-env", &["-p", PROFILE, "--set", toplevel]));
        if set.is_ok() {
            // Before the boot loader, so that it offers what there is; that clutter stays is no reason to fail.
            let needed: Vec<u64> = self.record.generation.into_iter().chain(host::generation()).collect();
            if let Err(why) = host::prune(self.request.keep_generations, &needed) {
                println!("old generations stay: {why}");
            }
        }
        let result = set.and_then(|_| self.install_boot_loader("boot", toplevel));
        let Err(mut why) = result else {
            host::mark_committed();
            trial::forget();
            let end = End::new(Outcome::Activated, "The machine runs the system, and boots it.");
            return self.keep_secrets(End { exit, ..end });
        };
        if let Err(also) = self.restore_profile() {
            why = format!("{why}; nor could the one before be made the one that boots: {also}");
        }
        if exit.is_some() && self.request.rollback {
            let end = self.roll_back(&format!("Committing failed: {why}"));
            return End { exit, ..end };
        }
        let message = format!("The next boot will not start the system: {why}.");
        if exit.is_none() {
            return End::rejected(message);
        }
        // It runs, with its secrets.
        self.keep_secrets(End { exit, ..End::new(Outcome::NotPersisted, message) })
    }
}
