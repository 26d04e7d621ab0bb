//! Running `switch-to-configuration`: as a unit of its own, seen through to its end.
//!
//! A bad system can stop targets, D-Bus and systemd-logind, fill `/run`, or leave PID 1 busy. So the unit depends on nothing that such a
//! system stops, it is started over systemd's own socket and not over D-Bus (`systemd-run` without `--wait`), and how the program ended is
//! what its unit has written down: a program whose end nobody saw counts as killed.

use std::io::Read as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::AgentError;
use crate::files::{Deployment, failed};
use crate::host::{self, Job, Mode};
use crate::said::Said;
use crate::verdict::Exit;

/// Properties of every unit that has to outlive what a bad system does. A file system that cannot be mounted stops `sysinit.target`, and with it
/// everything that depends on it by default.
pub(crate) const OUTLIVES: [&str; 8] = [
    "-p",
    "DefaultDependencies=no",
    "-p",
    "Conflicts=shutdown.target",
    "-p",
    "Before=shutdown.target",
    "-p",
    "IgnoreOnIsolate=yes",
];

/// The same for a timer.
pub(crate) const TIMER_OUTLIVES: [&str; 4] = [
    "--timer-property=DefaultDependencies=no",
    "--timer-property=Conflicts=shutdown.target",
    "--timer-property=Before=shutdown.target",
    "--timer-property=IgnoreOnIsolate=yes",
];

/// How often the state of the machine is looked at while the program runs.
const PULSE: Duration = Duration::from_secs(1);
/// How long before its limit it is looked what a program waits for: it is ended with its limit.
const NEARLY: Duration = Duration::from_secs(5);
/// How long a program may go on in emergency mode, which it cannot bring a machine out of.
const IN_EMERGENCY: Duration = Duration::from_secs(5);
/// How long it may say nothing after D-Bus was lost: some versions wait for an answer for ever.
const WITHOUT_BUS: Duration = Duration::from_secs(20);
/// How long it may say nothing at all while the machine has not finished booting: some versions wait for that.
const WHILE_BOOTING: Duration = Duration::from_secs(30);
/// How long systemd may be busy before a step is run without it.
const WITHOUT_SYSTEMD: Duration = Duration::from_secs(15);
/// How much longer than its limit systemd may take to end a program.
const MARGIN: Duration = Duration::from_mins(1);

/// What is to be run.
pub(crate) struct Step<'a> {
    /// Its name within the activation.
    pub(crate) name: &'a str,
    /// The system whose program it is.
    pub(crate) system: &'a str,
    /// The program's argument.
    pub(crate) action: &'a str,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// Whether it is run without a unit where systemd starts none: to go back is better than not to.
    pub(crate) at_any_price: bool,
}

/// How a step ended.
pub(crate) struct Ran {
    pub(crate) exit: Exit,
    pub(crate) said: Said,
    /// Why it was stopped, or could not be started; as the rest of a sentence about it.
    pub(crate) stopped: Option<String>,
}

/// What is told of a step while it runs.
pub(crate) trait Watcher {
    /// A line that it printed.
    fn line(&mut self, line: &str);
    /// Some tens of times a second.
    fn tick(&mut self) {}
}

/// Where what a step prints goes.
pub(crate) fn log(deployment: &Deployment, step: &str) -> std::path::PathBuf {
    deployment.path(&format!("{step}.log"))
}

fn unit(deployment: &Deployment, step: &str) -> String {
    format!("nixos-agent-switch-{}-{step}.service", deployment.id())
}

