//! What `switch-to-configuration` prints while it works, line by line.
//!
//! Its exit code says too little: 4 stands for a reload that failed as well as for a unit that had failed for weeks
//! before, and it overwrites the 2 of an activation script that failed. So what it prints decides. The agent knows the
//! messages of three programs: the Perl program of NixOS until 24.11, `systemctl`, whose messages the Perl program lets
//! through, and the Rust program (`switch-to-configuration-ng`).

use std::collections::BTreeSet;

/// What the lines that one run has printed so far say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Printed {
    /// The program has begun to change the machine.
    pub(crate) began: bool,
    /// The activation script failed.
    pub(crate) activation_failed: bool,
    /// Units of the system whose job failed, or that the program lists as failed, each once.
    pub(crate) failed_units: Vec<String>,
    /// Units that the program has started, restarted or reloaded, or has seen start.
    pub(crate) touched_units: BTreeSet<String>,
    /// The lines that say that units or activations of logged-in users failed.
    pub(crate) user_failures: Vec<String>,
    /// `systemctl daemon-reload` failed.
    pub(crate) daemon_reload_failed: bool,
    /// A pre-switch check of the new system did not pass.
    pub(crate) check_failed: bool,
    /// The check that did not pass compares what only a reboot can change (`switchInhibitors`).
    pub(crate) is_inhibited: bool,
    /// Another process holds the lock of `switch-to-configuration`.
    pub(crate) is_locked: bool,
    /// The program has printed something that is not an empty line.
    pub(crate) anything: bool,
}

/// How names of units end.
const KINDS: [&str; 11] = [
    ".service",
    ".socket",
    ".target",
    ".timer",
    ".mount",
    ".automount",
    ".path",
    ".slice",
    ".scope",
    ".swap",
    ".device",
];

impl Printed {
    /// Reads the next line.
    pub(crate) fn add(&mut self, line: &str) {
        let line = line.trim();
        self.anything |= !line.is_empty();
        self.began |= shows_a_change(line);
        if is_of_a_user(line) {
            self.user_failures.push(line.trim_start_matches("warning: ").to_owned());
        } else if line.starts_with("Failed to run activate script")
            || (line.starts_with("Activation script snippet ") && line.contains(" failed"))
        {
            self.activation_failed = true;
        } else if line.starts_with("Failed to reload daemon") {
            self.daemon_reload_failed = true;
        } else if line.starts_with("Could not acquire lock") {
            self.is_locked = true;
        } else if line.starts_with("Pre-switch check") && line.contains("failed") {
            self.check_failed = true;
            self.is_inhibited |= line.contains("switchInhibitors");
        } else if let Some(list) = line.strip_prefix("warning: the following units failed:") {
            units(list).for_each(|unit| self.add_failed(unit));
        } else if let Some(unit) = failed_job(line) {
            self.add_failed(unit);
        } else if let Some((what, list)) = line.split_once(" the following ")
            && let Some((about, list)) = list.split_once(": ")
            && (["starting", "restarting", "reloading"].contains(&what) || about.contains("were started"))
        {
            self.touched_units.extend(units(list).map(str::to_owned));
        } else if let Some(list) = line.strip_prefix("the following new units were started:") {
            self.touched_units.extend(units(list).map(str::to_owned));
        }
    }

    /// Reads the text of a whole run.
    pub(crate) fn of(text: &str) -> Self {
        let mut printed = Self::default();
        text.lines().for_each(|line| printed.add(line));
        printed
    }

    fn add_failed(&mut self, unit: &str) {
        if !self.failed_units.iter().any(|known| known == unit) {
            self.failed_units.push(unit.to_owned());
        }
    }
}

/// Whether a line shows that the program changes something. The program prints such a line before the change.
fn shows_a_change(line: &str) -> bool {
    line.starts_with("stopping ") || line.starts_with("activating the configuration")
}

/// Whether a line is about the units or the activation (home-manager) of a user, which are not part of the system.
fn is_of_a_user(line: &str) -> bool {
    let failed_job = line
        .strip_prefix("Failed to ")
        .is_some_and(|rest| rest.split_whitespace().skip(1).take(2).eq(["user", "unit"]));
    failed_job
        || line.starts_with("warning: user activation for ")
        || line.starts_with("warning: the following user units failed")
}

