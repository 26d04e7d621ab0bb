//! Following an activation for a client: its events from a file, until the report, or until no process is left to write
//! one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::time::{Duration, Instant};

use nixos_agent::{Event, EventKind, Outcome, Report};

use crate::activation::Activation;
use crate::error::{AgentError, io_error, json_error};
use crate::switch::{ACTIVATE, tail};
use crate::{systemd, systems};

/// The pause where there is no new event.
const PAUSE: Duration = Duration::from_millis(30);
/// How often to look whether the activation's unit still runs.
const PULSE: Duration = Duration::from_secs(1);

/// Prints the events from number `from` on, up to and including the report.
pub(crate) fn follow(activation: &Activation, from: u64) -> Result<(), AgentError> {
    let path = activation.events_file();
    let mut reader = None;
    let mut line = String::new();
    let mut next = 0;
    let mut last_look = Instant::now();
    // A PID 1 that is executing itself anew answers wrongly for a moment, so two looks in a row have to agree.
    let mut times_gone = 0;
    loop {
        if reader.is_none() {
            reader = std::fs::File::open(&path).ok().map(BufReader::new);
        }
        let read = match reader.as_mut() {
            Some(reader) => reader.read_line(&mut line).map_err(io_error("events"))?,
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
        if times_gone > 1 {
            return report_killed(activation, next.max(from));
        }
        if last_look.elapsed() >= PULSE {
            last_look = Instant::now();
            let id = activation.id();
            let units = ["", "switch-", "rescue-"].map(|kind| format!("nixos-agent-{kind}{id}*"));
            let is_gone = systemd::any_unit_is_alive(&units.each_ref().map(String::as_str)) == Ok(false);
            times_gone = if is_gone { times_gone + 1 } else { 0 };
        }
        std::thread::sleep(PAUSE);
    }
}

/// Prints a report for an activation that was killed, with the agent or with the whole machine: what the machine runs
/// now.
fn report_killed(activation: &Activation, seq: u64) -> Result<(), AgentError> {
    let system = systems::state();
    let request = activation.request()?;
    let is_current = |toplevel: &str| system.current.as_deref() == Some(toplevel);
    let (outcome, what) = if is_current(&request.toplevel) {
        (Outcome::NotPersisted, "The new system runs, but its activation was not completed")
    } else if request.expected_system.as_deref().is_some_and(is_current) {
        (Outcome::Interrupted, "The machine runs the system that it ran before")
    } else {
        (Outcome::RollbackFailed, "The machine runs neither the new system nor the one before")
    };
    let report = Report {
        outcome,
        message: format!("{what}. The agent was killed there, or the machine was restarted."),
        exit_code: None,
        system,
        old_system: request.expected_system,
        failed_units: vec![],
        failed_checks: vec![],
        output_tail: tail(activation, ACTIVATE),
        warnings: vec![],
        reboots: false,
    };
    let event = Event { seq, kind: EventKind::Done(Box::new(report)) };
    print(&serde_json::to_string(&event).map_err(json_error)?)
}

fn print(line: &str) -> Result<(), AgentError> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(io_error("standard output"))
}
