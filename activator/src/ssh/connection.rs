//! An open connection and the commands that run over it.

use futures::FutureExt as _;
use futures::future::FusedFuture as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use openssh::{RemoteChild, Session};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, OnceCell};
use tokio_util::sync::CancellationToken;

use super::agent::Agent;
use super::config::{self, Files, Identity};
use super::root::Root;
use super::{Endpoint, HostKeyPolicy, Key, SshError};
use crate::children::interrupt;
use crate::nix::find_on_path;
use crate::text::{Lines, complaint, plain, read_at_most};

/// What the machine prints once the login has really worked.
const READY: &str = "nixos-activator: ready";

/// How many lines are kept of what a shell prints before it is ready.
const NOISE: usize = 20;

/// The longest path of a Unix socket, less the random suffix `ssh` adds while it binds.
const LONGEST_SOCKET: usize = 107 - 18;

/// The most that a command may print.
const LARGEST: usize = 64 << 20;

/// The most that a shell may say before it is ready.
const GREETING: usize = 1 << 20;

/// An open master connection.
#[derive(Debug)]
pub struct Connection {
    endpoint: Endpoint,
    session: Session,
    /// Before the master, so that it ends first.
    root: OnceCell<Root>,
    master: Arc<Mutex<Child>>,
    accepted_key: Option<String>,
    directory: TempDir,
}

/// What a remote command answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// The beginning of standard error, as text without control characters.
    pub stderr: String,
}

impl Answer {
    /// Standard output as text without control characters but line breaks and tabs.
    pub fn text(&self) -> String {
        plain(&String::from_utf8_lossy(&self.stdout))
    }
}

impl Connection {
    /// Connects and logs in once.
    pub async fn open(endpoint: &Endpoint, cancel: &CancellationToken) -> Result<Self, SshError> {
        let ssh = find_on_path("ssh").ok_or(SshError::NotFound)?;
        let directory = directory(&endpoint.host)?;
        let mut agents = vec![];
        let opened = open_master(&ssh, endpoint, directory.path(), &mut agents, cancel).await;
        // The keys have done their work.
        futures::future::join_all(agents.into_iter().map(Agent::end)).await;
        let (files, master) = opened?;
        let session = Session::resume_mux(control_socket(directory.path()).into(), None);
        let accepted_key = accepted_key(endpoint, &files);
        let master = Arc::new(Mutex::new(master));
        let pinned = endpoint.host_public_key.clone().or_else(|| accepted_key.clone());
        Ok(Self {
            endpoint: Endpoint { host_public_key: pinned, ..endpoint.clone() },
            session,
            root: OnceCell::new(),
            master,
            accepted_key,
            directory,
        })
    }

    /// Connects; where the host does not answer (yet), tries again with growing pauses until `deadline` has passed.
    pub async fn open_within(
        endpoint: &Endpoint,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Self, SshError> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(500);
        loop {
            match Self::open(endpoint, cancel).await {
                Err(error) if error.is_unreachable() && start.elapsed() + pause < deadline => {
                    tracing::info!(host = endpoint.host, %error, "waiting for the machine");
                }
                result => return result,
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return Err(SshError::Cancelled),
            }
            pause = (pause * 3 / 2).min(Duration::from_secs(5));
        }
    }

    /// Where this goes. A host key that was accepted on first use is the only one there from now on.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The host key accepted on first use, where the policy allows that.
    pub fn accepted_key(&self) -> Option<&str> {
        self.accepted_key.as_deref()
    }

