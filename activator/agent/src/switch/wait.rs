//! Waiting until a step ends, and stopping it where it never would.

use std::process::Child;
use std::time::{Duration, Instant};

use super::log::{self, new_lines};
use super::printed::Printed;
use super::step::{Exit, StepResult, Watcher, exit_note, unit};
use crate::activation::Activation;
use crate::program;
use crate::systemd::{self, Job, Mode};

/// How often the state of the machine is looked at while the program runs.
const PULSE: Duration = Duration::from_secs(1);
/// How long before the limit the jobs of systemd are looked at. When systemd has ended the program, they are gone.
const NEARLY: Duration = Duration::from_secs(5);
/// How long a program may go on in emergency mode, which it cannot bring a machine out of.
const IN_EMERGENCY: Duration = Duration::from_secs(5);
/// How long a program may print nothing after D-Bus was lost: some versions wait for an answer for ever.
const WITHOUT_BUS: Duration = Duration::from_secs(20);
/// How long a program may print nothing at all while the machine has not finished booting: some versions wait for that.
const WHILE_BOOTING: Duration = Duration::from_secs(30);
/// How long after the limit systemd may take to end the program.
const MARGIN: Duration = Duration::from_mins(1);

/// A step that runs.
pub(super) struct Wait<'a> {
    pub(super) activation: &'a Activation,
    pub(super) step: &'a str,
    pub(super) limit: Duration,
    /// The process, where it runs without a unit.
    pub(super) child: Option<Child>,
    /// The message bus as it was before the step; `None`: there was none.
    pub(super) bus: Option<String>,
    /// How much of the step's log was read.
    pub(super) read: u64,
    pub(super) printed: Printed,
}

impl Wait<'_> {
    pub(super) fn until_the_end(mut self, watcher: &mut dyn Watcher) -> StepResult {
        let start = Instant::now();
        let (mut last_look, mut last_line) = (Instant::now(), Instant::now());
        let (mut in_emergency, mut bus_lost) = (None, None);
        let mut times_gone = 0;
        let mut stopped = None;
        let mut late_jobs = vec![];
        loop {
            let before = self.read;
            self.read_log(false, watcher);
            watcher.tick();
            if self.read > before {
                last_line = Instant::now();
            }
            if let Some(code) = self.exit_code() {
                // The next step has to wait until all processes of this one are gone.
                if self.is_gone() != Some(false) || stopped.is_some() {
                    self.read_log(true, watcher);
                    return StepResult { exit: Exit::Code(code), printed: self.printed, stopped: None };
                }
            } else if last_look.elapsed() >= PULSE {
                last_look = Instant::now();
                // A PID 1 that is executing itself anew answers wrongly for a moment, so two looks in a row have to
                // agree.
                times_gone = if self.is_gone() == Some(true) { times_gone + 1 } else { 0 };
                if times_gone > 1 {
                    self.read_log(true, watcher);
                    let exit = self.exit_code().map_or(Exit::Killed, Exit::Code);
                    let is_late = exit == Exit::Killed && start.elapsed() >= self.limit;
                    let stopped = stopped.or_else(|| is_late.then(|| took_too_long(self.limit, &late_jobs)));
                    return StepResult { exit, printed: self.printed, stopped };
                }
                if start.elapsed() + NEARLY >= self.limit && start.elapsed() < self.limit {
                    late_jobs = systemd::jobs().into_iter().filter(|job| job.is_running).collect();
                }
                let mode = systemd::mode();
                in_emergency = (mode == Mode::Emergency).then(|| in_emergency.unwrap_or_else(Instant::now));
                let is_lost = self.bus.is_some() && message_bus() != self.bus;
                bus_lost = is_lost.then(|| bus_lost.unwrap_or_else(Instant::now));
                let longer_than = |patience: Duration, since: Option<Instant>| {
                    since.is_some_and(|since| since.elapsed() > patience)
                };
                let why = if start.elapsed() > self.limit.saturating_add(MARGIN) {
                    Some(took_too_long(self.limit, &late_jobs))
                } else if longer_than(IN_EMERGENCY, in_emergency) {
                    Some("was stopped: the machine is in emergency mode".to_owned())
                } else if longer_than(WITHOUT_BUS, bus_lost) && last_line.elapsed() > WITHOUT_BUS {
                    Some("was stopped: D-Bus was lost while it ran, and it said nothing any more".to_owned())
                } else if mode == Mode::Starting && !self.printed.anything && start.elapsed() > WHILE_BOOTING
                {
                    Some(format!(
                        "was stopped: it waited for the end of the boot, which waits for {}",
                        systemd::units_waited_for()
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

    /// The exit code that the unit has written down.
    fn exit_code(&self) -> Option<i32> {
        self.activation.read_note(&exit_note(self.step))?.trim().parse().ok()
    }

    /// Whether no process of the step runs any more; `None`: systemd does not say.
    fn is_gone(&mut self) -> Option<bool> {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(status)) => Some(status.is_some()),
            Some(Err(_)) => Some(true),
            None => {
                let alive = systemd::any_unit_is_alive(&[&unit(self.activation, self.step)]);
                alive.ok().map(|alive| !alive)
            }
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
        let unit = unit(self.activation, self.step);
        let _ = program::output("systemctl", &["kill", "--signal=SIGKILL", &unit]);
        let _ = program::output("systemctl", &["stop", "--no-block", &unit]);
    }

    /// Reads what the program has printed since the last time.
    fn read_log(&mut self, at_end: bool, watcher: &mut dyn Watcher) {
        let printed = &mut self.printed;
        let log = log::path(self.activation, self.step);
        self.read = new_lines(&log, self.read, at_end, &mut |line| {
            printed.add(line);
            watcher.line(line);
        });
    }
}

/// Why a step was ended by its limit, with the jobs of systemd that it waited for.
fn took_too_long(limit: Duration, jobs: &[Job]) -> String {
    let names: Vec<String> = jobs.iter().map(|job| format!("{} ({})", job.unit, job.kind)).collect();
    let waited = match names.as_slice() {
        [] => String::new(),
        names => format!("; it waited for {}", names.join(", ")),
    };
    format!("took longer than `activation_timeout` ({} s){waited}", limit.as_secs())
}

/// Identifies the run of the message bus that is active; `None`: no bus is active.
pub(super) fn message_bus() -> Option<String> {
    let show = |unit: &str| {
        program::output("systemctl", &["show", "-p", "ActiveState", "-p", "InvocationID", "--value", unit])
    };
    ["dbus.service", "dbus-broker.service"]
        .iter()
        .filter_map(|unit| show(unit).ok())
        .find(|told| told.lines().any(|state| state == "active"))
}
