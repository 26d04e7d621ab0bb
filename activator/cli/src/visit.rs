//! Verbs that do something on machines.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use nixos_activator::MachineName;
use nixos_activator::activate::{self, Task};
use nixos_activator::agent::{self, Action, ActivationId, Answer, Confirmation, Outcome, Request, random_id};
use nixos_activator::facts;
use nixos_activator::generations;
use nixos_activator::progress::Progress;
use nixos_activator::reboot;
use nixos_activator::ssh::{Connection, Pool, SshError, Wait};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio_util::sync::CancellationToken;

use crate::deployed::Machine;
use crate::look;
use crate::problem::Problem;

/// How long `switch-to-configuration` may take.
const ACTIVATION: u64 = 600;
/// How long a machine waits for our new login, in seconds.
const CONFIRMATION: u64 = 30;

/// Logs in, or runs a command with our terminal.
pub(crate) async fn ssh(
    machine: &Machine,
    command: &[String],
    cancel: &CancellationToken,
) -> Result<u8, Problem> {
    let ssh = |source| Problem::Ssh { name: machine.name.clone(), source };
    let pool = Pool::default();
    let connection = pool.open(&machine.endpoint, Wait::ONE_TRY, cancel).await.map_err(ssh)?;
    let status = tokio::process::Command::new("ssh")
        .args(command.is_empty().then_some("-t"))
        .args(connection.terminal_arguments().map_err(ssh)?)
        .args(command)
        .status()
        .await;
    connection.close().await;
    pool.close().await;
    Ok(exit_code(status?.code()))
}

/// Runs a command on all of them, and prints each line as it comes.
pub(crate) async fn exec(
    machines: &[Machine],
    root: bool,
    command: &[String],
    cancel: &CancellationToken,
) -> Result<u8, Problem> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let pool = Pool::default();
    let each = async |machine: &Machine| -> Result<u8, Problem> {
        let code = match pool.open(&machine.endpoint, Wait::ONE_TRY, cancel).await {
            Ok(connection) => {
                let code = tokio::select! {
                    code = run(&connection, &machine.name, root, &words) => code,
                    () = cancel.cancelled() => Ok(Err(SshError::Cancelled)),
                };
                connection.close().await;
                code?
            }
            Err(error) => Err(error),
        };
        match code {
            Ok(code) => Ok(exit_code(code)),
            Err(error) => {
                writeln!(std::io::stderr(), "{}: {error}", machine.name)?;
                Ok(255)
            }
        }
    };
    let codes = futures::future::join_all(machines.iter().map(each)).await;
    pool.close().await;
    codes.into_iter().try_fold(0, |worst, code| Ok(worst.max(code?)))
}

/// Runs a command and returns its exit code.
async fn run(
    connection: &Connection,
    name: &MachineName,
    root: bool,
    command: &[&str],
) -> std::io::Result<Result<Option<i32>, SshError>> {
    let child = if root { connection.spawn_as_root(command).await } else { connection.spawn(command).await };
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    // It has nothing to read.
    drop(child.stdin().take());
    let (stdout, stderr) = (child.stdout().take(), child.stderr().take());
    tokio::try_join!(
        print_lines(name, stdout, || std::io::stdout().lock()),
        print_lines(name, stderr, || std::io::stderr().lock()),
    )?;
    Ok(connection.exit_code(child).await)
}

/// Prints each line with the machine's name before it. A lock is held for one line, so that lines of several machines
/// stay apart.
async fn print_lines<W: std::io::Write>(
    name: &MachineName,
    stream: Option<impl AsyncRead + Unpin>,
    to: impl Fn() -> W,
) -> std::io::Result<()> {
    let Some(stream) = stream else {
        return Ok(());
    };
    let mut lines = BufReader::new(stream).split(b'\n');
    while let Some(line) = lines.next_segment().await? {
        writeln!(to(), "{name}: {}", String::from_utf8_lossy(&line))?;
    }
    Ok(())
}

/// Removes what nothing leads to any more.
pub(crate) async fn collect_garbage(
    machines: &[Machine],
    older_than: Option<u32>,
    cancel: &CancellationToken,
) -> Result<u8, Problem> {
    let days = older_than.map(|days| format!("{days}d"));
    let options = days.iter().flat_map(|days| ["--delete-older-than", days.as_str()]);
    // A login by SSH often has a meagre PATH.
    let script = r#"PATH="$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin"; said="$(nix-collect-garbage "$@" 2>&1)" || { printf '%s\n' "$said" >&2; exit 1; }; printf '%s\n' "$said" | tail -n 1"#;
    let command: Vec<String> =
        ["sh", "-c", script, "sh"].into_iter().chain(options).map(str::to_owned).collect();
    exec(machines, true, &command, cancel).await
}

