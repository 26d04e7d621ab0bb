//! Inside the unit of a step: runs the program and writes down how it ended.
//!
//! systemd does not tell well enough how a unit has ended, and forgets the unit soon.

use std::os::unix::process::ExitStatusExt as _;

use super::step::{exit_note, is_way_back};
use crate::activation::Activation;
use crate::error::{AgentError, io_error};
use crate::program;

/// Runs a program to its end and returns its exit code, as a shell would have it.
pub(crate) fn execute(
    activation: &Activation,
    step: &str,
    program: &str,
    action: &str,
) -> Result<i32, AgentError> {
    let mut command = program::command(program);
    command.arg(action).current_dir("/").envs(&activation.request()?.switch_environment);
    if is_way_back(step) {
        // The old system ran before, so it may run again, whatever its pre-switch checks say of the way there.
        command.env("NIXOS_NO_CHECK", "1");
    }
    let status = command.status().map_err(io_error(program))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    activation.write_note(&exit_note(step), code.to_string().as_bytes())?;
    Ok(code)
}
