//! The connection to a bastion, which all machines behind it share.
//!
//! A bastion has the login limits of OpenSSH's defaults: ten logins at once, and an address that comes too often is
//! shut out. So it is logged in to once. Its master has no session, because many may log in to a bastion who have no
//! shell there; machines are reached by `ssh -W` through its control socket. A shell around the master ends it when
//! this process is gone, however it ends.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::agent::Agent;
use super::config::{self, READY, Surroundings};
use super::identity::identity;
use super::place::Place;
use super::values::{host, known_hosts_line};
use super::version::version;
use super::{Bastion, SshError};
use crate::children::interrupt;
use crate::nix::find_on_path;
use crate::text::{Lines, plain};

/// Runs its arguments until they end or its standard input does.
const UNTIL_INPUT_ENDS: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
ssh=$!
{ cat <&3; kill "$ssh"; } >/dev/null 2>&1 &
watch=$!
exec 3<&-
wait "$ssh"
code=$?
kill "$watch"
exit "$code"
"#;

/// How long the master may take to end.
const LIMIT: Duration = Duration::from_secs(5);

/// How many of the master's lines are kept.
const KEPT: usize = 200;

/// How long the master's reason for refusing a machine may take to get here.
const LAG: Duration = Duration::from_millis(100);

/// What `ssh -W` says when the bastion did not connect to the machine.
const NOT_THROUGH: &str = "tdio forwarding";

/// An open connection to a bastion.
#[derive(Debug)]
pub(super) struct Gate {
    /// How messages call the bastion.
    label: String,
    /// The shell around the master.
    child: tokio::sync::Mutex<Child>,
    /// The shell waits for its end.
    stdin: Mutex<Option<ChildStdin>>,
    said: Arc<Mutex<Said>>,
    _reader: AbortOnDropHandle<()>,
    place: Place,
    /// The command that leads from here to a machine behind the bastion.
    command: String,
}

/// What the master has said: the last lines, and how many there were before them.
#[derive(Debug, Default)]
struct Said {
    lines: VecDeque<String>,
    forgotten: usize,
}

impl Said {
    fn add(&mut self, line: String) {
        self.lines.push_back(line);
        if self.lines.len() > KEPT {
            self.lines.pop_front();
            self.forgotten += 1;
        }
    }

    fn count(&self) -> usize {
        self.forgotten + self.lines.len()
    }

    fn since(&self, count: usize) -> Vec<String> {
        self.lines.iter().skip(count.saturating_sub(self.forgotten)).cloned().collect()
    }
}

impl Gate {
    /// Logs in to a bastion.
    pub(super) async fn open(
        bastion: &Bastion,
        connect_timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<Self, SshError> {
        let ssh = find_on_path("ssh").ok_or(SshError::NotFound)?;
        let place = Place::new(&bastion.host)?;
        let mut agents = vec![];
        let opened = Self::open_in(&ssh, bastion, connect_timeout, place, &mut agents, cancel).await;
        // The key has done its work.
        futures::future::join_all(agents.into_iter().map(Agent::end)).await;
        opened
    }

    async fn open_in(
        ssh: &Path,
        bastion: &Bastion,
        connect_timeout: Duration,
        place: Place,
        agents: &mut Vec<Agent>,
        cancel: &CancellationToken,
    ) -> Result<Self, SshError> {
        let label = format!("the bastion {}", bastion.host);
        let key = identity(&bastion.key, &place, &label, agents).await?;
        let known_hosts = place.file("known_hosts");
        if let Some(key) = &bastion.host_public_key {
            place.write("known_hosts", &known_hosts_line(key)?, &label)?;
        }
        let home = std::env::home_dir();
        let around = Surroundings {
            key: key.as_ref(),
            known_hosts: &known_hosts,
            through: None,
            home: home.as_deref(),
            version: version(ssh).await,
        };
        place.write("config", &config::render_bastion(bastion, connect_timeout, &around)?, &label)?;
        place.write("shared", &config::render_shared(), &label)?;

        let mut command = Command::new("sh");
        command.args(["-c", UNTIL_INPUT_ENDS, "sh"]).arg(ssh).arg("-F").arg(place.config());
        command.args(["-M", "-N", "-T", "-o", "ControlPersist=no", "-S"]).arg(place.socket());
        command.args(["--", host("bastion.host", &bastion.host)?]).env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let local = |reason: String| SshError::Local { host: label.clone(), reason };
        let mut child = command.spawn().map_err(|error| local(error.to_string()))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(local("the master has no streams".to_owned()));
        };
        let said = Arc::new(Mutex::new(Said::default()));
        let mut reader = AbortOnDropHandle::new(tokio::spawn(keep(stderr, said.clone())));
        let limit = connect_timeout * 2 + Duration::from_secs(10);
        let is_ready = tokio::select! {
            is_ready = tokio::time::timeout(limit, is_ready(stdout)) => is_ready,
            () = cancel.cancelled() => {
                end(&mut child, stdin).await;
                return Err(SshError::Cancelled);
            }
        };
        if !matches!(is_ready, Ok(true)) {
            end(&mut child, stdin).await;
            let _ = tokio::time::timeout(LIMIT, &mut reader).await;
            let text = said.lock().unwrap_or_else(PoisonError::into_inner).since(0).join("\n");
            if is_ready.is_err() {
                let reason = format!("no login within {} s", limit.as_secs());
                return Err(SshError::Unreachable { host: label, reason });
            }
            let user = bastion.user.clone().unwrap_or_else(|| user_in(&text));
            return Err(SshError::from_stderr(&label, &user, &text));
        }
        let command = format!(
            "{} -F {} -S {} -o ControlMaster=no -W '[%h]:%p' {}",
            quoted(ssh),
            place.file("shared").display(),
            place.socket().display(),
            config::ALIAS
        );
        Ok(Self {
            label,
            child: tokio::sync::Mutex::new(child),
            stdin: Mutex::new(stdin),
            said,
            _reader: reader,
            place,
            command,
        })
    }

