//! Whether a machine can be switched now: it has to have finished booting.
//!
//! Some versions of `switch-to-configuration` wait for the end of the boot, for ever and without a word. A boot that waits for something
//! that the new system does not have, such as a secret that is declared no more, would never end.

use std::path::Path;
use std::time::{Duration, Instant};

use nixos_agent::EventKind;

use super::Transaction;
use crate::host::{self, Job, Mode};

/// How long the jobs of a boot may stay the same, where the units that are being started have no limit of time of their own.
const STUCK: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(500);

impl Transaction<'_> {
    /// Waits until the machine has finished booting. Units that hold it up and that the new system does not have, or has otherwise, are stopped, as the
    /// switch would stop them. `Err` names what it waits for.
    pub(super) fn boot_is_over(&mut self, new: &str) -> Result<(), String> {
        let limit = Duration::from_secs(self.request.activation_timeout_seconds);
        let start = Instant::now();
        let (mut known, mut since) = (vec![], Instant::now());
        while host::mode() == Mode::Starting {
            let jobs: Vec<Job> =
                host::jobs().into_iter().filter(|job| job.is_running && job.kind == "start").collect();
            if jobs != known {
                let names: Vec<&str> = jobs.iter().map(|job| job.unit.as_str()).collect();
                let line = format!("the machine has not finished booting; it waits for {}", names.join(", "));
                println!("{line}");
                self.events.add(EventKind::Output(line));
                (known, since) = (jobs, Instant::now());
            }
            for job in known.iter().filter(|job| is_replaced(&job.unit, new)) {
                let _ = host::output("systemctl", &["stop", "--no-block", &job.unit]);
            }
            let stuck = since.elapsed() > STUCK && known.iter().any(|job| has_no_limit(&job.unit));
            if stuck || start.elapsed() > limit {
                return Err(host::waited_for());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// Whether the new system does not have a unit of the system that runs, or has another one of its name.
fn is_replaced(unit: &str, new: &str) -> bool {
    let text = |system: &Path| std::fs::read(system.join("etc/systemd/system").join(unit)).ok();
    let running = text(Path::new("/run/current-system"));
    running.is_some() && running != text(Path::new(new))
}

fn has_no_limit(unit: &str) -> bool {
    let limits = ["-p", "TimeoutStartUSec", "-p", "JobRunningTimeoutUSec", "-p", "JobTimeoutUSec", "--value"];
    let told = host::output("systemctl", &[&["show", unit][..], &limits].concat()).unwrap_or_default();
    told.split_whitespace().all(|limit| limit == "infinity")
}
