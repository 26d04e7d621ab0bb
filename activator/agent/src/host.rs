//! The machine: its systems, units and programs. Thin; every decision is made elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nixos_agent::{DeploymentId, PUSHED, ROOTS, SystemState};

use crate::AgentError;
use crate::files::{Deployment, failed, replace};
use crate::switch::{OUTLIVES, TIMER_OUTLIVES};
use crate::verdict::Units;

pub(crate) const PROFILE: &str = "/nix/var/nix/profiles/system";

/// Holds the path of a system that the profile may point at although it does not boot. A plan reads it too.
const UNCOMMITTED: &str = "/var/lib/nixos-agent/uncommitted";

/// A line: the deployment that has activated a system here last, and that system. The facts of a machine are read from it.
const DEPLOYED: &str = "/var/lib/nixos-agent/deployed";

/// A program of the machine, with nothing on standard input, in the language that it was written in: what it says is read. A
/// login by SSH often has a meagre PATH.
pub(crate) fn command(program: &str) -> Command {
    const ALSO: &str =
        "/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:{ALSO}")).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// The agent's own program, also where its file was removed while it runs.
pub(crate) fn own() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(if own.exists() { own } else { format!("/proc/{}/exe", std::process::id()).into() })
}

/// What the machine runs.
pub(crate) fn state() -> SystemState {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    SystemState {
        current: resolve("/run/current-system"),
        booted: resolve("/run/booted-system"),
        profile: resolve(PROFILE),
        generation: generation().filter(|_| !is_uncommitted()),
        boot_id: text("/proc/sys/kernel/random/boot_id"),
    }
}

fn resolve(link: &str) -> Option<String> {
    std::fs::canonicalize(link).ok()?.to_str().map(str::to_owned)
}

/// The number of the profile's generation, whether it boots or not.
pub(crate) fn generation() -> Option<u64> {
    let link = std::fs::read_link(PROFILE).ok()?;
    link.file_name()?.to_str()?.strip_prefix("system-")?.strip_suffix("-link")?.parse().ok()
}

/// The numbers of all generations of the profile.
pub(crate) fn generations() -> Vec<u64> {
    let directory = Path::new(PROFILE).parent().and_then(|profiles| std::fs::read_dir(profiles).ok());
    let number = |name: &str| name.strip_prefix("system-")?.strip_suffix("-link")?.parse().ok();
    directory
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| number(entry.file_name().to_str()?))
        .collect()
}

/// Where generations that an agent made are written down, one number a line: beside the profile, because a machine whose root is
/// wiped at every boot keeps the one where it keeps the other.
const OWN_GENERATIONS: &str = "/nix/var/nixos-agent/generations";
/// Where they were written down before.
const OLD_GENERATIONS: &str = "/var/lib/nixos-agent/generations";

/// Writes down that the profile's generation was made by an agent, and removes the oldest of those so that `keep` stay. Never
/// touches the ones in `needed`, nor one that leads to what the machine runs or was booted with.
pub(crate) fn prune(keep: Option<usize>, needed: &[u64]) -> Result<(), String> {
    let existing = generations();
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let text = read(OLD_GENERATIONS) + &read(OWN_GENERATIONS);
    let mut own: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).chain(generation()).collect();
    own.retain(|number| existing.contains(number));
    own.sort_unstable();
    own.dedup();
    let state = state();
    let in_use = |number: &u64| {
        let leads_to = resolve(&format!("{PROFILE}-{number}-link"));
        needed.contains(number) || leads_to == state.current || leads_to == state.booted
    };
    let surplus = keep.map_or(0, |keep| own.len().saturating_sub(keep));
    let gone: Vec<String> =
        own.iter().take(surplus).filter(|number| !in_use(number)).map(u64::to_string).collect();
    if !gone.is_empty() {
        let fixed = ["-p", PROFILE, "--delete-generations"];
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        output("nix-env", &[&fixed[..], &gone].concat())?;
    }
    let lines: String =
        own.iter().filter(|number| !gone.contains(&number.to_string())).map(|n| format!("{n}\n")).collect();
    let file = Path::new(OWN_GENERATIONS);
    std::fs::create_dir_all(file.parent().unwrap_or(file)).map_err(|error| error.to_string())?;
    replace(file, lines.as_bytes(), 0o644).map_err(|error| error.to_string())?;
    let _ = std::fs::remove_file(OLD_GENERATIONS);
    Ok(())
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    output_of(command(program).args(arguments), None)
}

