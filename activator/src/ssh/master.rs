//! The `ssh` that holds a connection to a machine open: how it is started, and how it is known that the login works.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::FusedFuture as _;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::agent::Agent;
use super::config::{self, LOGGED_IN, READY, Surroundings};
use super::gate::Gate;
use super::identity::identity;
use super::place::Place;
use super::values::{host, known_hosts_line};
use super::version::version;
use super::{Endpoint, SshError};
use crate::children::interrupt;
use crate::text::{Lines, complaint, plain};

/// How many lines are kept of what a shell prints before it is ready.
const NOISE: usize = 20;

/// The most that a shell may say before it is ready.
const GREETING: usize = 1 << 20;

/// Pinned and newly learned host keys of the machine.
pub(super) const KNOWN_HOSTS: &str = "known_hosts";

/// Starts a master that has logged in, and returns what its shell printed before. What it needed only for that is in
/// `agents`.
pub(super) async fn open_master(
    ssh: &Path,
    endpoint: &Endpoint,
    gate: Option<&Gate>,
    place: &Place,
    agents: &mut Vec<Agent>,
    cancel: &CancellationToken,
) -> Result<(Child, String), SshError> {
    write_files(ssh, endpoint, gate, place, agents).await?;
    let since = gate.map(Gate::now);
    let mut master = start_master(ssh, endpoint, place)?;
    let ready = tokio::select! {
        ready = wait_until_ready(&mut master, endpoint) => ready,
        () = cancel.cancelled() => Err(NotReady::Other(SshError::Cancelled)),
    };
    let error = match ready {
        Ok(greeting) => return Ok((master, greeting)),
        Err(NotReady::Other(error)) => error,
        Err(NotReady::Ended { stderr, greeting, is_logged_in }) => {
            let explained = match (gate, since) {
                (Some(gate), Some(since)) => gate.explained(since, &endpoint.host, &stderr).await,
                _ => None,
            };
            explained.unwrap_or_else(|| sorted(endpoint, &stderr, &greeting, is_logged_in))
        }
    };
    interrupt(&mut master).await;
    Err(error)
}

/// Why a master ended. A shell that refuses to run commands may say so on either stream.
fn sorted(endpoint: &Endpoint, stderr: &str, greeting: &str, is_logged_in: bool) -> SshError {
    let Endpoint { host, user, .. } = endpoint;
    match SshError::from_stderr(host, user, stderr) {
        SshError::Other { .. } if is_logged_in => {
            let said = [greeting, plain(stderr).trim()].join("\n").trim().to_owned();
            let ended = if said.is_empty() { "without a word".to_owned() } else { format!("with: {said}") };
            let reason = format!("the login worked, but the shell of {user} ended {ended}");
            SshError::Other { host: host.clone(), reason }
        }
        SshError::Other { .. } if stderr.trim().is_empty() => SshError::from_stderr(host, user, greeting),
        error => error,
    }
}

async fn write_files(
    ssh: &Path,
    endpoint: &Endpoint,
    gate: Option<&Gate>,
    place: &Place,
    agents: &mut Vec<Agent>,
) -> Result<(), SshError> {
    let key = identity(&endpoint.key, place, &endpoint.host, agents).await?;
    if let Some(key) = &endpoint.host_public_key {
        place.write(KNOWN_HOSTS, &known_hosts_line(key)?, &endpoint.host)?;
    }
    let home = std::env::home_dir();
    let around = Surroundings {
        key: key.as_ref(),
        known_hosts: &place.file(KNOWN_HOSTS),
        through: gate.map(Gate::command),
        home: home.as_deref(),
        version: version(ssh).await,
    };
    place.write("config", &config::render(endpoint, &around)?, &endpoint.host)?;
    place.write("shared", &config::render_shared(), &endpoint.host)
}

fn start_master(ssh: &Path, endpoint: &Endpoint, place: &Place) -> Result<Child, SshError> {
    let mut command = Command::new(ssh);
    command.arg("-F").arg(place.config()).args(["-M", "-T", "-o", "ControlPersist=no", "-S"]);
    command.arg(place.socket()).args(["--", host("host", &endpoint.host)?]);
    command.arg(format!("echo '{READY}'; exec cat"));
    // What `ssh` says is sorted by its words.
    command.env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command
        .spawn()
        .map_err(|error| SshError::Local { host: endpoint.host.clone(), reason: error.to_string() })
}

/// Why a master is not there.
enum NotReady {
    /// It ended.
    Ended {
        /// With these words.
        stderr: String,
        /// After the shell had printed this.
        greeting: String,
        /// After a login had worked.
        is_logged_in: bool,
    },
    Other(SshError),
}

/// Returns when the remote shell has spoken: only then does a login really work. What it said before that is its
/// greeting.
async fn wait_until_ready(master: &mut Child, endpoint: &Endpoint) -> Result<String, NotReady> {
    let (stdout, stderr) = (master.stdout.take(), master.stderr.take());
    let mut greeting = vec![];
    let mut is_logged_in = false;
    // Read for as long as the master lives: a talkative `ssh` would block on a full pipe one day. It ends with the
    // master.
    let mut said = tokio::spawn(async move {
        match stderr {
            Some(stderr) => complaint(stderr).await,
            None => String::new(),
        }
    });
    let greeted = async {
        let mut lines = Lines::of(stdout?, GREETING);
        while let Ok(Some(line)) = lines.next().await {
            if line == LOGGED_IN && !is_logged_in {
                is_logged_in = true;
                continue;
            }
            let line = plain(&line);
            // The shell may not have ended its line.
            let before = line.trim_end().strip_suffix(READY);
            if greeting.len() < NOISE {
                greeting.push(before.unwrap_or(&line).to_owned());
            }
            if before.is_some() {
                return Some(());
            }
        }
        None
    };
    // `ssh` bounds the connection, but not a shell that never starts.
    let limit = endpoint.connect_timeout * 2 + Duration::from_secs(10);
    let outcome = tokio::time::timeout(limit, async {
        let greeted = greeted.fuse();
        tokio::pin!(greeted);
        tokio::select! {
            Some(()) = &mut greeted => None,
            text = &mut said => {
                if !greeted.is_terminated() {
                    // What a shell printed may not have been read yet.
                    let _ = tokio::time::timeout(Duration::from_secs(1), &mut greeted).await;
                }
                Some(text.unwrap_or_default())
            }
        }
    })
    .await;
    let greeting = greeting.join("\n").trim().to_owned();
    let host = endpoint.host.clone();
    match outcome {
        Ok(None) => Ok(greeting),
        Err(_) if is_logged_in => {
            let reason = format!("the login worked, but no shell answered within {} s", limit.as_secs());
            Err(NotReady::Other(SshError::Other { host, reason }))
        }
        Ok(Some(stderr)) => Err(NotReady::Ended { stderr, greeting, is_logged_in }),
        Err(_) => {
            let reason = format!("no login within {} s", limit.as_secs());
            Err(NotReady::Other(SshError::Unreachable { host, reason }))
        }
    }
}
