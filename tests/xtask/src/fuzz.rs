//! Feeds the decoders of `tfplugin` with bytes nobody would send, for so long: an error is fine, a panic, hang or huge
//! allocation is a finding.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::TaskError;
use crate::build::cargo;

/// Where the targets, their corpus and what they have found are.
const DIRECTORY: &str = "provider/tfplugin/fuzz";

/// Runs one target, or all of them, for so long each. What they learn about the code goes into a corpus under
/// `target/`, which begins as the one in the repository.
pub(crate) fn fuzz(target: Option<&str>, time: Duration) -> Result<(), TaskError> {
    if !cargo(&["fuzz", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return Err(TaskError::Failed("cargo-fuzz is missing: cargo install --locked cargo-fuzz".to_owned()));
    }
    let targets = targets()?;
    let chosen: Vec<&String> = targets.iter().filter(|name| target.is_none_or(|one| one == *name)).collect();
    if chosen.is_empty() {
        return Err(TaskError::Failed(format!("there is no such target, only {}", targets.join(", "))));
    }
    println!("{:<12} {:>12} {:>8} {:>8}", "target", "executions", "seconds", "findings");
    let mut found = vec![];
    for name in chosen {
        let run = Run::of(name, time)?;
        println!("{name:<12} {:>12} {:>8} {:>8}", run.executions, run.seconds, run.findings.len());
        found.extend(run.findings);
    }
    if found.is_empty() {
        return Ok(());
    }
    let list: String = found.iter().map(|path| format!("\n  {}", path.display())).collect();
    Err(TaskError::Failed(format!(
        "findings:{list}\nMake one small with `cargo fuzz tmin --fuzz-dir {DIRECTORY} TARGET FILE` and \
         keep it in {DIRECTORY}/regressions/TARGET/."
    )))
}

/// The names of all targets.
fn targets() -> Result<Vec<String>, TaskError> {
    let directory = e2e::repository().join(DIRECTORY).join("fuzz_targets");
    let mut names: Vec<String> = files(&directory)?
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// What a run of a target came to.
struct Run {
    executions: u64,
    seconds: u64,
    findings: Vec<PathBuf>,
}

impl Run {
    fn of(name: &str, time: Duration) -> Result<Self, TaskError> {
        let root = e2e::repository();
        let learnt = root.join("target/fuzz").join(name);
        let artifacts = root.join(DIRECTORY).join("artifacts").join(name);
        for directory in [&learnt, &artifacts] {
            std::fs::create_dir_all(directory).map_err(TaskError::io(directory.display()))?;
        }
        let before = files(&artifacts)?;
        let output = command(name, &learnt, time).output().map_err(TaskError::io("cargo fuzz"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let mut findings = files(&artifacts)?;
        findings.retain(|path| !before.contains(path));
        let figures = statistic(&said, "stat::number_of_executed_units:").zip(seconds(&said));
        let (executions, seconds) = match figures {
            Some(figures) => figures,
            None if !findings.is_empty() => (statistic(&said, "#").unwrap_or(0), 0),
            None => return Err(TaskError::Failed(format!("cargo fuzz run {name} failed:\n{said}"))),
        };
        Ok(Self { executions, seconds, findings })
    }
}

/// Nothing here is unsafe, so that a sanitizer would only make it slow. The compiler's instrumentation is for nightly
/// ones otherwise.
fn command(name: &str, learnt: &Path, time: Duration) -> Command {
    let mut command = cargo(&["fuzz", "run", "--fuzz-dir", DIRECTORY, "--sanitizer", "none", name]);
    command.env("RUSTC_BOOTSTRAP", "1").arg(learnt);
    for seeds in ["corpus", "regressions"] {
        let seeds = e2e::repository().join(DIRECTORY).join(seeds).join(name);
        command.args(seeds.is_dir().then_some(seeds));
    }
    command.arg("--").args([
        "-max_len=65536",
        "-print_final_stats=1",
        "-rss_limit_mb=2048",
        "-timeout=10",
        &format!("-dict={}", e2e::repository().join(DIRECTORY).join("dictionary").display()),
        &format!("-max_total_time={}", time.as_secs()),
    ]);
    command
}

/// The number after the last `label`.
fn statistic(said: &str, label: &str) -> Option<u64> {
    let after = said.lines().rev().find_map(|line| line.strip_prefix(label))?;
    after.split_whitespace().next()?.parse().ok()
}

/// From `Done 1234 runs in 61 second(s)`.
fn seconds(said: &str) -> Option<u64> {
    let line = said.lines().rev().find(|line| line.starts_with("Done "))?;
    line.split_once(" in ")?.1.split_whitespace().next()?.parse().ok()
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, TaskError> {
    let entries = std::fs::read_dir(directory).map_err(TaskError::io(directory.display()))?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(TaskError::io(directory.display()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_the_fuzzer_says() {
        let said = "#2\tINITED cov: 5\n#4096\tpulse  cov: 9\nDone 5120 runs in 61 second(s)\n\
                    stat::number_of_executed_units: 5120\nstat::average_exec_per_sec:     83\n";
        assert_eq!(statistic(said, "stat::number_of_executed_units:"), Some(5120));
        assert_eq!(statistic(said, "#"), Some(4096));
        assert_eq!(seconds(said), Some(61));
    }
}
