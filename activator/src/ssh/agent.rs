//! Private keys that are values: they go through a pipe to an `ssh-agent` of our own, so that they are never on a disk.
//!
//! Each key has an agent of its own, which knows nothing else, and whose socket is in the private directory of the
//! connection. It lives for as long as a pipe that we hold is open: however this process dies, the shell beside the
//! agent reads its end then, and ends the agent.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use zeroize::Zeroizing;

use super::SshError;
use crate::Secret;
use crate::children::interrupt;
use crate::nix::find_on_path;
use crate::text::{Lines, complaint};

/// What is printed once the agent can be asked.
const READY: &str = "ready";

/// How long the two programs may take, which ask nobody.
const LIMIT: Duration = Duration::from_secs(30);

/// How long the agent keeps the key at most, in seconds; the connection is made or has failed long before.
const LIFE: &str = "3600";

/// An agent with one key.
#[derive(Debug)]
pub(super) struct Agent {
    /// The shell that ends the agent.
    child: Child,
    /// What it waits for the end of.
    stdin: Option<ChildStdin>,
    /// Where it is asked.
    pub(super) socket: PathBuf,
    /// The public half of the key, by which `ssh` chooses it.
    pub(super) public: String,
}

impl Agent {
    /// Starts an agent at `socket` and gives it the key.
    pub(super) async fn with(key: &Secret, socket: &Path, host: &str) -> Result<Self, SshError> {
        let failed = |reason: String| SshError::Local { host: host.to_owned(), reason };
        match tokio::time::timeout(LIMIT, start(key, socket)).await {
            Ok(started) => started.map_err(failed),
            Err(_) => {
                Err(failed(format!("`ssh-agent` and `ssh-add` gave no answer within {} s", LIMIT.as_secs())))
            }
        }
    }

    /// Ends it, and with it the last that is known of the key.
    pub(super) async fn end(mut self) {
        drop(self.stdin.take());
        if tokio::time::timeout(LIMIT, self.child.wait()).await.is_err() {
            interrupt(&mut self.child).await;
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn start(key: &Secret, socket: &Path) -> Result<Agent, String> {
    let mut command = program("ssh-agent")?;
    command.arg("-t").arg(LIFE).arg("-a").arg(socket).args([
        "sh",
        "-c",
        &format!("echo {READY}; cat >&2; kill \"$SSH_AGENT_PID\""),
    ]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("ssh-agent: {error}"))?;
    let stdin = child.stdin.take();
    let said = child.stdout.take().ok_or("ssh-agent has no output")?;
    let line = Lines::of(said, 4096).next().await.ok().flatten();
    if line.as_deref() != Some(READY) {
        let complaint = match child.stderr.take() {
            Some(stderr) => complaint(stderr).await,
            None => String::new(),
        };
        return Err(format!("ssh-agent: {}", complaint.trim()));
    }
    // OpenSSH wants the line break at the end that people lose in variables.
    let text = Zeroizing::new(format!("{}\n", key.expose().trim_end()));
    ask(socket, &["-q", "-"], text.as_bytes()).await.map_err(|error| {
        format!("what `private_keys` has for it is not a private key without a passphrase: {error}")
    })?;
    let public = ask(socket, &["-L"], b"").await?;
    Ok(Agent { child, stdin, socket: socket.to_path_buf(), public })
}

/// Runs `ssh-add`.
async fn ask(socket: &Path, arguments: &[&str], input: &[u8]) -> Result<String, String> {
    let mut command = program("ssh-add")?;
    // Nobody is to be asked for a passphrase, on whatever terminal or display.
    command.env("SSH_AUTH_SOCK", socket).env("SSH_ASKPASS_REQUIRE", "force").env("SSH_ASKPASS", "false");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("ssh-add: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // What it does not take it complains about.
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    }
    let output = child.wait_with_output().await.map_err(|error| format!("ssh-add: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(complaint(output.stderr.as_slice()).await.trim().to_owned())
}

fn program(name: &str) -> Result<Command, String> {
    let path = find_on_path(name).ok_or_else(|| {
        format!("no `{name}` was found on PATH; it comes with OpenSSH's client, beside `ssh`")
    })?;
    let mut command = Command::new(path);
    command.process_group(0).kill_on_drop(true);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::super::{KeyPair, KeyType};
    use super::*;

    #[tokio::test]
    async fn an_agent_has_the_key_until_it_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent");
        for kind in [KeyType::Ed25519, KeyType::Rsa { bits: 2048 }] {
            let pair = KeyPair::generate(kind).await.unwrap();
            let agent = Agent::with(&pair.private, &socket, "web").await.unwrap();
            assert!(agent.public.starts_with(&pair.public), "{} {}", agent.public, pair.public);
            let files: Vec<_> =
                std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path()).collect();
            assert_eq!(files, [socket.as_path()], "the key is in no file");
            agent.end().await;
            assert!(!socket.exists());
        }
    }

    #[tokio::test]
    async fn what_is_no_key_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let key = Secret::new("-----BEGIN OPENSSH PRIVATE KEY-----\nx9canary\n");
        let error = Agent::with(&key, &directory.path().join("agent"), "web").await.unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("`private_keys`") && error.contains("ssh-add") || error.contains("rror"),
            "{error}"
        );
        assert!(!error.contains("canary"), "{error}");
    }
}