    /// The port that was really used: the endpoint's, or the one that all the configuration files of `ssh` lead to.
    pub async fn port(&self) -> Result<u16, SshError> {
        if let Some(port) = self.endpoint.port {
            return Ok(port);
        }
        let local = |reason: String| SshError::Local { host: self.endpoint.host.clone(), reason };
        let output = Command::new(find_on_path("ssh").ok_or(SshError::NotFound)?)
            .arg("-F")
            .arg(config_file(self.directory.path()))
            .args(["-G", "--", config::host(&self.endpoint.host)?])
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| local(error.to_string()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let port = text.lines().find_map(|line| line.strip_prefix("port ")?.parse().ok());
        port.ok_or_else(|| local(plain(&String::from_utf8_lossy(&output.stderr)).trim().to_owned()))
    }

    /// Whether the master still runs.
    pub async fn is_alive(&self) -> bool {
        matches!(self.master.lock().await.try_wait(), Ok(None))
    }

    /// Runs a command as the login user, with `input` on its standard input.
    pub async fn run(&self, command: &[&str], input: &[u8]) -> Result<Answer, SshError> {
        let mut child = self.spawn(command).await?;
        let (stdin, stdout, stderr) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A command that does not read its input is free to do so.
                let _ = stdin.write_all(input).await;
                let _ = stdin.shutdown().await;
            }
        };
        let read_stdout = async {
            match stdout {
                Some(stdout) => read_at_most(stdout, LARGEST).await.ok_or(()),
                None => Ok(vec![]),
            }
        };
        let finished = async {
            let read_stderr = async {
                match stderr {
                    Some(stderr) => complaint(stderr).await,
                    None => String::new(),
                }
            };
            let ((), stderr) = tokio::join!(write, read_stderr);
            Ok(stderr)
        };
        // A command that prints without end is not waited for.
        let Ok((stdout, stderr)) = tokio::try_join!(read_stdout, finished) else {
            let host = self.endpoint.host.clone();
            let reason = format!("a command there printed more than {} MiB", LARGEST >> 20);
            return Err(SshError::Other { host, reason });
        };
        let code = self.exit_code(child).await?;
        Ok(Answer { code, stdout, stderr })
    }

    /// Waits for a command to end; `None` when a signal ended it.
    pub async fn exit_code(&self, child: RemoteChild<'_>) -> Result<Option<i32>, SshError> {
        match child.wait().await {
            Ok(status) => Ok(status.code()),
            // How the crate reports the shell's exit code for a command it does not find.
            Err(openssh::Error::Remote(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Some(127))
            }
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Runs a command as root: as it is, or through the endpoint's `elevate`.
    pub async fn run_as_root(&self, command: &[&str], input: &[u8]) -> Result<Answer, SshError> {
        self.run(&[self.to_root().await?.as_slice(), command].concat(), input).await
    }

    /// Starts a command as root with pipes for all three streams.
    pub async fn spawn_as_root(&self, command: &[&str]) -> Result<RemoteChild<'_>, SshError> {
        self.spawn(&[self.to_root().await?.as_slice(), command].concat()).await
    }

    /// The words that make those after them a command of root's. None contains a blank.
    pub async fn to_root(&self) -> Result<Vec<&str>, SshError> {
        if self.endpoint.elevate.is_empty() {
            return Ok(vec![]);
        }
        let root = self.root.get_or_try_init(|| Root::open(self, &self.master)).await?;
        Ok(vec!["sh", &root.client])
    }

    /// The options that make another `ssh` (that of `nix copy`) go through this connection.
    pub fn ssh_options(&self) -> String {
        let path = self.directory.path();
        format!(
            "-F {} -S {} -o ControlMaster=no",
            config_file(path).display(),
            control_socket(path).display()
        )
    }

    /// Ends the connection and removes its files.
    pub async fn close(&self) {
        interrupt(&mut *self.master.lock().await).await;
        let _ = std::fs::remove_dir_all(self.directory.path());
    }

    /// Starts a command as the login user with pipes for all three streams.
    pub async fn spawn(&self, command: &[&str]) -> Result<RemoteChild<'_>, SshError> {
        let (program, arguments) = command.split_first().map_or(("true", &[][..]), |(p, a)| (*p, a));
        self.session
            .command(program)
            .args(arguments)
            .stdin(openssh::Stdio::piped())
            .stdout(openssh::Stdio::piped())
            .stderr(openssh::Stdio::piped())
            .spawn()
            .await
            .map_err(|error| self.lost(&error))
    }

    fn lost(&self, error: &openssh::Error) -> SshError {
        SshError::Lost { host: self.endpoint.host.clone(), reason: with_causes(error) }
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A private directory whose path is short enough for a socket, and has nothing in it that `ssh` (`%`) or Nix (blanks, in `NIX_SSHOPTS`)
/// would take for something else.
fn directory(host: &str) -> Result<TempDir, SshError> {
    let local = |error: std::io::Error| SshError::Local { host: host.to_owned(), reason: error.to_string() };
    let mut builder = tempfile::Builder::new();
    builder.prefix("nixos-ssh-").permissions(std::fs::Permissions::from_mode(0o700));
    let usual = builder.tempdir().map_err(local)?;
    let socket = control_socket(usual.path());
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+@,=".contains(byte);
    if socket.as_os_str().len() <= LONGEST_SOCKET
        && socket.as_os_str().as_encoded_bytes().iter().all(is_plain)
    {
        return Ok(usual);
    }
    builder.tempdir_in("/tmp").map_err(local)
}

fn config_file(directory: &Path) -> PathBuf {
    directory.join("config")
}

fn control_socket(directory: &Path) -> PathBuf {
    directory.join("ctl")
}

/// Starts a master that has logged in. What it needed only for that is in `agents`.
async fn open_master(
    ssh: &Path,
    endpoint: &Endpoint,
    directory: &Path,
    agents: &mut Vec<Agent>,
    cancel: &CancellationToken,
) -> Result<(Files, Child), SshError> {
    let files = write_files(endpoint, directory, agents).await?;
    let mut master = start_master(ssh, endpoint, directory)?;
    let ready = tokio::select! {
        ready = wait_until_ready(&mut master, endpoint) => ready,
        () = cancel.cancelled() => Err(SshError::Cancelled),
    };
    match ready {
        Ok(()) => Ok((files, master)),
        Err(error) => {
            interrupt(&mut master).await;
            Err(error)
        }
    }
}

async fn write_files(
    endpoint: &Endpoint,
    directory: &Path,
    agents: &mut Vec<Agent>,
) -> Result<Files, SshError> {
    let host = endpoint.host.as_str();
    let files = Files {
        key: identity(&endpoint.key, &directory.join("key"), host, agents).await?,
        bastion_key: match &endpoint.bastion {
            Some(bastion) => {
                let path = directory.join("bastion_key");
                identity(&bastion.key, &path, &bastion.host, agents).await?
            }
            None => None,
        },
        known_hosts: directory.join("known_hosts"),
        bastion_known_hosts: directory.join("bastion_known_hosts"),
    };
    let pinned = |key: &Option<String>| key.as_deref().map(config::known_hosts_line).transpose();
    if let Some(line) = pinned(&endpoint.host_public_key)? {
        write_private(&files.known_hosts, &line, &endpoint.host)?;
    }
    if let Some(bastion) = &endpoint.bastion
        && let Some(line) = pinned(&bastion.host_public_key)?
    {
        write_private(&files.bastion_known_hosts, &line, &endpoint.host)?;
    }
    let home = std::env::home_dir();
    let text = config::render(endpoint, &files, home.as_deref())?;
    write_private(&config_file(directory), &text, &endpoint.host)?;
    Ok(files)
}

/// How `ssh` is told about a key. One that is a value goes into an agent, and its public half into a file.
async fn identity(
    key: &Key,
    path: &Path,
    host: &str,
    agents: &mut Vec<Agent>,
) -> Result<Option<Identity>, SshError> {
    match key {
        Key::Ambient => Ok(None),
        Key::File(file) => Ok(Some(Identity { file: file.clone(), agent: None })),
        Key::Text(text) => {
            let agent = Agent::with(text, &path.with_extension("agent"), host).await?;
            let file = path.with_extension("pub");
            let written = write_private(&file, &agent.public, host);
            let socket = agent.socket.clone();
            agents.push(agent);
            written?;
            Ok(Some(Identity { file, agent: Some(socket) }))
        }
    }
}

fn write_private(path: &Path, text: &str, host: &str) -> Result<(), SshError> {
    use std::io::Write as _;
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| SshError::Local {
            host: host.to_owned(),
            reason: format!("{}: {error}", path.display()),
        })
}

