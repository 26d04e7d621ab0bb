//! What a change costs on two real hosts, from the start of the provider to the last machine, against the same by hand.

use std::process::Command;
use std::time::{Duration, Instant};

use e2e::World;

use super::load::Load;
use super::{median, millis};
use crate::build::{build, cargo, run, target};
use crate::{TaskError, setup};

const RUNS: usize = 9;
const EVALUATIONS: usize = 3;

/// Runs them.
pub(crate) fn bench() -> Result<(), TaskError> {
    setup::check_lab()?;
    let provider = build(true)?;
    sizes(&provider)?;
    let world = World::boot(&["db", "web"], &|step| println!("{step}"))?;
    world.use_example("quickstart")?;
    for arguments in [&["init"][..], &["apply", "-auto-approve"]] {
        let done = world.terraform(arguments);
        if done.code != 0 {
            return Err(TaskError::Failed(done.text));
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
        "start, handshake, schema, end        {:>7.0} ms  (terraform providers schema, with and without: \
         {:.0} and {:.0} ms)",
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
    deploying(&world)?;
    evaluation(&world)
}

/// A change of one unit of one machine, from `terraform apply` to the end, by stage; against what people do by hand.
fn deploying(world: &World) -> Result<(), TaskError> {
    /// What the log says when a stage begins.
    const STAGES: [(&str, &str); 6] = [
        ("refresh, evaluate, build", ""),
        ("copy", "copying "),
        ("look and prepare", ": activating"),
        ("switch", ": Activating"),
        ("confirm by a new login", ": AwaitingConfirmation"),
        ("profile and boot loader", ": Committing"),
    ];
    let (control, web) = (world.lab.control(), world.lab.host("web"));
    let network = control.read_file(&format!("{}/network.nix", e2e::DIRECTORY))?;
    let unit = "The web server";
    let plain = "{ mark }: (import /root/mini-nixos/nixos/lib/eval-config.nix { modules = [ ({ pkgs, ... \
                 }: { nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\"; \
                 networking.hostName = \"web\"; systemd.services.web = { description = mark; wantedBy = [ \
                 \"multi-user.target\" ]; serviceConfig.ExecStart = \"${pkgs.busybox}/bin/busybox httpd -f \
                 -p 80 -h /etc\"; }; }) ]; }).config.system.build.toplevel";
    control.write_file("/root/bench/plain.nix", plain)?;
    let by_hand = format!(
        "set -e; export NIX_SSHOPTS='-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o \
         LogLevel=ERROR'; system=$(nix-build --no-out-link /root/bench/plain.nix --argstr mark \"$1\"); \
         nix copy --to ssh://root@{0} $system; ssh $NIX_SSHOPTS root@{0} \"nix-env -p \
         /nix/var/nix/profiles/system --set $system && $system/bin/switch-to-configuration switch\"",
        web.address()
    );
    let logins = || -> Result<usize, TaskError> {
        let journal =
            web.exec(&["journalctl", "-u", "ssh", "-o", "cat", "--no-pager", "-q", "--grep", "Accepted"])?;
        Ok(journal.stdout.lines().count())
    };
    let (mut ours, mut theirs) = (vec![], vec![]);
    let mut stages: [Vec<Duration>; STAGES.len()] = Default::default();
    let mut connections = 0;
    let load = Load::of(Load::AGENT);
    for round in 0..RUNS {
        let start = Instant::now();
        let done = control.exec(&["sh", "-c", &by_hand, "by-hand", &format!("by hand {round}")])?;
        theirs.push(start.elapsed());
        if !done.success {
            return Err(TaskError::Failed(done.stderr));
        }
        world.write("network.nix", &network.replace(unit, &format!("{unit} {round}")))?;
        let before = logins()?;
        control.exec(&["rm", "-f", "/root/bench/log"])?;
        let log = [("TF_LOG_PROVIDER", "INFO"), ("TF_LOG_PATH", "/root/bench/log")];
        let applied = load.during(|| world.terraform_with(&log, &["apply", "-auto-approve"]));
        if applied.code != 0 {
            return Err(TaskError::Failed(applied.text));
        }
        ours.push(applied.took);
        connections = logins()? - before;
        let log = control.read_file("/root/bench/log")?;
        let about_web = |line: &&str| line.contains("machine=web");
        let moment = |mark: &str| {
            let line = log.lines().filter(about_web).find(|line| line.contains(mark))?;
            time_of_day(line)
        };
        let finished =
            moment(": Finished").ok_or_else(|| TaskError::Failed("the log has no end".to_owned()))?;
        let mut begun: Vec<Duration> = STAGES.iter().filter_map(|(_, mark)| moment(mark)).collect();
        if begun.len() != STAGES.len() {
            return Err(TaskError::Failed(format!("the log lacks a stage:\n{log}")));
        }
        begun[0] = log.lines().find_map(time_of_day).unwrap_or_default();
        begun.push(finished);
        for (stage, pair) in stages.iter_mut().zip(begun.windows(2)) {
            stage.push(pair[1].saturating_sub(pair[0]));
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "\napply, one unit of two machines      {:>7.0} ms  ({:.1} x nix-build, nix copy, switch by hand: \
         {:.0} ms)",
        millis(ours),
        millis(ours) / millis(theirs),
        millis(theirs)
    );
    for ((name, _), times) in STAGES.iter().zip(stages) {
        println!("  {name:<34} {:>7.0} ms", millis(median(times)));
    }
    println!(
        "  connections to the machine         {connections:>7}     (plan, apply, and the confirming one)"
    );
    println!("  the agent's memory, at most        {:>7} KiB", load.memory_kib());
    Ok(())
}

/// The time in a line such as `2026-11-24T06:36:11.123Z [INFO] …`, since midnight.
fn time_of_day(line: &str) -> Option<Duration> {
    let time = line.split_once('T')?.1.get(..12)?;
    let mut parts = time.split(':');
    let mut number = || parts.next()?.parse::<f64>().ok();
    let (hours, minutes, seconds) = (number()?, number()?, number()?);
    Some(Duration::from_secs_f64(hours * 3600.0 + minutes * 60.0 + seconds))
}

/// Networks of several sizes, against one plain `nix-instantiate` of the same machines.
fn evaluation(world: &World) -> Result<(), TaskError> {
    let mut build = cargo(&[
        "build",
        "--quiet",
        "--locked",
        "--release",
        "-p",
        "nixos-activator",
        "--example",
        "evaluate",
    ]);
    run(&mut build, "building the evaluation example")?;
    let control = world.lab.control();
    let program = target().join("release/examples/evaluate");
    let bytes = std::fs::read(&program).map_err(TaskError::io(program.display()))?;
    control.write_file("/root/bench/evaluate", bytes)?;
    control.exec(&["chmod", "755", "/root/bench/evaluate"])?;
    println!(
        "\nevaluation, median of {EVALUATIONS}     plain nix   ours, cold   watched, cold   first change   \
         another change   nothing changed"
    );
    for size in [1, 10, 50] {
        let directory = format!("/root/bench/{size}");
        let machines: String = (0..size).map(|n| format!("  m{n} = ./m{n}.nix;\n")).collect();
        control.write_file(&format!("{directory}/network.nix"), format!("{{\n{machines}}}\n"))?;
        for n in 0..size {
            control.write_file(&format!("{directory}/m{n}.nix"), machine(n, ""))?;
        }
        let plain = "builtins.mapAttrs (name: file: (import /root/mini-nixos/nixos/lib/eval-config.nix { \
                     modules = [ file { networking.hostName = name; } ]; \
                     }).config.system.build.toplevel.drvPath) (import ./network.nix)";
        control.write_file(&format!("{directory}/plain.nix"), plain)?;
        let timed = |words: &[&str]| {
            let start = Instant::now();
            let finished = control.exec(words)?;
            if finished.success { Ok(start.elapsed()) } else { Err(TaskError::Failed(finished.stderr)) }
        };
        let ours = |cache: &str| {
            let network = format!("{directory}/network.nix");
            timed(&["/root/bench/evaluate", "--path", "nixpkgs=/root/mini-nixos", "--cache", cache, &network])
        };
        let mut columns: [Vec<Duration>; 6] = Default::default();
        for round in 0..EVALUATIONS {
            let plain = format!("{directory}/plain.nix");
            let nix = ["nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode", &plain];
            columns[0].push(timed(&nix)?);
            columns[1].push(ours("off")?);
            control.exec(&["rm", "-rf", "/root/.cache/nixos-activator"])?;
            columns[2].push(ours("read_set")?);
            // The first one costs the machines that were done after it in its process, too.
            for change in 0..2 {
                let text = format!("changed {round} {change}");
                control.write_file(&format!("{directory}/m0.nix"), machine(0, &text))?;
                columns[3 + change].push(ours("read_set")?);
            }
            columns[5].push(ours("read_set")?);
        }
        let [plain, cold, watched, first, another, same] = columns.map(|times| millis(median(times)));
        println!(
            "{size:>3} machines              {plain:>9.0} ms {cold:>9.0} ms {watched:>12.0} ms \
             {first:>11.0} ms {another:>13.0} ms {same:>14.0} ms"
        );
    }
    Ok(())
}

fn machine(n: usize, text: &str) -> String {
    format!(
        "{{ pkgs, ... }}: {{\n  nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\";\n  \
         environment.etc.text.text = \"{n} {text}\";\n  environment.systemPackages = [ pkgs.hello ];\n}}\n"
    )
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
    let builds = std::fs::read_dir(target().join("release/build")).ok()?;
    let agents = builds.filter_map(|entry| Some(entry.ok()?.path().join("out/nixos-agent")));
    agents
        .filter(|path| path.is_file())
        .max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok())
}

#[expect(clippy::cast_precision_loss, reason = "a size for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