/// The same for a command that may take `limit` and is killed then.
pub(crate) fn output_of(command: &mut Command, limit: Option<Duration>) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match finished(command, limit) {
        Ok(Some(output)) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Ok(Some(output)) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Ok(None) => Err(format!("{program}: no answer within {} s", limit.unwrap_or_default().as_secs())),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// `None`: it was killed because it took too long. What it prints has to fit into a pipe where there is a limit.
fn finished(command: &mut Command, limit: Option<Duration>) -> std::io::Result<Option<Output>> {
    let Some(limit) = limit else {
        return command.output().map(Some);
    };
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() >= limit {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().map(Some)
}

/// Whether the profile's system may not be the one that boots: the machine died between the two, or the boot loader failed.
pub(crate) fn is_uncommitted() -> bool {
    let marked = std::fs::read_to_string(UNCOMMITTED).ok();
    marked.is_some_and(|marked| resolve(PROFILE).as_deref() == Some(marked.trim()))
}

/// Writes down that the profile is about to point at a system that does not boot yet.
pub(crate) fn mark_uncommitted(system: &str) -> Result<(), AgentError> {
    replace(Path::new(UNCOMMITTED), system.as_bytes(), 0o644)
}

/// Forgets that again: profile and boot loader agree.
pub(crate) fn mark_committed() {
    let _ = std::fs::remove_file(UNCOMMITTED);
}

/// Writes down which deployment has put which system here, for other deployments of this machine. Anyone may read it.
pub(crate) fn mark_deployed(deployment: &DeploymentId, system: &str) -> Result<(), AgentError> {
    replace(Path::new(DEPLOYED), format!("{deployment} {system}\n").as_bytes(), 0o644)
}

/// The units that have failed, and those that are active; `None` when systemd does not say.
pub(crate) fn units() -> Option<Units> {
    let text = output("systemctl", &["list-units", "--all", "--plain", "--no-legend", "--no-pager"]).ok()?;
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

/// What systemd says of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    /// How often systemd has started it again by itself since it was last told to.
    pub(crate) restarts: u32,
    /// Whether systemd starts it again when it ends.
    pub(crate) is_restarted: bool,
    /// When it became active, in [`monotonic`] time.
    pub(crate) active_since: Duration,
}

/// What systemd says of these services. Those that it does not know are left out, and so are units of other kinds.
pub(crate) fn services(units: &[&str]) -> BTreeMap<String, Service> {
    let services: Vec<&str> = units.iter().copied().filter(|unit| unit.ends_with(".service")).collect();
    if services.is_empty() {
        return BTreeMap::new();
    }
    let properties = "Id,NRestarts,Restart,ActiveEnterTimestampMonotonic";
    let text = output("systemctl", &[&["show", "-p", properties, "--"], services.as_slice()].concat());
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

/// What a machine is about, in systemd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It does its work, perhaps with units that have failed.
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

/// Asks systemd, over its own socket.
pub(crate) fn mode() -> Mode {
    const PATIENCE: Duration = Duration::from_secs(10);
    // Its exit code says that not all is well.
    let answer = finished(command("systemctl").arg("is-system-running"), Some(PATIENCE));
    match answer
        .ok()
        .flatten()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .as_deref()
    {
        Some("running" | "degraded") => Mode::Running,
        Some("initializing" | "starting") => Mode::Starting,
        Some("maintenance") => Mode::Emergency,
        Some("stopping") => Mode::Stopping,
        _ => Mode::Unknown,
    }
}

/// The units whose jobs are at work, in words.
pub(crate) fn waited_for() -> String {
    let names: Vec<String> = jobs().into_iter().filter(|job| job.is_running).map(|job| job.unit).collect();
    if names.is_empty() { "nothing that systemd names".to_owned() } else { names.join(", ") }
}

/// A job of systemd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// The unit it is about.
    pub(crate) unit: String,
    /// `start`, `stop`, …
    pub(crate) kind: String,
    /// Whether it is at work, as opposed to waiting for another one.
    pub(crate) is_running: bool,
}

/// All jobs of systemd.
pub(crate) fn jobs() -> Vec<Job> {
    let text =
        output("systemctl", &["list-jobs", "--plain", "--no-legend", "--no-pager"]).unwrap_or_default();
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, unit, kind, state] = words[..] else { return None };
        Some(Job { unit: unit.to_owned(), kind: kind.to_owned(), is_running: state == "running" })
    };
    text.lines().filter_map(parse).collect()
}

