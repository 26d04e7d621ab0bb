//! What units have written to the journal.

use std::time::Duration;

use nixos_agent::FailedUnit;

use crate::program;

/// Units that failed, each with the last lines of its journal.
pub(crate) fn of_failed_units(names: &[String]) -> Vec<FailedUnit> {
    const SYNC: Duration = Duration::from_secs(5);
    if !names.is_empty() {
        // What a unit has just printed may not have reached the journal yet, and `--sync` waits only for what has.
        std::thread::sleep(Duration::from_millis(200));
        let _ = program::output_within(program::command("journalctl").arg("--sync"), SYNC);
    }
    names.iter().map(|name| FailedUnit { name: name.clone(), journal: last_lines(name) }).collect()
}

/// The last lines that a unit has written since its last start, and what systemd wrote of it.
///
/// They are found by the id of that start and not by time, because the clock may have been set.
pub(crate) fn last_lines(unit: &str) -> Vec<String> {
    let started = program::output("systemctl", &["show", "-p", "InvocationID", "--value", unit]);
    let id = started.unwrap_or_default().trim().to_owned();
    let (by_it, about_it) = (format!("_SYSTEMD_INVOCATION_ID={id}"), format!("INVOCATION_ID={id}"));
    // A unit that could not be started has no such id.
    let lines: &[&str] = if id.is_empty() { &["-b", "-u", unit] } else { &[&by_it, "+", &about_it] };
    program::output("journalctl", &[lines, &["-n", "20", "-o", "cat", "--no-pager", "-q"]].concat())
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}
