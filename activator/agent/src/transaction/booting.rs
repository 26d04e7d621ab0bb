//! Waiting until the machine has finished booting, because it cannot be switched before.
//!
//! Some versions of `switch-to-configuration` wait for the end of the boot, for ever and without a message. A boot that
//! waits for something that the new system does not have, such as a secret that is no longer declared, would never end.

use std::path::Path;
use std::time::{Duration, Instant};

use nixos_agent::EventKind;

use crate::event_log::EventLog;
use crate::program;
use crate::systemd::{self, Job, Mode};

/// How long the jobs of a boot may stay the same where the units that are being started have no limit of time of their
/// own.
const STUCK: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(500);

/// Waits until the machine has finished booting. `Err` names the units that it waits for.
///
/// Units that hold the boot up, and that the new system does not have or has otherwise, are stopped. The switch would
/// stop them too.
pub(super) fn await_end_of_boot(new: &str, limit: Duration, events: &mut EventLog) -> Result<(), String> {
    let start = Instant::now();
    let (mut known, mut last_change) = (vec![], Instant::now());
    while systemd::mode() == Mode::Starting {
        let jobs: Vec<Job> =
            systemd::jobs().into_iter().filter(|job| job.is_running && job.kind == "start").collect();
        if jobs != known {
            let names: Vec<&str> = jobs.iter().map(|job| job.unit.as_str()).collect();
            let line = format!("the machine has not finished booting; it waits for {}", names.join(", "));
            println!("{line}");
            events.add(EventKind::Output(line));
            (known, last_change) = (jobs, Instant::now());
        }
        for job in known.iter().filter(|job| is_replaced(&job.unit, new)) {
            let _ = program::output("systemctl", &["stop", "--no-block", &job.unit]);
        }
        let is_stuck = last_change.elapsed() > STUCK && known.iter().any(|job| has_no_limit(&job.unit));
        if is_stuck || start.elapsed() > limit {
            return Err(systemd::units_waited_for());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Whether a unit is of the system that runs, and the new system does not have it or has another one of that name.
fn is_replaced(unit: &str, new: &str) -> bool {
    let text = |system: &Path| std::fs::read(system.join("etc/systemd/system").join(unit)).ok();
    let running = text(Path::new("/run/current-system"));
    running.is_some() && running != text(Path::new(new))
}

/// Whether systemd would wait for ever until a unit has started.
fn has_no_limit(unit: &str) -> bool {
    let limits = ["-p", "TimeoutStartUSec", "-p", "JobRunningTimeoutUSec", "-p", "JobTimeoutUSec", "--value"];
    let told = program::output("systemctl", &[&["show", unit][..], &limits].concat()).unwrap_or_default();
    told.split_whitespace().all(|limit| limit == "infinity")
}
