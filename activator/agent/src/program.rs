//! Running programs of this machine.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A program of this machine, with nothing on its standard input.
///
/// PATH has the usual directories too, because the PATH of a login by SSH often lacks them. The language is fixed,
/// because the agent reads what programs print.
pub(crate) fn command(program: &str) -> Command {
    const ALSO: &str =
        "/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:{ALSO}")).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let result = command(program).args(arguments).output();
    printed(program, result)
}

/// Runs a command, kills it after `limit`, and returns what it printed.
pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match run_within(command, limit) {
        Ok(Some(output)) => printed(&program, Ok(output)),
        Ok(None) => Err(format!("{program}: no answer within {} s", limit.as_secs())),
        Err(error) => printed(&program, Err(error)),
    }
}

/// Runs a command to its end; `None`: it took longer than `limit` and was killed. What it prints has to fit into a
/// pipe, which is read only when it has ended.
pub(crate) fn run_within(command: &mut Command, limit: Duration) -> std::io::Result<Option<Output>> {
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

/// The standard output of a program that succeeded, else its standard error.
fn printed(program: &str, result: std::io::Result<Output>) -> Result<String, String> {
    match result {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// A path of the agent's own program. It can be run even where its file was removed meanwhile.
pub(crate) fn own() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(if own.exists() { own } else { format!("/proc/{}/exe", std::process::id()).into() })
}
