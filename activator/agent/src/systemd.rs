//! What systemd says of this machine's units.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::program;

/// Properties of every unit of the agent that has to survive what a bad system does.
///
/// A file system that cannot be mounted stops `sysinit.target`, and with it every unit with the default dependencies.
pub(crate) const SURVIVES: [&str; 8] = [
    "-p",
    "DefaultDependencies=no",
    "-p",
    "Conflicts=shutdown.target",
    "-p",
    "Before=shutdown.target",
    "-p",
    "IgnoreOnIsolate=yes",
];

/// The same properties for a timer.
pub(crate) const TIMER_SURVIVES: [&str; 4] = [
    "--timer-property=DefaultDependencies=no",
    "--timer-property=Conflicts=shutdown.target",
    "--timer-property=Before=shutdown.target",
    "--timer-property=IgnoreOnIsolate=yes",
];

/// The states of a machine's units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Units {
    /// Units that have failed, or that systemd starts again and again.
    pub(crate) failed: Vec<String>,
    /// Units that are active.
    pub(crate) active: Vec<String>,
}

/// The units that have failed, and those that are active; `None`: systemd does not say.
pub(crate) fn units() -> Option<Units> {
    let list = ["list-units", "--all", "--plain", "--no-legend", "--no-pager"];
    let text = program::output("systemctl", &list).ok()?;
    let mut units = Units::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some(active), Some(sub)) = (words.next(), words.nth(1), words.next()) else {
            continue;
        };
        match (active, sub) {
            ("failed", _) | (_, "auto-restart") => units.failed.push(name.to_owned()),
            ("active" | "reloading", _) => units.active.push(name.to_owned()),
            _ => {}
        }
    }
    Some(units)
}

/// Whether a unit whose name matches one of these patterns is active, becoming active or not quite stopped.
pub(crate) fn any_unit_is_alive(patterns: &[&str]) -> Result<bool, String> {
    let list = [
        "list-units",
        "--state=active,activating,deactivating,reloading",
        "--plain",
        "--no-legend",
        "--no-pager",
    ];
    Ok(!program::output("systemctl", &[&list[..], patterns].concat())?.trim().is_empty())
}

/// What systemd says of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// How often systemd has started it again by itself since its last ordinary start.
    pub(crate) restarts: u32,
    /// Whether systemd starts it again when it ends.
    pub(crate) is_restarted: bool,
    /// When it became active, in [`monotonic`] time.
    pub(crate) active_since: Duration,
}

/// What systemd says of those of these units that are services and that it knows.
pub(crate) fn services(units: &[&str]) -> BTreeMap<String, Service> {
    let services: Vec<&str> = units.iter().copied().filter(|unit| unit.ends_with(".service")).collect();
    if services.is_empty() {
        return BTreeMap::new();
    }
    let properties = "Id,NRestarts,Restart,ActiveEnterTimestampMonotonic";
    let text =
        program::output("systemctl", &[&["show", "-p", properties, "--"], services.as_slice()].concat());
    let of_one = |block: &str| {
        let value = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let service = Service {
            restarts: value("NRestarts")?.parse().ok()?,
            is_restarted: value("Restart").is_some_and(|policy| policy != "no"),
            active_since: Duration::from_micros(value("ActiveEnterTimestampMonotonic")?.parse().ok()?),
        };
        Some((value("Id")?.to_owned(), service))
    };
    text.unwrap_or_default().split("\n\n").filter_map(of_one).collect()
}

/// When a unit became active, in microseconds of [`monotonic`] time; `None`: it is not active.
pub(crate) fn active_since(unit: &str) -> Option<u64> {
    let show = ["show", "-p", "ActiveState,ActiveEnterTimestampMonotonic", unit];
    let text = program::output("systemctl", &show).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    (value("ActiveState") == Some("active")).then_some(())?;
    value("ActiveEnterTimestampMonotonic")?.parse().ok()
}

/// Time since boot, as systemd counts it.
pub(crate) fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The state of the machine as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It has booted and runs, perhaps with units that have failed.
    Running,
    /// It has not finished booting.
    Starting,
    /// It is in emergency or rescue mode: nothing runs but a shell for an administrator.
    Emergency,
    /// It shuts down.
    Stopping,
    /// systemd does not say.
    Unknown,
}

/// The state of the machine. systemd is asked over its own socket, so this works without D-Bus.
pub(crate) fn mode() -> Mode {
    const PATIENCE: Duration = Duration::from_secs(10);
    // The exit code is ignored: it tells only whether the state is `running`.
    let answer = program::run_within(program::command("systemctl").arg("is-system-running"), PATIENCE);
    let state = answer.ok().flatten().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    match state.as_deref() {
        Some("running" | "degraded") => Mode::Running,
        Some("initializing" | "starting") => Mode::Starting,
        Some("maintenance") => Mode::Emergency,
        Some("stopping") => Mode::Stopping,
        _ => Mode::Unknown,
    }
}

/// A job of systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// The unit that the job starts, stops, ….
    pub(crate) unit: String,
    /// `start`, `stop`, …
    pub(crate) kind: String,
    /// Whether the job is at work; else it waits for another job.
    pub(crate) is_running: bool,
}

/// All jobs of systemd.
pub(crate) fn jobs() -> Vec<Job> {
    let list = ["list-jobs", "--plain", "--no-legend", "--no-pager"];
    let text = program::output("systemctl", &list).unwrap_or_default();
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, unit, kind, state] = words[..] else { return None };
        Some(Job { unit: unit.to_owned(), kind: kind.to_owned(), is_running: state == "running" })
    };
    text.lines().filter_map(parse).collect()
}

/// The units whose jobs are at work, as a part of a sentence.
pub(crate) fn units_waited_for() -> String {
    let names: Vec<String> = jobs().into_iter().filter(|job| job.is_running).map(|job| job.unit).collect();
    if names.is_empty() { "nothing that systemd names".to_owned() } else { names.join(", ") }
}

/// Runs `systemctl`, a second time where it fails: systemd's own socket may be gone for a moment.
pub(crate) fn systemctl(words: &[&str]) -> Result<String, String> {
    const ANSWER: Duration = Duration::from_secs(90);
    let ask = || program::output_within(program::command("systemctl").args(words), ANSWER);
    ask().or_else(|_| {
        std::thread::sleep(Duration::from_secs(2));
        ask()
    })
}
