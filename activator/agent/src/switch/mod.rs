//! Running `switch-to-configuration`: in a unit of its own, and seen through to its end.
//!
//! A bad system can stop targets, D-Bus and systemd-logind, fill `/run`, or leave PID 1 busy. So nothing that such a
//! system stops stops the unit. The unit is started over systemd's own socket and not over D-Bus (`systemd-run` without
//! `--wait`). And the unit itself writes down the exit code of the program: a program that left no exit code counts as
//! killed.

mod execute;
mod log;
mod pending;
mod printed;
mod step;
mod verdict;
mod wait;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) use execute::execute;
pub(crate) use log::tail;
pub(crate) use pending::forget_missing_units;
pub(crate) use printed::Printed;
pub(crate) use step::{ACTIVATE, BACK, BOOT, BOOT_AGAIN, DRY, Exit, Step, StepResult, Watcher};
pub(crate) use verdict::{Evidence, Runs, Verdict, judge};

use crate::activation::Activation;
use crate::program;
use crate::systemd::{self, SURVIVES};
use step::{exit_note, unit};
use wait::{Wait, message_bus};

/// How long systemd may be busy before a step is run without it.
const WITHOUT_SYSTEMD: Duration = Duration::from_secs(15);

/// Runs a step to its end.
pub(crate) fn run(activation: &Activation, step: &Step<'_>, watcher: &mut dyn Watcher) -> StepResult {
    let not_started = |why: String| StepResult {
        exit: Exit::Killed,
        printed: Printed::default(),
        stopped: Some(format!("could not be started: {why}")),
    };
    let Ok(own) = program::own() else {
        return not_started("the agent does not know its own path".to_owned());
    };
    if systemd::any_unit_is_alive(&[&unit(activation, step.name)]) == Ok(true) {
        // An agent that was killed has begun it.
        return resume(activation, step.name, step.limit, watcher);
    }
    // An earlier try of the same step may have left its exit code.
    activation.remove_note(&exit_note(step.name));
    let log = log::path(activation, step.name);
    let read = std::fs::metadata(&log).map_or(0, |meta| meta.len());
    let program = format!("{}/bin/switch-to-configuration", step.system);
    let words = ["exec", activation.id().as_str(), step.name, &program, step.action];
    let append = format!("append:{}", log.display());
    let (stdout, stderr) = (format!("StandardOutput={append}"), format!("StandardError={append}"));
    let limit = format!("RuntimeMaxSec={}", step.limit.as_secs().max(1));
    let start = || {
        let mut command = program::command("systemd-run");
        command
            .args(["--quiet", "--collect", "--no-ask-password", "--service-type=exec"])
            .arg(format!("--unit={}", unit(activation, step.name)))
            .args(SURVIVES)
            .args(["-p", "StandardInput=null", "-p", &stdout, "-p", &stderr, "-p", &limit])
            .arg(&own)
            .args(words);
        program::output_within(&mut command, WITHOUT_SYSTEMD)
    };
    let (asked, bus) = (Instant::now(), message_bus());
    let child = loop {
        match start() {
            Ok(_) => break None,
            // systemd has started it, and its answer came too late.
            Err(_) if systemd::any_unit_is_alive(&[&unit(activation, step.name)]) == Ok(true) => break None,
            // PID 1 may be executing itself anew.
            Err(_) if asked.elapsed() < WITHOUT_SYSTEMD => std::thread::sleep(Duration::from_millis(300)),
            Err(why) if !step.at_any_price => return not_started(why),
            Err(why) => {
                watcher.line(&format!("systemd starts no unit ({why}): going on without one"));
                match start_without_unit(&own, &words, &log) {
                    Ok(child) => break Some(child),
                    Err(error) => return not_started(error.to_string()),
                }
            }
        }
    };
    Wait { activation, step: step.name, limit: step.limit, child, bus, read, printed: Printed::default() }
        .until_the_end(watcher)
}

/// Waits for a step that an agent has begun that was killed. What the step has printed until now counts too.
pub(crate) fn resume(
    activation: &Activation,
    step: &str,
    limit: Duration,
    watcher: &mut dyn Watcher,
) -> StepResult {
    let text = std::fs::read(log::path(activation, step)).unwrap_or_default();
    let end = log::whole_lines(&text);
    let printed = Printed::of(&String::from_utf8_lossy(text.get(..end).unwrap_or_default()));
    let read = u64::try_from(end).unwrap_or(0);
    Wait { activation, step, limit, child: None, bus: message_bus(), read, printed }.until_the_end(watcher)
}

fn start_without_unit(own: &Path, words: &[&str], log: &Path) -> std::io::Result<Child> {
    let out = std::fs::OpenOptions::new().append(true).create(true).open(log)?;
    let err = out.try_clone()?;
    Command::new(own).args(words).stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).spawn()
}