/// Runs `SYSTEM/bin/switch-to-configuration ACTION` to its end.
pub(crate) fn run(deployment: &Deployment, step: &Step<'_>, watcher: &mut dyn Watcher) -> Ran {
    let never = |why: String| Ran { exit: Exit::Killed, said: Said::default(), stopped: Some(why) };
    let Ok(own) = host::own() else {
        return never("could not be started: the agent does not know its own path".to_owned());
    };
    if host::any_unit_is_alive(&[&unit(deployment, step.name)]) == Ok(true) {
        // An agent before us began it.
        return take_up(deployment, step.name, step.limit, watcher);
    }
    // Left by the same step of an activation that was interrupted, or of an earlier try.
    deployment.forget(&note(step.name));
    let log = log(deployment, step.name);
    let read = std::fs::metadata(&log).map_or(0, |meta| meta.len());
    let program = format!("{}/bin/switch-to-configuration", step.system);
    let words = ["exec", deployment.id().as_str(), step.name, &program, step.action];
    let append = format!("append:{}", log.display());
    let (stdout, stderr) = (format!("StandardOutput={append}"), format!("StandardError={append}"));
    let limit = format!("RuntimeMaxSec={}", step.limit.as_secs().max(1));
    let start = || {
        let mut command = host::command("systemd-run");
        command
            .args(["--quiet", "--collect", "--no-ask-password", "--service-type=exec"])
            .arg(format!("--unit={}", unit(deployment, step.name)))
            .args(OUTLIVES)
            .args(["-p", "StandardInput=null", "-p", &stdout, "-p", &stderr, "-p", &limit])
            .arg(&own)
            .args(words);
        host::output_of(&mut command, Some(WITHOUT_SYSTEMD))
    };
    let (asked, bus) = (Instant::now(), bus());
    let child = loop {
        match start() {
            Ok(_) => break None,
            // It was asked to, and the answer came too late.
            Err(_) if host::any_unit_is_alive(&[&unit(deployment, step.name)]) == Ok(true) => break None,
            // PID 1 may be starting itself anew.
            Err(_) if asked.elapsed() < WITHOUT_SYSTEMD => std::thread::sleep(Duration::from_millis(300)),
            Err(why) if !step.at_any_price => return never(format!("could not be started: {why}")),
            Err(why) => {
                watcher.line(&format!("systemd starts no unit ({why}): going on without"));
                match by_hand(&own, &words, &log) {
                    Ok(child) => break Some(child),
                    Err(error) => return never(format!("could not be started: {error}")),
                }
            }
        }
    };
    Wait { deployment, step: step.name, limit: step.limit, child, bus, read, said: Said::default() }
        .until_the_end(watcher)
}

/// Waits for a step that an agent before us began. What it has said until now is heard again.
pub(crate) fn take_up(
    deployment: &Deployment,
    step: &str,
    limit: Duration,
    watcher: &mut dyn Watcher,
) -> Ran {
    let text = std::fs::read(log(deployment, step)).unwrap_or_default();
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let said = Said::all(&String::from_utf8_lossy(text.get(..whole).unwrap_or_default()));
    let read = u64::try_from(whole).unwrap_or(0);
    Wait { deployment, step, limit, child: None, bus: bus(), read, said }.until_the_end(watcher)
}

fn by_hand(own: &Path, words: &[&str], log: &Path) -> std::io::Result<Child> {
    let out = std::fs::OpenOptions::new().append(true).create(true).open(log)?;
    let err = out.try_clone()?;
    Command::new(own).args(words).stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).spawn()
}

/// The file with the exit code of a step.
fn note(step: &str) -> String {
    format!("{step}.exit")
}

/// A step that runs.
struct Wait<'a> {
    deployment: &'a Deployment,
    step: &'a str,
    limit: Duration,
    /// Where it runs without a unit.
    child: Option<Child>,
    /// The message bus as it was before; `None` where there was none.
    bus: Option<String>,
    /// How much of its log was read.
    read: u64,
    said: Said,
}

