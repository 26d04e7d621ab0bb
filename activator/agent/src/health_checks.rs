//! Running health checks on this machine.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use nixos_agent::FailedCheck;
use nixos_agent::health::{self, Check, Probe};

use crate::{journal, program, systemd};

/// Runs all checks side by side and returns those that did not pass. What commands print goes to files in `output`.
pub(crate) fn run(checks: &[Check], output: &Path) -> Vec<FailedCheck> {
    let _ = DirBuilder::new().mode(0o700).recursive(true).create(output);
    std::thread::scope(|scope| {
        let tried: Vec<_> = checks
            .iter()
            .enumerate()
            .map(|(number, check)| {
                let file = output.join(number.to_string());
                (
                    check,
                    scope.spawn(move || {
                        health::try_until_healthy(check, |probe, timeout| try_once(probe, timeout, &file))
                    }),
                )
            })
            .collect();
        let failed = tried.into_iter().filter_map(|(check, tried)| {
            let reason = tried.join().unwrap_or_else(|_| Err("the check itself crashed".to_owned())).err()?;
            Some(FailedCheck { name: check.name.clone(), reason })
        });
        failed.collect()
    })
}

fn try_once(probe: &Probe, timeout: Duration, output: &Path) -> Result<(), String> {
    match probe {
        Probe::Units { names, stable_for } => units(names, *stable_for),
        Probe::Command(words) => {
            let (program, arguments) = words.split_first().ok_or("there is no command")?;
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(output);
            let file = file.map_err(|error| format!("{}: {error}", output.display()))?;
            health::command(program::command(program).args(arguments).current_dir("/"), file, timeout)
        }
        Probe::Http { url, statuses, contains } => health::http(url, statuses, contains.as_deref(), timeout),
        Probe::Tcp(address) => health::tcp(address, timeout),
    }
}

/// Whether all units are active and have been for `stable_for`. A unit that crashes and is started again and again is
/// active most of the time, but never for long.
fn units(names: &[String], stable_for: Duration) -> Result<(), String> {
    let now = systemd::monotonic();
    for name in names {
        let text = program::output(
            "systemctl",
            &[
                "show",
                "--no-pager",
                "-p",
                "LoadState,ActiveState,SubState,Result,ActiveEnterTimestampMonotonic",
                name,
            ],
        )?;
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default()
        };
        if value("ActiveState") != "active" {
            let (load, state, sub, result) =
                (value("LoadState"), value("ActiveState"), value("SubState"), value("Result"));
            let journal = journal::last_lines(name);
            let tail = journal.get(journal.len().saturating_sub(5)..).unwrap_or_default().join("\n");
            return Err(format!("{name} is {state} ({sub}; {load}, result {result})\n{tail}"));
        }
        let since = value("ActiveEnterTimestampMonotonic").parse::<u64>().unwrap_or(0);
        let active = now.saturating_sub(Duration::from_micros(since));
        if active < stable_for {
            return Err(format!(
                "{name} has been active for {:.1} s only, expected {} s",
                active.as_secs_f64(),
                stable_for.as_secs_f64()
            ));
        }
    }
    Ok(())
}
