//! The machine: its systems, units and programs. Thin; every decision is made elsewhere.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nixos_agent::SystemState;

use crate::AgentError;
use crate::files::{Deployment, failed, replace};
use crate::verdict::Exit;

pub(crate) const PROFILE: &str = "/nix/var/nix/profiles/system";
const ROOTS: &str = "/nix/var/nix/gcroots/nixos-agent";

/// Holds the path of a system that the profile may point at although it does not boot. A plan reads it too.
const UNCOMMITTED: &str = "/var/lib/nixos-agent/uncommitted";

/// A program of the machine, with nothing on standard input. A login by SSH often has a meagre PATH.
pub(crate) fn command(program: &str) -> Command {
    const ALSO: &str =
        "/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:{ALSO}")).stdin(Stdio::null());
    command
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

/// Where generations that an agent made are written down, one number a line.
const OWN_GENERATIONS: &str = "/var/lib/nixos-agent/generations";

/// Writes down that the profile's generation was made by an agent, and removes the oldest of those so that `keep` stay. Never
/// touches the ones in `needed`, nor one that leads to what the machine runs or was booted with.
pub(crate) fn prune(keep: Option<usize>, needed: &[u64]) -> Result<(), String> {
    let existing = generations();
    let text = std::fs::read_to_string(OWN_GENERATIONS).unwrap_or_default();
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
    replace(Path::new(OWN_GENERATIONS), lines.as_bytes(), 0o644).map_err(|error| error.to_string())
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    match command(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{program}: {error}")),
    }
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

/// The units that have failed; `None` when systemd does not say.
pub(crate) fn failed_units() -> Option<Vec<String>> {
    let text = output(
        "systemctl",
        &["list-units", "--state=failed,auto-restart", "--plain", "--no-legend", "--no-pager"],
    );
    Some(text.ok()?.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
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

/// The unit of a step.
fn switch_unit(deployment: &Deployment, step: &str) -> String {
    format!("nixos-agent-switch-{}-{step}.service", deployment.id())
}

/// Runs `SYSTEM/bin/switch-to-configuration ACTION` as a unit of its own: it outlives us, and nothing it restarts is ours.
/// Lines it prints go to `on_line`.
pub(crate) fn switch(
    deployment: &Deployment,
    step: &str,
    system: &str,
    action: &str,
    limit: Duration,
    on_line: &mut dyn FnMut(String),
) -> Exit {
    let Ok(own) = std::env::current_exe() else {
        return Exit::Killed;
    };
    let log = deployment.path("output.log");
    // Left by the same step of an activation that was interrupted.
    let _ = std::fs::remove_file(deployment.volatile(&format!("{step}.exit")));
    let read = std::fs::metadata(&log).map_or(0, |meta| meta.len());
    let append = format!("append:{}", log.display());
    let started = command("systemd-run")
        .args(["--quiet", "--collect", "--wait", "--no-ask-password", "--service-type=exec"])
        .arg(format!("--unit={}", switch_unit(deployment, step)))
        .args(["-p", "StandardInput=null", "-p", "IgnoreOnIsolate=yes"])
        .args(["-p", &format!("StandardOutput={append}"), "-p", &format!("StandardError={append}")])
        .args(["-p", &format!("RuntimeMaxSec={}", limit.as_secs().max(1))])
        .args(
            std::env::var("LOCALE_ARCHIVE").ok().map(|archive| format!("--setenv=LOCALE_ARCHIVE={archive}")),
        )
        .arg(own)
        .args(["exec", deployment.id().as_str(), step])
        .args([format!("{system}/bin/switch-to-configuration").as_str(), action])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    match started {
        Ok(child) => wait(deployment, step, Some(child), read, on_line),
        Err(error) => {
            on_line(format!("systemd-run: {error}"));
            Exit::Killed
        }
    }
}

/// Waits for a step that an agent before us began.
pub(crate) fn take_up(deployment: &Deployment, step: &str, on_line: &mut dyn FnMut(String)) -> Exit {
    let read = std::fs::metadata(deployment.path("output.log")).map_or(0, |meta| meta.len());
    wait(deployment, step, None, read, on_line)
}

fn wait(
    deployment: &Deployment,
    step: &str,
    mut child: Option<std::process::Child>,
    mut read: u64,
    on_line: &mut dyn FnMut(String),
) -> Exit {
    let (log, unit) = (deployment.path("output.log"), switch_unit(deployment, step));
    // `systemd-run` may go before the unit does, when it loses its connection to a manager that is replaced meanwhile.
    let status = loop {
        match child.as_mut().map(std::process::Child::try_wait) {
            Some(Ok(None)) => {}
            Some(Err(_)) => break None,
            Some(Ok(status)) if any_unit_is_alive(&[&unit]) == Ok(false) => break status,
            None if any_unit_is_alive(&[&unit]) == Ok(false) => break None,
            Some(Ok(_)) | None => std::thread::sleep(Duration::from_millis(200)),
        }
        read = new_lines(&log, read, false, on_line);
        std::thread::sleep(Duration::from_millis(30));
    };
    new_lines(&log, read, true, on_line);
    let noted = std::fs::read_to_string(deployment.volatile(&format!("{step}.exit")));
    if let Some(code) = noted.ok().and_then(|code| code.trim().parse().ok()) {
        return Exit::Code(code);
    }
    if let Some(mut stderr) = child.and_then(|mut child| child.stderr.take()) {
        let mut text = String::new();
        let _ = stderr.read_to_string(&mut text);
        text.lines().for_each(|line| on_line(line.to_owned()));
    }
    // 1 is also what it says when it could not do its own part.
    status.and_then(|status| status.code()).filter(|code| *code != 1).map_or(Exit::Killed, Exit::Code)
}

/// Makes systemd end the activation if nobody else does within `limit`.
pub(crate) fn arm(deployment: &Deployment, limit: Duration) -> Result<(), String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let own = own.to_str().ok_or("the agent's path is not text")?;
    let unit = format!("--unit=nixos-agent-rescue-{}", deployment.id());
    let after = format!("--on-active={}", limit.as_secs());
    let fixed = ["--quiet", "--collect", "--no-ask-password", "--timer-property=AccuracySec=1s"];
    let what = [&unit, &after, "-p", "IgnoreOnIsolate=yes", own, "rescue", deployment.id().as_str()];
    output("systemd-run", &[&fixed[..], &what].concat()).map(drop)
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

/// Reads whole lines (or, at the end, what is left) from an offset on, and returns the next offset.
fn new_lines(log: &Path, offset: u64, at_end: bool, on_line: &mut dyn FnMut(String)) -> u64 {
    use std::io::{Seek as _, SeekFrom};
    let mut bytes = Vec::new();
    let read = std::fs::File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)
    });
    if read.is_err() {
        return offset;
    }
    let whole =
        if at_end { bytes.len() } else { bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |n| n + 1) };
    let text = bytes.get(..whole).unwrap_or_default();
    String::from_utf8_lossy(text).lines().for_each(|line| on_line(line.to_owned()));
    offset + u64::try_from(whole).unwrap_or(0)
}

/// Inside that unit: runs the program and writes down how it ended, which systemd does not tell apart well enough.
pub(crate) fn execute(
    deployment: &Deployment,
    step: &str,
    program: &str,
    action: &str,
) -> Result<i32, AgentError> {
    let status = command(program).arg(action).current_dir("/").status().map_err(failed(program))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    replace(&deployment.volatile(&format!("{step}.exit")), code.to_string().as_bytes(), 0o600)?;
    Ok(code)
}