/// Reboots all of them at once and waits.
pub(crate) async fn reboot(
    machines: &[Machine],
    timeout: u64,
    cancel: &CancellationToken,
) -> Result<u8, Problem> {
    let pool = Pool::default();
    let each = async |machine: &Machine| -> Result<(), Problem> {
        let name = || machine.name.clone();
        let connection = connect(&pool, machine, cancel).await?;
        let facts = facts::gather(machine.name.as_str(), &connection)
            .await
            .map_err(|source| Problem::Facts { name: name(), source })?;
        let profile = facts.profile.clone().ok_or_else(|| Problem::Refused {
            name: name(),
            message: "it has no system profile, so nobody knows what it would boot".to_owned(),
        })?;
        let deadline = Duration::from_secs(timeout);
        reboot::reboot(&pool, &connection, &facts, &profile, None, deadline, cancel)
            .await
            .map_err(|source| Problem::Reboot { name: name(), source })?;
        writeln!(std::io::stdout(), "{}: is back and runs {profile}", machine.name)?;
        Ok(())
    };
    let ended = futures::future::join_all(machines.iter().map(each)).await;
    pool.close().await;
    let mut code = 0;
    for problem in ended.into_iter().filter_map(Result::err) {
        eprintln!("nixos-activator: {problem}");
        code = 1;
    }
    Ok(code)
}

/// Activates an earlier generation.
pub(crate) async fn rollback(
    machine: &Machine,
    to: Option<u64>,
    cancel: &CancellationToken,
) -> Result<u8, Problem> {
    let pool = Pool::default();
    let result = roll_back(&pool, machine, to, cancel).await;
    pool.close().await;
    result
}

async fn roll_back(
    pool: &Pool,
    machine: &Machine,
    to: Option<u64>,
    cancel: &CancellationToken,
) -> Result<u8, Problem> {
    let name = || machine.name.clone();
    let activating = |source| Problem::Activate { name: name(), source };
    let connection = connect(pool, machine, cancel).await?;
    let facts = facts::gather(machine.name.as_str(), &connection)
        .await
        .map_err(|source| Problem::Facts { name: name(), source })?;
    let generations = look::list(machine, &connection).await?;
    let runs = &facts.current_system;
    let found = match to {
        Some(number) => generations.iter().find(|generation| generation.number == number),
        None => generations::before(&generations, facts.generation, runs.as_ref()),
    };
    let Some(generation) = found else {
        let wanted = to.map_or_else(|| "before the current one".to_owned(), |number| number.to_string());
        return Err(Problem::no_generation(&machine.name, wanted, &generations));
    };
    agent::check_login(&connection, &facts).await.map_err(activating)?;
    let system = facts.system.clone().unwrap_or_default();
    let agent = agent::install(&connection, &system).await.map_err(activating)?;
    let request = Request {
        id: ActivationId::random().map_err(|error| activating(error.into()))?,
        deployment: None,
        toplevel: generation.toplevel.to_string(),
        action: Action::Switch,
        expected_system: runs.as_ref().map(ToString::to_string),
        rollback: true,
        activation_timeout_seconds: ACTIVATION,
        confirmation: Some(Confirmation {
            nonce: random_id().map_err(|error| activating(error.into()))?,
            window_seconds: CONFIRMATION,
            hold_seconds: 0,
        }),
        health_checks: vec![],
        keep_generations: None,
        secrets: None,
        verify: false,
        // Whoever goes back by hand knows where to; the new login decides.
        login: None,
        tolerated_units: vec![],
        switch_environment: BTreeMap::new(),
    };
    let task = Task { machine: &machine.name, agent: &agent, request: &request, contents: &[] };
    let label = machine.name.clone();
    let progress = Progress::new(move |event| eprintln!("{label}: {}", event.message));
    let report = activate::activate(pool, &connection, task, async { Answer::Keep }, &progress)
        .await
        .map_err(activating)?;
    if !matches!(report.outcome, Outcome::Activated | Outcome::Unchanged) {
        return Err(Problem::Refused { name: name(), message: report.message });
    }
    for warning in &report.warnings {
        eprintln!("{}: {warning}", machine.name);
    }
    writeln!(
        std::io::stdout(),
        "{}: runs generation {} again ({}); Terraform's next plan shows it as drift",
        machine.name,
        generation.number,
        generation.toplevel
    )?;
    Ok(0)
}

async fn connect(
    pool: &Pool,
    machine: &Machine,
    cancel: &CancellationToken,
) -> Result<Arc<Connection>, Problem> {
    pool.connect(&machine.endpoint, Wait::ONE_TRY, cancel)
        .await
        .map_err(|source| Problem::Ssh { name: machine.name.clone(), source })
}

/// 255 where a signal ended it, as `ssh` does.
fn exit_code(code: Option<i32>) -> u8 {
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(255)
}