/// The last lines that a unit wrote to the journal since it was started last, and what systemd said of it. Not by time: the clock may
/// have been set.
pub(crate) fn journal(unit: &str) -> Vec<String> {
    let started = output("systemctl", &["show", "-p", "InvocationID", "--value", unit]).unwrap_or_default();
    let (by_it, about_it) =
        (format!("_SYSTEMD_INVOCATION_ID={}", started.trim()), format!("INVOCATION_ID={}", started.trim()));
    // What could not be started has none.
    let lines: &[&str] =
        if started.trim().is_empty() { &["-b", "-u", unit] } else { &[&by_it, "+", &about_it] };
    output("journalctl", &[lines, &["-n", "20", "-o", "cat", "--no-pager", "-q"]].concat())
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Time since boot, as systemd counts it.
pub(crate) fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// When a unit became active, in microseconds of [`monotonic`] time; `None`: it is not.
pub(crate) fn active_since(unit: &str) -> Option<u64> {
    let text =
        output("systemctl", &["show", "-p", "ActiveState,ActiveEnterTimestampMonotonic", unit]).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    (value("ActiveState") == Some("active")).then_some(())?;
    value("ActiveEnterTimestampMonotonic")?.parse().ok()
}

/// Whether a unit whose name matches one of these patterns runs, is about to, or is not quite gone.
pub(crate) fn any_unit_is_alive(patterns: &[&str]) -> Result<bool, String> {
    let fixed = [
        "list-units",
        "--state=active,activating,deactivating,reloading",
        "--plain",
        "--no-legend",
        "--no-pager",
    ];
    Ok(!output("systemctl", &[&fixed[..], patterns].concat())?.trim().is_empty())
}

/// Keeps a store path from the garbage collector under a name.
pub(crate) fn keep(name: &str, path: &str) -> Result<(), AgentError> {
    let link = Path::new(ROOTS).join(name);
    let new = Path::new(ROOTS).join(format!(".{name}.new"));
    let make = || {
        std::fs::create_dir_all(ROOTS)?;
        let _ = std::fs::remove_file(&new);
        std::os::unix::fs::symlink(path, &new)?;
        std::fs::rename(&new, &link)
    };
    make().map_err(failed(&link.display().to_string()))
}

/// Gives up what was pushed and not activated: something else is, or it is kept by another name.
pub(crate) fn give_up_pushed() {
    let _ = std::fs::remove_file(PUSHED);
}

/// Makes systemd end the activation if nobody else does within `limit`.
pub(crate) fn arm(deployment: &Deployment, limit: Duration) -> Result<(), String> {
    let own = own().map_err(|error| error.to_string())?;
    let own = own.to_str().ok_or("the agent's path is not text")?;
    let unit = format!("--unit=nixos-agent-rescue-{}", deployment.id());
    let after = format!("--on-active={}", limit.as_secs());
    let fixed = ["--quiet", "--collect", "--no-ask-password", "--timer-property=AccuracySec=1s"];
    let what = [unit.as_str(), &after];
    let does = [own, "rescue", deployment.id().as_str()];
    output("systemd-run", &[&fixed[..], &what, &TIMER_OUTLIVES, &OUTLIVES, &does].concat()).map(drop)
}

/// Takes back what `arm` did, for this activation and for any before it: whoever holds the lock answers for the machine.
pub(crate) fn disarm() {
    let _ = output("systemctl", &["stop", "nixos-agent-rescue-*.timer"]);
}

/// Stops what is left of an activation.
pub(crate) fn stop(deployment: &Deployment) {
    let id = deployment.id();
    let units = [format!("nixos-agent-{id}.service"), format!("nixos-agent-switch-{id}-*")];
    let _ = output("systemctl", &["stop", &units[0], &units[1]]);
}