    /// Whether the master still runs.
    pub(super) async fn is_alive(&self) -> bool {
        matches!(self.child.lock().await.try_wait(), Ok(None))
    }

    /// For `ProxyCommand`: what leads to a machine.
    pub(super) fn command(&self) -> &str {
        &self.command
    }

    /// A moment to look back to in [`Gate::explained`].
    pub(super) fn now(&self) -> usize {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).count()
    }

    /// What kept us from a machine, where `stderr` is what the `ssh` to it wrote, and `since` a moment before.
    /// `None`: not the bastion.
    pub(super) async fn explained(&self, since: usize, machine: &str, stderr: &str) -> Option<SshError> {
        if stderr.contains("the shared connection is gone") || !self.is_alive().await {
            let reason = "it ended".to_owned();
            return Some(SshError::Lost { host: self.label.clone(), reason }.of_bastion());
        }
        if !stderr.contains(NOT_THROUGH) {
            return None;
        }
        // Which machine a line is about, the master does not say: that all lines say the same is as good.
        let mut reasons = self.reasons(since);
        if reasons.is_empty() {
            tokio::time::sleep(LAG).await;
            reasons = self.reasons(since);
        }
        reasons.sort();
        reasons.dedup();
        if let [reason] = reasons.as_slice()
            && reason.contains("administratively prohibited")
        {
            let reason = reason.clone();
            return Some(SshError::NoForwarding { host: self.label.clone(), reason }.of_bastion());
        }
        let reasons =
            if reasons.is_empty() { "for a reason it does not say".to_owned() } else { reasons.join("; ") };
        let reason = format!("{} could not connect to it: {reasons}", self.label);
        Some(SshError::Unreachable { host: machine.to_owned(), reason })
    }

    /// Why the bastion refused to connect to machines since a moment: `connect failed: Connection refused`.
    fn reasons(&self, since: usize) -> Vec<String> {
        let lines = self.said.lock().unwrap_or_else(PoisonError::into_inner).since(since);
        lines
            .iter()
            .filter_map(|line| line.split_once("open failed: "))
            .map(|(_, why)| plain(why.trim()))
            .collect()
    }

    /// Ends the connection and removes its files.
    pub(super) async fn close(&self) {
        let stdin = self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
        end(&mut *self.child.lock().await, stdin).await;
        self.place.remove();
    }
}

/// Ends the shell, and with it the master.
async fn end(child: &mut Child, stdin: Option<ChildStdin>) {
    drop(stdin);
    if tokio::time::timeout(LIMIT, child.wait()).await.is_err() {
        interrupt(child).await;
    }
}

/// Keeps what the master says, for as long as it lives.
async fn keep(stderr: impl AsyncRead + Unpin, said: Arc<Mutex<Said>>) {
    let mut lines = Lines::of(stderr, usize::MAX);
    while let Ok(Some(line)) = lines.next().await {
        said.lock().unwrap_or_else(PoisonError::into_inner).add(line);
    }
}

/// Whether the master got so far that machines can be reached through it.
async fn is_ready(stdout: impl AsyncRead + Unpin) -> bool {
    let mut lines = Lines::of(stdout, 1 << 20);
    while let Ok(Some(line)) = lines.next().await {
        if line.trim_end() == READY {
            return true;
        }
    }
    false
}

/// Who was refused, where `ssh_config` says who logs in: `jump@10.0.0.1: Permission denied (publickey).`
fn user_in(text: &str) -> String {
    let refused = text.lines().find_map(|line| line.split_once(": Permission denied"));
    let user = refused.and_then(|(login, _)| login.rsplit_once('@')).map(|(user, _)| plain(user.trim()));
    user.unwrap_or_else(|| "the user that `ssh_config` names".to_owned())
}

/// A path for the shell that starts a `ProxyCommand`, in which `%` introduces a token.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''").replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_before_is_not_a_reason() {
        let mut said = Said::default();
        (0..KEPT + 10).for_each(|n| said.add(n.to_string()));
        let now = said.count();
        assert_eq!(now, KEPT + 10);
        assert!(said.since(now).is_empty());
        said.add("new".to_owned());
        assert_eq!(said.since(now), ["new"]);
        assert_eq!(said.since(0).len(), KEPT);
    }

    #[test]
    fn who_was_refused_is_in_what_ssh_says() {
        assert_eq!(user_in("Warning\njump@gate: Permission denied (publickey)."), "jump");
        assert_eq!(user_in(""), "the user that `ssh_config` names");
    }
}