impl Wait<'_> {
    fn until_the_end(mut self, watcher: &mut dyn Watcher) -> Ran {
        let start = Instant::now();
        let (mut looked, mut heard) = (Instant::now(), Instant::now());
        let (mut in_emergency, mut bus_lost) = (None, None);
        let mut gone = 0;
        let mut stopped = None;
        let mut late = vec![];
        loop {
            let before = self.read;
            self.listen(false, watcher);
            watcher.tick();
            if self.read > before {
                heard = Instant::now();
            }
            if let Some(code) = self.code() {
                // Whatever the program has left in its unit has to be gone before the next step.
                if self.is_gone() != Some(false) || stopped.is_some() {
                    self.listen(true, watcher);
                    return Ran { exit: Exit::Code(code), said: self.said, stopped: None };
                }
            } else if looked.elapsed() >= PULSE {
                looked = Instant::now();
                // A manager that is being replaced answers wrongly for a moment: only the second look in a row counts.
                gone = if self.is_gone() == Some(true) { gone + 1 } else { 0 };
                if gone > 1 {
                    self.listen(true, watcher);
                    let exit = self.code().map_or(Exit::Killed, Exit::Code);
                    // systemd has ended it.
                    let is_late = exit == Exit::Killed && start.elapsed() >= self.limit;
                    let stopped = stopped.or_else(|| is_late.then(|| took_too_long(self.limit, &late)));
                    return Ran { exit, said: self.said, stopped };
                }
                if start.elapsed() + NEARLY >= self.limit && start.elapsed() < self.limit {
                    late = host::jobs().into_iter().filter(|job| job.is_running).collect();
                }
                let mode = host::mode();
                in_emergency = (mode == Mode::Emergency).then(|| in_emergency.unwrap_or_else(Instant::now));
                let is_lost = self.bus.is_some() && bus() != self.bus;
                bus_lost = is_lost.then(|| bus_lost.unwrap_or_else(Instant::now));
                let long = |since: Option<Instant>, patience: Duration| {
                    since.is_some_and(|since| since.elapsed() > patience)
                };
                let why = if start.elapsed() > self.limit.saturating_add(MARGIN) {
                    Some(took_too_long(self.limit, &late))
                } else if long(in_emergency, IN_EMERGENCY) {
                    Some("was stopped: the machine is in emergency mode".to_owned())
                } else if long(bus_lost, WITHOUT_BUS) && heard.elapsed() > WITHOUT_BUS {
                    Some("was stopped: D-Bus was lost while it ran, and it said nothing any more".to_owned())
                } else if mode == Mode::Starting && !self.said.anything && start.elapsed() > WHILE_BOOTING {
                    Some(format!(
                        "was stopped: it waited for the end of the boot, which waits for {}",
                        host::waited_for()
                    ))
                } else {
                    None
                };
                if let Some(why) = why.filter(|_| stopped.is_none()) {
                    self.stop();
                    stopped = Some(why);
                }
            }
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn code(&self) -> Option<i32> {
        self.deployment.find(&note(self.step))?.trim().parse().ok()
    }

    /// Whether nothing of it runs any more; `None` where systemd does not say.
    fn is_gone(&mut self) -> Option<bool> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(status)) => Some(status.is_some()),
            Some(Err(_)) => Some(true),
            None => host::any_unit_is_alive(&[&unit(self.deployment, self.step)]).ok().map(|alive| !alive),
        }
    }

    fn stop(&mut self) {
        if let Some(child) = &mut self.child {
            let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
            if let Some(group) = group {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            return;
        }
        let unit = unit(self.deployment, self.step);
        let _ = host::output("systemctl", &["kill", "--signal=SIGKILL", &unit]);
        let _ = host::output("systemctl", &["stop", "--no-block", &unit]);
    }

    /// Takes in whole lines, or at the end what is left.
    fn listen(&mut self, at_end: bool, watcher: &mut dyn Watcher) {
        let said = &mut self.said;
        self.read = new_lines(&log(self.deployment, self.step), self.read, at_end, &mut |line| {
            said.hear(line);
            watcher.line(line);
        });
    }
}

/// What a step did that was ended because of its limit, and the jobs of systemd that it waited for.
fn took_too_long(limit: Duration, jobs: &[Job]) -> String {
    let names: Vec<String> = jobs.iter().map(|job| format!("{} ({})", job.unit, job.kind)).collect();
    let waited = match names.as_slice() {
        [] => String::new(),
        names => format!("; it waited for {}", names.join(", ")),
    };
    format!("took longer than `activation_timeout` ({} s){waited}", limit.as_secs())
}

/// Which start of the message bus runs; `None` where none does.
fn bus() -> Option<String> {
    let show = |unit: &str| {
        host::output("systemctl", &["show", "-p", "ActiveState", "-p", "InvocationID", "--value", unit])
    };
    ["dbus.service", "dbus-broker.service"]
        .iter()
        .filter_map(|unit| show(unit).ok())
        .find(|told| told.lines().any(|state| state == "active"))
}

/// Reads whole lines (or, at the end, what is left) from an offset on, and returns the next offset.
fn new_lines(log: &Path, offset: u64, at_end: bool, on_line: &mut dyn FnMut(&str)) -> u64 {
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
    String::from_utf8_lossy(text).lines().for_each(on_line);
    offset + u64::try_from(whole).unwrap_or(0)
}

/// Inside the unit of a step: runs the program and writes down how it ended, which systemd does not tell apart well enough.
pub(crate) fn execute(
    deployment: &Deployment,
    step: &str,
    program: &str,
    action: &str,
) -> Result<i32, AgentError> {
    let mut command = host::command(program);
    command.arg(action).current_dir("/").envs(&deployment.request()?.switch_environment);
    if is_way_back(step) {
        // What ran before may run again, whatever its own checks say of the way there.
        command.env("NIXOS_NO_CHECK", "1");
    }
    let status = command.status().map_err(failed(program))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    deployment.leave(&note(step), code.to_string().as_bytes())?;
    Ok(code)
}

/// The step that makes the new system run.
pub(crate) const ACTIVATE: &str = "activate";
/// The step that brings the old system back.
pub(crate) const BACK: &str = "rollback";
/// The step that makes the old system the one that boots again.
pub(crate) const BOOT_AGAIN: &str = "boot-again";

fn is_way_back(step: &str) -> bool {
    [BACK, BOOT_AGAIN].contains(&step)
}
