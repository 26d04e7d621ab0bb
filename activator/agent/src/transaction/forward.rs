//! The way to the new system: it takes over, proves itself, and becomes the one that boots.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nixos_agent::{Action, Answer, Outcome, Phase};

use super::back::forget_pending;
use super::{End, Transaction, time_limit, with_journals};
use crate::examine;
use crate::files::{REACHABLE, VERDICT};
use crate::host::{self, Mode, PROFILE};
use crate::secrets::Secrets;
use crate::switch::{ACTIVATE, Ran};
use crate::trial;
use crate::verdict::{Evidence, Exit, Runs, Verdict, failed_since, judge};

/// How often a machine that waits for somebody looks at itself.
const PULSE: Duration = Duration::from_secs(2);
/// Nobody can log in then.
const EMERGENCY: &str = "The machine went into emergency mode";

impl Transaction<'_> {
    pub(super) fn activate(&mut self, toplevel: &str) -> End {
        self.record.units = host::units();
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
        if let Err(units) = self.boot_is_over(toplevel) {
            let end = End::rejected(format!(
                "The machine has not finished booting: it waits for {units}. Its system was not changed. What it waits for is in the system that runs \
                 and in the new one: end it there (`systemctl stop {units}`), or correct it."
            ));
            return self.restore_secrets(end);
        }
        forget_pending(toplevel);
        let ran = self.switch(ACTIVATE, toplevel, "test");
        self.activated(toplevel, ran)
    }

    pub(super) fn publish(&self) -> Result<(), String> {
        let secrets = Secrets::of(self.deployment, self.request);
        secrets.map_or(Ok(()), |secrets| {
            secrets
                .publish(!self.record.secrets_only)
                .map_err(|error| format!("The secrets could not be put in place: {error}"))
        })
    }

    /// The new system runs; units that use new secrets have to see them.
    pub(super) fn works(&mut self, toplevel: &str, exit: Exit) -> End {
        if let Some(secrets) = Secrets::of(self.deployment, self.request) {
            match secrets.own() {
                Ok(obstacles) => self.warnings.extend(obstacles),
                Err(why) => return End { exit: Some(exit), ..self.roll_back(&why) },
            }
            let failed_units = secrets.refresh_units();
            if !failed_units.is_empty() {
                let end = self.roll_back("Units failed with their new secrets");
                return End { exit: Some(exit), failed_units, ..end };
            }
        }
        self.confirm(toplevel, exit)
    }

    pub(super) fn activated(&mut self, toplevel: &str, Ran { exit, said, stopped }: Ran) -> End {
        let after = host::units();
        let runs = match host::state().current {
            current if current.as_deref() == Some(toplevel) => Runs::New,
            current if current == self.record.before.current => Runs::Old,
            _ => Runs::Other,
        };
        let verdict = judge(&Evidence {
            exit,
            said: &said,
            runs,
            emergency: self.is_in_emergency(),
            before: self.record.units.as_ref(),
            after: after.as_ref(),
            tolerated: &self.request.tolerated_units,
        });
        match verdict {
            Verdict::Good { warnings } => {
                self.warnings.extend(warnings);
                self.switched = Some((said, after.unwrap_or_default()));
                self.works(toplevel, exit)
            }
            Verdict::NotStarted => {
                let end = End::rejected(if said.is_locked {
                    "Another `switch-to-configuration` holds its lock on the machine; nothing was changed."
                } else if said.check_failed {
                    "A pre-switch check of the new system does not pass; nothing was changed. To switch all the same, set \
                     `switch_environment = { NIXOS_NO_CHECK = \"1\" }`."
                } else {
                    "`switch-to-configuration` refused to begin; nothing was changed."
                });
                self.restore_secrets(End { exit: Some(exit), ..end })
            }
            Verdict::NeedsReboot => {
                let end = End::new(
                    Outcome::RebootRequired,
                    "The system can only be reached by a reboot: set `reboot = \"if_needed\"`, or deploy it with `action = \"boot\"`.",
                );
                self.restore_secrets(End { exit: Some(exit), ..end })
            }
            Verdict::Bad { why, units } => {
                let failed_units = with_journals(&units);
                let why = stopped.map_or(why, |stopped| format!("`switch-to-configuration` {stopped}"));
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
                Some(Answer::Reachable | Answer::Keep) => None,
                Some(Answer::GoBack(why)) => Some(why),
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
                Some(Answer::Keep | Answer::Reachable) => None,
                Some(Answer::GoBack(why)) => Some(why),
                None => Some(format!("Nobody said within {seconds} s that the new system is to be kept")),
            };
            if let Some(why) = why {
                return End { exit: Some(exit), ..self.roll_back(&why) };
            }
        }
        if let Some(end) = self.fails_by_now(exit) {
            return end;
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

    /// Whether the machine is in emergency mode, and was not before.
    fn is_in_emergency(&self) -> bool {
        !self.record.emergency && host::mode() == Mode::Emergency
    }

    /// The last look before the new system is kept: a unit may die, and a file system be lost, right after the switch.
    fn fails_by_now(&mut self, exit: Exit) -> Option<End> {
        if self.is_in_emergency() {
            return Some(End { exit: Some(exit), ..self.roll_back(EMERGENCY) });
        }
        let (said, then) = self.switched.as_ref()?;
        let tolerated = &self.request.tolerated_units;
        let touched = said.touched.iter().filter(|unit| !tolerated.contains(unit));
        let (mut failed, settled) = crashing(&touched.map(String::as_str).collect::<Vec<_>>());
        self.settled = settled;
        // Behind that: one that systemd has given up meanwhile is not started again any more, and has failed.
        match host::units() {
            Some(now) => {
                let given_up = failed_since(said, then, &now, tolerated);
                failed.extend(given_up.into_iter().filter(|unit| !failed.contains(unit)).collect::<Vec<_>>());
            }
            None => self
                .warnings
                .push("systemd did not say which units had failed when the system was kept.".to_owned()),
        }
        if failed.is_empty() {
            return None;
        }
        let failed_units = with_journals(&failed);
        let end = self.roll_back("Units failed soon after they had been started");
        Some(End { exit: Some(exit), failed_units, ..end })
    }

    /// Warns of units that failed while the system was made the one that boots. The system stays: it is too late to go back.
    fn warn_of_late_failures(&mut self) {
        let Some((said, then)) = &self.switched else { return };
        let now = host::units().unwrap_or_default();
        let tolerated = &self.request.tolerated_units;
        let failed = failed_since(said, then, &now, tolerated);
        let touched: Vec<&str> =
            said.touched.iter().filter(|unit| !tolerated.contains(unit)).map(String::as_str).collect();
        // Those that had crashed before, and settled, were looked at when the system was kept.
        let again = host::services(&touched).into_iter().filter(|(unit, service)| {
            service.restarts > 0 && !failed.contains(unit) && !self.settled.contains(unit)
        });
        let again: Vec<String> = again.map(|(unit, _)| unit).collect();
        for (what, units) in [("Units failed", failed), ("Services crashed and were started again", again)] {
            if !units.is_empty() {
                self.warnings.push(format!("{what} after the system was kept: {}.", units.join(", ")));
            }
        }
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
    fn wait_for(&self, names: &[&str], seconds: u64) -> Option<Answer> {
        let window = Duration::from_secs(seconds);
        let start = Instant::now();
        let mut looked = start;
        loop {
            let word = names.iter().find_map(|name| {
                let text = self.deployment.find(name)?;
                serde_json::from_str(&text).ok()
            });
            if word.is_some() {
                return word;
            }
            if start.elapsed() >= window {
                return None;
            }
            if looked.elapsed() >= PULSE {
                looked = Instant::now();
                if self.is_in_emergency() {
                    return Some(Answer::GoBack(EMERGENCY.to_owned()));
                }
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
            self.warn_of_late_failures();
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

/// Looks for services that systemd starts again and again. Returns those that do not stop crashing, and those that crashed and came up then.
///
/// A service that has just been started is given a moment to crash. One that has crashed is watched until it has run for some time.
fn crashing(units: &[&str]) -> (Vec<String>, Vec<String>) {
    const MOMENT: Duration = Duration::from_millis(1500);
    const STABLE: Duration = Duration::from_secs(3);
    const PATIENCE: Duration = Duration::from_secs(15);
    let begun = Instant::now();
    let restarts = |units: &[&str]| -> BTreeMap<String, u32> {
        host::services(units).into_iter().map(|(unit, service)| (unit, service.restarts)).collect()
    };
    let services = host::services(units);
    let youngest =
        services.values().filter(|service| service.is_restarted).map(|service| service.active_since).max();
    let rest = youngest.and_then(|since| (since + MOMENT).checked_sub(host::monotonic()));
    if let Some(rest) = rest {
        std::thread::sleep(rest);
    }
    let mut known = restarts(units);
    known.retain(|_, restarts| *restarts > 0);
    let mut since = Instant::now();
    while !known.is_empty() && since.elapsed() < STABLE {
        if begun.elapsed() > PATIENCE {
            return (known.into_keys().collect(), vec![]);
        }
        std::thread::sleep(Duration::from_millis(300));
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let now = restarts(&names);
        if now != known {
            (known, since) = (now, Instant::now());
        }
    }
    (vec![], known.into_keys().collect())
}