/// The unit whose job failed, if a line says so: `Failed to JOB UNIT` of the Rust program and of `systemctl`, or
/// `Job for UNIT failed` and `A dependency job for UNIT failed` of `systemctl`.
fn failed_job(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (["Failed", "to", "start" | "restart" | "reload" | "stop", unit, ..]
    | ["Job", "for", unit, "failed" | "failed." | "timed" | "canceled." | "invalid.", ..]
    | ["A", "dependency", "job", "for", unit, "failed" | "failed.", ..]) = words[..]
    else {
        return None;
    };
    let unit = unit.trim_end_matches([':', '.']);
    is_unit(unit).then_some(unit)
}

fn is_unit(name: &str) -> bool {
    KINDS.iter().any(|kind| name.len() > kind.len() && name.ends_with(kind))
}

/// The units of a list such as `a.service, b.mount`.
fn units(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|unit| is_unit(unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dry_run_would_do_is_no_change() {
        assert!(Printed::of("stopping the following units: a.service\n").began);
        assert!(Printed::of("stopping swap device: /dev/sda2\n").began);
        assert!(Printed::of("activating the configuration...\n").began);
        assert!(
            !Printed::of("would stop the following units: a.service\nwould activate the configuration...")
                .began
        );
    }

    #[test]
    fn jobs_that_failed_are_named_in_the_words_of_three_programs() {
        for (line, unit) in [
            ("Failed to reload web-server.service", "web-server.service"),
            ("Failed to start nope.mount", "nope.mount"),
            (
                "Failed to restart sysinit-reactivation.target: Transaction is destructive.",
                "sysinit-reactivation.target",
            ),
            ("Failed to start x.service: Unit x.service not found.", "x.service"),
            ("Job for a@1.service failed because the control process exited with error code.", "a@1.service"),
            ("Job for a.service timed out.", "a.service"),
            ("A dependency job for b.service failed. See 'journalctl -xe' for details.", "b.service"),
            ("warning: the following units failed: c.service", "c.service"),
        ] {
            assert_eq!(Printed::of(line).failed_units, [unit], "{line}");
        }
        let two = Printed::of(
            "Failed to start a.service\nwarning: the following units failed: a.service, b.socket",
        );
        assert_eq!(two.failed_units, ["a.service", "b.socket"]);
    }

    #[test]
    fn what_is_about_users_is_not_about_the_system() {
        let printed = Printed::of(
            "Failed to start user unit app.service\nwarning: user activation for alice failed\n\
             warning: the following user units failed: app.service",
        );
        assert_eq!((printed.failed_units.len(), printed.user_failures.len()), (0, 3));
    }

    #[test]
    fn other_failures_are_told_apart() {
        assert!(Printed::of("Activation script snippet 'boom' failed (1)").activation_failed);
        assert!(Printed::of("Failed to run activate script").activation_failed);
        assert!(Printed::of("Failed to reload daemon: Connection reset by peer").daemon_reload_failed);
        let check = Printed::of("hostname changes\nPre-switch checks failed");
        assert!(check.check_failed && !check.is_inhibited);
        let inhibited =
            Printed::of("dbus-implementation : dbus -> broker\nPre-switch check 'switchInhibitors' failed");
        assert!(inhibited.check_failed && inhibited.is_inhibited);
        for harmless in
            ["Failed to start the party", "Failed to stop swapping to /dev/sda2: busy", "● a.service - A"]
        {
            let printed = Printed::of(harmless);
            assert!(printed.failed_units.is_empty() && !printed.activation_failed, "{harmless}");
        }
    }

    #[test]
    fn touched_units_are_known() {
        let printed = Printed::of(
            "stopping the following units: gone.service\nreloading the following units: r.service\n\
             restarting the following units: a.service, b.service\nstarting the following units: c.timer\n\
             the following new units were started: d.service",
        );
        assert_eq!(
            printed.touched_units.into_iter().collect::<Vec<_>>(),
            ["a.service", "b.service", "c.timer", "d.service", "r.service"]
        );
    }
}
