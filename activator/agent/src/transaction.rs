//! The transaction: lock, look, write down, activate, then commit or roll back.
//!
//! The new system first runs under `test`, which touches neither profile nor boot loader: until it has proved itself, a
//! power cut brings the old system back. Rolling back means the recorded path of the old system, never "the generation
//! before".

use std::path::Path;
use std::time::{Duration, Instant};

use nixos_agent::{Action, EventKind, FailedCheck, FailedUnit, Outcome, Phase, Report, Request, Word};

use crate::AgentError;
use crate::examine;
use crate::files::{Deployment, Events, REACHABLE, VERDICT};
use crate::follow::tail;
use crate::host::{self, PROFILE};
use crate::preflight;
use crate::record::Record;
use crate::secrets::Secrets;
use crate::trial;
use crate::verdict::{Exit, Verdict, judge, newly_failed, shows_a_change};

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
    let mut transaction = Transaction { deployment, request: &request, events: &mut events, record };
    let end = match preflight::lock(request.id.as_str()) {
        Ok(_lock) => {
            if fresh {
                // Whoever holds the lock answers for the machine. An activation that is taken up keeps its own timer.
                host::disarm();
                // Only now is it certain that nobody else changes it.
                transaction.record = Record::now();
            }
            let end = work(&mut transaction);
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
    events.add(EventKind::Done(Box::new(report)));
    let _ = std::fs::remove_dir_all(deployment.volatile(""));
    if let Some(secrets) = Secrets::of(deployment, &request) {
        secrets.forget();
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
}

impl End {
    fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), exit: None, failed_units: vec![], failed_checks: vec![] }
    }

    fn rejected(message: impl Into<String>) -> Self {
        Self::new(Outcome::Rejected, message)
    }
}

/// How a run of `switch-to-configuration` ended.
struct Ran {
    exit: Exit,
    /// Whether its output shows that it changed something.
    changed: bool,
}

struct Transaction<'a> {
    deployment: &'a Deployment,
    request: &'a Request,
    events: &'a mut Events,
    record: Record,
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
        match self.request.action {
            Action::DryActivate => {
                self.switch("dry", &toplevel, "dry-activate");
                End::new(Outcome::Activated, "Nothing was changed: this was a dry run.")
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
                let events = &mut *self.events;
                let exit = host::take_up(self.deployment, "activate", &mut |line| {
                    println!("{line}");
                    events.add(EventKind::Output(line));
                });
                // Its output was read by somebody else.
                let changed =
                    tail(&self.deployment.path("output.log")).iter().any(|line| shows_a_change(line));
                self.activated(&toplevel, Ran { exit, changed })
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
                let runs = host::state().current.as_deref() == Some(toplevel.as_str());
                let outcome = if runs { Outcome::Activated } else { Outcome::RolledBack };
                End::new(outcome, "The agent was killed between the end of the activation and its report.")
            }
        }
    }

    fn activate(&mut self, toplevel: &str) -> End {
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

    fn publish(&self) -> Result<(), String> {
        let secrets = Secrets::of(self.deployment, self.request);
        secrets.map_or(Ok(()), |secrets| {
            secrets.publish().map_err(|error| format!("The secrets could not be put in place: {error}"))
        })
    }

    /// The new system runs; units that use new secrets have to see them.
    fn works(&mut self, toplevel: &str, exit: Exit) -> End {
        if let Some(secrets) = Secrets::of(self.deployment, self.request) {
            if let Err(why) = secrets.own() {
                return End { exit: Some(exit), ..self.roll_back(&why) };
            }
            let failed_units = secrets.refresh_units(self.record.since);
            if !failed_units.is_empty() {
                let end = self.roll_back("Units failed with their new secrets");
                return End { exit: Some(exit), failed_units, ..end };
            }
        }
        self.confirm(toplevel, exit)
    }

    fn activated(&mut self, toplevel: &str, Ran { exit, changed }: Ran) -> End {
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
                let failed_units = self.failed_units(&newly.unwrap_or_default());
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
    fn confirm(&mut self, toplevel: &str, exit: Exit) -> End {
        let seconds =
            self.request.confirmation.as_ref().map_or(0, |confirmation| confirmation.window_seconds);
        if seconds > 0 {
            self.events.phase(Phase::AwaitingConfirmation);
            let why = match self.wait_for(&[REACHABLE, VERDICT], seconds) {
                Some(Word::Reachable | Word::Keep) => None,
                Some(Word::GoBack(why)) => Some(why),
                None => Some(format!("Nobody could log in to confirm the new system within {seconds} s")),
            };
            if let Some(why) = why {
                return End { exit: Some(exit), ..self.roll_back(&why) };
            }
        }
        self.check_health(toplevel, exit)
    }

    /// Looks whether the machine does what it is for.
    fn check_health(&mut self, toplevel: &str, exit: Exit) -> End {
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
    fn hold(&mut self, toplevel: &str, exit: Exit) -> End {
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

    fn keep_secrets(&self, end: End) -> End {
        let Some(secrets) = Secrets::of(self.deployment, self.request) else {
            return end;
        };
        match secrets.keep() {
            Ok(()) => end,
            // Everything works; it will only be taken for lost by the next look, and sent again.
            Err(error) => End { message: format!("{} {error}.", end.message), ..end },
        }
    }

    fn restore_secrets(&self, end: End) -> End {
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
    fn commit(&mut self, toplevel: &str, exit: Option<Exit>) -> End {
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

    fn roll_back(&mut self, why: &str) -> End {
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

    fn install_boot_loader(&mut self, step: &str, system: &str) -> Result<(), String> {
        match self.switch(step, system, "boot").exit {
            Exit::Code(0) => Ok(()),
            Exit::Code(code) => Err(format!("the boot loader could not be installed (exit code {code})")),
            Exit::Killed => Err("installing the boot loader took too long or was killed".to_owned()),
        }
    }

    /// Back to the profile's generation from before and to its boot entries, and without the generation that failed, unless
    /// there was one before.
    fn restore_profile(&mut self) -> Result<(), String> {
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

    fn switch(&mut self, step: &str, system: &str, action: &str) -> Ran {
        let limit = Duration::from_secs(self.request.activation_timeout_seconds);
        let events = &mut *self.events;
        let mut changed = false;
        let exit = host::switch(self.deployment, step, system, action, limit, &mut |line| {
            println!("{line}");
            changed |= shows_a_change(&line);
            events.add(EventKind::Output(line));
        });
        Ran { exit, changed }
    }

    fn failed_units(&self, names: &[String]) -> Vec<FailedUnit> {
        let unit = |name: &String| FailedUnit {
            name: name.clone(),
            journal: host::journal(name, self.record.since),
        };
        names.iter().map(unit).collect()
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
            output_tail: tail(&self.deployment.path("output.log")),
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