fn start_master(ssh: &Path, endpoint: &Endpoint, directory: &Path) -> Result<Child, SshError> {
    let mut command = Command::new(ssh);
    command.arg("-F").arg(config_file(directory)).args(["-M", "-T", "-o", "ControlPersist=no", "-S"]);
    command.arg(control_socket(directory)).args(["--", config::host(&endpoint.host)?]);
    command.arg(format!("echo '{READY}'; exec cat"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command
        .spawn()
        .map_err(|error| SshError::Local { host: endpoint.host.clone(), reason: error.to_string() })
}

/// Returns when the remote shell has spoken: only then does a login really work.
async fn wait_until_ready(master: &mut Child, endpoint: &Endpoint) -> Result<(), SshError> {
    let (stdout, stderr) = (master.stdout.take(), master.stderr.take());
    let mut noise = vec![];
    // Read for as long as the master lives: a talkative `ssh` would block on a full pipe one day. It ends with the master.
    let mut said = tokio::spawn(async move {
        match stderr {
            Some(stderr) => complaint(stderr).await,
            None => String::new(),
        }
    });
    let greeted = async {
        let mut lines = Lines::of(stdout?, GREETING);
        while let Ok(Some(line)) = lines.next().await {
            if line.trim_end() == READY {
                return Some(());
            }
            if noise.len() < NOISE {
                noise.push(line);
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
    match outcome {
        Ok(None) => Ok(()),
        Ok(Some(text)) => {
            // A shell that lets nobody work says so on its standard output.
            let text = if text.trim().is_empty() { noise.join("\n") } else { text };
            Err(SshError::from_stderr(&endpoint.host, &endpoint.user, &text))
        }
        Err(_) => Err(SshError::Unreachable {
            host: endpoint.host.clone(),
            reason: format!("no shell within {} s", limit.as_secs()),
        }),
    }
}

/// The host key that `accept-new` has just written down.
fn accepted_key(endpoint: &Endpoint, files: &Files) -> Option<String> {
    if endpoint.host_key_policy != HostKeyPolicy::AcceptNew || endpoint.host_public_key.is_some() {
        return None;
    }
    let text = std::fs::read_to_string(&files.known_hosts).ok()?;
    let mut words = text.lines().next()?.split_whitespace().skip(1);
    Some(format!("{} {}", words.next()?, words.next()?))
}
