//! Measurements: paired runs in the same minute on the same hosts, medians and ratios. Numbers, not verdicts.

use std::process::Command;
use std::time::{Duration, Instant};

use e2e::World;

use crate::build::build;
use crate::{TaskError, setup};

const RUNS: usize = 9;

/// Runs them.
pub(crate) fn bench() -> Result<(), TaskError> {
    setup::check_lab()?;
    let provider = build(true)?;
    sizes(&provider)?;
    let world = World::boot(&["db", "web"], &|step| println!("{step}"))?;
    world.use_example("quickstart")?;
    for arguments in [&["init"][..], &["apply", "-auto-approve"]] {
        let run = world.terraform(arguments);
        if run.code != 0 {
            return Err(TaskError::Failed(run.text));
        }
    }
    // The floor: the same command where no provider has anything to do.
    let control = world.lab.control();
    control.write_file("/root/floor/main.tf", "resource \"terraform_data\" \"x\" {}\n")?;
    let floor = ["env", "TF_IN_AUTOMATION=1", "terraform", "-chdir=/root/floor"];
    for verb in [&["init"][..], &["apply", "-auto-approve"]] {
        control.exec(&[&floor[..], verb].concat())?;
    }
    let (mut ours, mut theirs) = (vec![], vec![]);
    for _ in 0..RUNS {
        let start = Instant::now();
        control.exec(&[&floor[..], &["providers", "schema", "-json"]].concat())?;
        theirs.push(start.elapsed());
        ours.push(world.terraform(&["providers", "schema", "-json"]).took);
    }
    let (with, without) = (median(ours), median(theirs));
    println!(
        "start, handshake, schema, end        {:>7.0} ms  (terraform providers schema, with and without: {:.0} and {:.0} ms)",
        millis(with.saturating_sub(without)),
        millis(with),
        millis(without)
    );
    let (mut ours, mut theirs) = (vec![], vec![]);
    for _ in 0..RUNS {
        let start = Instant::now();
        control.exec(&[&floor[..], &["plan"]].concat())?;
        theirs.push(start.elapsed());
        ours.push(world.terraform(&["plan"]).took);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("plan without changes, two machines   {:>7.0} ms", millis(ours));
    println!("terraform's own floor                {:>7.0} ms", millis(theirs));
    println!(
        "ours on top                          {:>7.0} ms  ({:.1} x the floor)",
        millis(ours.saturating_sub(theirs)),
        millis(ours) / millis(theirs)
    );
    Ok(())
}

fn sizes(provider: &std::path::Path) -> Result<(), TaskError> {
    let size = std::fs::metadata(provider).map_err(TaskError::io(provider.display()))?.len();
    println!("provider, release                    {:>7.1} MB", megabytes(size));
    if let Some(agent) = agent() {
        let size = std::fs::metadata(&agent).map_err(TaskError::io(agent.display()))?.len();
        println!("agent, static                        {:>7.1} MB", megabytes(size));
    }
    let starts: Vec<Duration> = (0..RUNS).map(|_| start_up(provider)).collect::<Result<_, _>>()?;
    println!("provider, start to handshake         {:>7.1} ms", millis(median(starts)));
    Ok(())
}

/// From the start of the process to the line that says where it serves.
fn start_up(provider: &std::path::Path) -> Result<Duration, TaskError> {
    use std::io::{BufRead as _, BufReader};
    let failed = || TaskError::io(provider.display());
    let start = Instant::now();
    let mut child = Command::new(provider)
        .env("TF_PLUGIN_MAGIC_COOKIE", "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .map_err(failed())?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(failed())?;
    }
    let took = start.elapsed();
    child.kill().map_err(failed())?;
    child.wait().map_err(failed())?;
    if line.starts_with("1|6|unix|") {
        Ok(took)
    } else {
        Err(TaskError::Failed(format!("no handshake: {line}")))
    }
}

/// The newest agent that was built for a release.
fn agent() -> Option<std::path::PathBuf> {
    let builds = std::fs::read_dir(e2e::repository().join("target/release/build")).ok()?;
    let agents = builds.filter_map(|entry| Some(entry.ok()?.path().join("out/nixos-agent")));
    agents
        .filter(|path| path.is_file())
        .max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
