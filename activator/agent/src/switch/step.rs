//! One run of `switch-to-configuration`: what is run, and how it ended.

use std::time::Duration;

use super::printed::Printed;
use crate::activation::Activation;

/// The step that only says what would happen.
pub(crate) const DRY: &str = "dry";
/// The step that makes the new system run.
pub(crate) const ACTIVATE: &str = "activate";
/// The step that makes the new system the one that boots.
pub(crate) const BOOT: &str = "boot";
/// The step that brings the old system back.
pub(crate) const BACK: &str = "rollback";
/// The step that makes the old system the one that boots again.
pub(crate) const BOOT_AGAIN: &str = "boot-again";

/// What is to be run: `SYSTEM/bin/switch-to-configuration ACTION`.
pub(crate) struct Step<'a> {
    /// The name of the step within its activation.
    pub(crate) name: &'a str,
    /// The system whose program is run.
    pub(crate) system: &'a str,
    /// The program's argument.
    pub(crate) action: &'a str,
    /// How long the program may take.
    pub(crate) limit: Duration,
    /// Whether the program is run without a unit where systemd starts none. This is for the way back: without a unit is
    /// better than not at all.
    pub(crate) at_any_price: bool,
}

/// How a step ended.
pub(crate) struct StepResult {
    pub(crate) exit: Exit,
    pub(crate) printed: Printed,
    /// Why the program was stopped, or could not be started. It continues a sentence that begins with the program's
    /// name.
    pub(crate) stopped: Option<String>,
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// It was killed, took too long, or its end was not seen.
    Killed,
}

/// Gets told of a step while it runs.
pub(crate) trait Watcher {
    /// The program has printed this line.
    fn line(&mut self, line: &str);
    /// Called some tens of times a second.
    fn tick(&mut self);
}

/// The unit in which a step runs.
pub(super) fn unit(activation: &Activation, step: &str) -> String {
    format!("nixos-agent-switch-{}-{step}.service", activation.id())
}

/// The note with the exit code of a step.
pub(super) fn exit_note(step: &str) -> String {
    format!("{step}.exit")
}

/// Whether a step is part of going back to the old system.
pub(super) fn is_way_back(step: &str) -> bool {
    [BACK, BOOT_AGAIN].contains(&step)
}
