//! Listening to an activation: its events from a file, until the last one or until nobody is left to write one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nixos_agent::{Event, EventKind, Outcome, Report};

use crate::files::Deployment;
use crate::switch::ACTIVATE;
use crate::{AgentError, host, switch};

const PAUSE: Duration = Duration::from_millis(30);
/// How often to look whether the activation's unit still runs.
const PULSE: Duration = Duration::from_secs(1);

/// Prints events from `from` on, up to and including the last.
pub(crate) fn follow(deployment: &Deployment, from: u64) -> Result<(), AgentError> {
    let path = deployment.path("events.ndjson");
    let mut reader = None;
    let mut line = String::new();
    let mut next = 0;
    let mut looked = Instant::now();
    // A manager that is being replaced answers wrongly for a moment: only the second look in a row counts.
    let mut missed = 0;
    loop {
        if reader.is_none() {
            reader = std::fs::File::open(&path).ok().map(BufReader::new);
        }
        let read = match reader.as_mut() {
            Some(reader) => reader.read_line(&mut line).map_err(crate::files::failed("events"))?,
            None => 0,
        };
        if read > 0 && line.ends_with('\n') {
            let event: Option<Event> = serde_json::from_str(&line).ok();
            let is_last = event.as_ref().is_some_and(|event| matches!(event.kind, EventKind::Done(_)));
            next = event.map_or(next, |event| event.seq + 1);
            if next > from {
                print(line.trim_end())?;
            }
            line.clear();
            if is_last {
                return Ok(());
            }
            continue;
        }
        if missed > 1 {
            return orphaned(deployment, next.max(from));
        }
        if looked.elapsed() >= PULSE {
            looked = Instant::now();
            let id = deployment.id();
            let units = ["", "switch-", "rescue-"].map(|kind| format!("nixos-agent-{kind}{id}*"));
            let gone = host::any_unit_is_alive(&units.each_ref().map(String::as_str)) == Ok(false);
            missed = if gone { missed + 1 } else { 0 };
        }
        std::thread::sleep(PAUSE);
    }
}

/// The activation was killed, with the agent or with the whole machine. What can still be told is what the machine runs.
fn orphaned(deployment: &Deployment, seq: u64) -> Result<(), AgentError> {
    let system = host::state();
    let request = deployment.request()?;
    let is_current = |toplevel: &str| system.current.as_deref() == Some(toplevel);
    let (outcome, what) = if is_current(&request.toplevel) {
        (Outcome::NotPersisted, "The new system runs, but its activation was not completed")
    } else if request.expected_system.as_deref().is_some_and(is_current) {
        (Outcome::Interrupted, "It runs the system that it ran before")
    } else {
        (Outcome::RollbackFailed, "Neither the new system runs nor the one before")
    };
    let report = Report {
        outcome,
        message: format!("{what}. The agent was killed there, or the machine was restarted."),
        exit_code: None,
        system,
        old_system: request.expected_system,
        failed_units: vec![],
        failed_checks: vec![],
        output_tail: tail(&switch::log(deployment, ACTIVATE)),
        warnings: vec![],
        reboots: false,
    };
    let event = Event { seq, kind: EventKind::Done(Box::new(report)) };
    print(&serde_json::to_string(&event).map_err(|error| AgentError::Request(error.to_string()))?)
}

/// The last lines of a file.
pub(crate) fn tail(path: &Path) -> Vec<String> {
    const LINES: usize = 30;
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(LINES)).map(|line| (*line).to_owned()).collect()
}

fn print(line: &str) -> Result<(), AgentError> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(crate::files::failed("standard output"))
}
