//! Root where the login is somebody else's: asked for once a connection, and shared by all of its commands.
//!
//! `sudo` and its like want a password on a terminal, and what a command reads belongs to the command. So one shell becomes root,
//! on a terminal where there is a password to type, and stays there; commands reach it through a directory that only the user who
//! logged in and root can enter. It ends with the connection.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use super::{Connection, Secret, SshError};
use crate::nix::{find_on_path, interrupt};

const PREPARE: &str = include_str!("prepare.sh");

/// What the shell prints once it is root.
const READY: &str = "nixos-activator: root";

/// How long it may take to become root: directories of users are asked over the network.
const LIMIT: Duration = Duration::from_mins(1);

/// How long a question has to stand there before it is answered. Who asks may throw away what was typed before.
const PAUSE: Duration = Duration::from_millis(300);

/// A shell of root's on the machine.
#[derive(Debug)]
pub(super) struct Root {
    /// The program that hands commands to it.
    pub(super) client: String,
    /// It ends when this does.
    _stdin: ChildStdin,
    _watch: AbortOnDropHandle<()>,
}

impl Root {
    /// Becomes root by the endpoint's `elevate`. When the shell ends by itself, so does the connection, whose `master` this is:
    /// commands would wait for it in vain.
    pub(super) async fn open(connection: &Connection, master: &Arc<Mutex<Child>>) -> Result<Self, SshError> {
        let endpoint = connection.endpoint();
        let failed = |reason: String| SshError::Elevate {
            host: endpoint.host.clone(),
            command: endpoint.elevate.join(" "),
            reason,
        };
        let prepared = connection.run(&["sh", "-s"], PREPARE.as_bytes()).await?;
        let said = String::from_utf8_lossy(&prepared.stdout);
        let directory = said.trim();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        if prepared.code != Some(0) || !directory.starts_with('/') || !directory.chars().all(is_plain) {
            return Err(failed(format!("{directory} {}", prepared.stderr.trim())));
        }

        let ssh = find_on_path("ssh").ok_or(SshError::NotFound)?;
        let password = endpoint.elevate_password.as_ref();
        let mut shell = start(&ssh, connection, directory, password.is_some())
            .map_err(|error| SshError::Local { host: endpoint.host.clone(), reason: error.to_string() })?;
        let (Some(mut stdin), Some(mut stdout), Some(stderr)) =
            (shell.stdin.take(), shell.stdout.take(), shell.stderr.take())
        else {
            return Err(failed("it has no streams".to_owned()));
        };
        let complaints = tokio::spawn(text_of(stderr));
        let ready = tokio::time::timeout(LIMIT, wait_until_root(&mut stdin, &mut stdout, password)).await;
        let reason = match ready {
            Ok(Ok(())) => {
                let watch = watch(shell, stdout, master.clone());
                return Ok(Self {
                    client: format!("{directory}/as-root"),
                    _stdin: stdin,
                    _watch: AbortOnDropHandle::new(tokio::spawn(watch)),
                });
            }
            Ok(Err(NotRoot::Refused)) => "the password was not accepted".to_owned(),
            Ok(Err(NotRoot::Ended(said))) => {
                let complaints = complaints.await.unwrap_or_default();
                without_frame(&format!("{said}\n{complaints}"))
            }
            Err(_) => format!("no answer within {} s", LIMIT.as_secs()),
        };
        interrupt(&mut shell).await;
        // Root has not been there, so that it is still ours to remove.
        let _ = connection.run(&["rm", "-rf", "--", directory], b"").await;
        Err(failed(reason))
    }
}

/// Why a shell is not root.
#[derive(Debug, PartialEq, Eq)]
enum NotRoot {
    /// It asked for the password once more.
    Refused,
    /// It ended, with these words.
    Ended(String),
}

fn start(
    ssh: &Path,
    connection: &Connection,
    directory: &str,
    on_terminal: bool,
) -> Result<Child, std::io::Error> {
    let endpoint = connection.endpoint();
    // Messages that we can tell apart.
    let words = ["env", "LC_ALL=C"].into_iter().chain(endpoint.elevate.iter().map(String::as_str));
    let words: Vec<String> = words.map(quoted).collect();
    let mut command = Command::new(ssh);
    command.args(connection.ssh_options().split(' ')).args(on_terminal.then_some("-tt"));
    command.arg("--").arg(&endpoint.host).arg(format!("{} sh {directory}/serve", words.join(" ")));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command.spawn()
}

/// A word for the shell that logs in.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Answers the question for the password, and returns once the shell says that it is root.
async fn wait_until_root(
    stdin: &mut (impl AsyncWriteExt + Unpin),
    stdout: &mut (impl AsyncRead + Unpin),
    password: Option<&Secret>,
) -> Result<(), NotRoot> {
    let mut heard = String::new();
    let mut answered = false;
    let mut buffer = [0; 1024];
    // What is typed is not shown, unless it was no question for a password after all.
    let ended = |heard: &str| {
        let hidden = password.map(|password| heard.replace(password.expose(), "(sensitive)"));
        NotRoot::Ended(hidden.unwrap_or_else(|| heard.to_owned()))
    };
    loop {
        let asks = password.is_some() && is_question(&heard);
        let read = tokio::select! {
            read = stdout.read(&mut buffer) => read.unwrap_or_default(),
            () = tokio::time::sleep(PAUSE), if asks => {
                let Some(password) = password.filter(|_| !answered) else {
                    return Err(NotRoot::Refused);
                };
                answered = true;
                heard.push('\n');
                // Where nobody reads any more, nothing more is said either.
                let _ = stdin.write_all(format!("{}\n", password.expose()).as_bytes()).await;
                let _ = stdin.flush().await;
                continue;
            }
        };
        heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if heard.contains(READY) {
            return Ok(());
        }
        if read == 0 {
            return Err(ended(&heard));
        }
    }
}

/// Whether the last thing said waits for an answer.
fn is_question(heard: &str) -> bool {
    heard.rsplit('\n').next().is_some_and(|line| line.trim_end().ends_with(':'))
}

/// Reads to the end what the shell still says, then ends the connection.
async fn watch(mut shell: Child, mut stdout: impl AsyncRead + Unpin, master: Arc<Mutex<Child>>) {
    let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
    let _ = shell.wait().await;
    interrupt(&mut *master.lock().await).await;
}

async fn text_of(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8_lossy(&text).into_owned()
}

/// What was said, in a line, without what `ssh` says of the session's end.
fn without_frame(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("Shared connection to"));
    let text = lines.collect::<Vec<_>>().join("; ");
    if text.is_empty() { "it ended without a word".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a machine that says `said`, each part after it was sent something, and returns what it was sent.
    async fn played(said: &[&str], password: Option<&str>) -> (Result<(), NotRoot>, String) {
        let (mut ours, theirs) = tokio::io::duplex(4096);
        let (mut from_us, mut to_us) = tokio::io::split(theirs);
        let (mut stdout, mut stdin) = tokio::io::split(&mut ours);
        let password = password.map(Secret::new);
        let machine = async {
            let mut sent = String::new();
            for (number, part) in said.iter().enumerate() {
                let mut buffer = [0; 256];
                if number > 0 {
                    let read = from_us.read(&mut buffer).await.unwrap();
                    sent.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                }
                to_us.write_all(part.as_bytes()).await.unwrap();
            }
            // It would listen for longer than anybody waits.
            tokio::time::sleep(2 * PAUSE).await;
            to_us.shutdown().await.unwrap();
            sent
        };
        tokio::join!(wait_until_root(&mut stdin, &mut stdout, password.as_ref()), machine)
    }

    #[tokio::test(start_paused = true)]
    async fn the_password_is_typed_once_and_only_where_it_is_asked_for() {
        let root = "nixos-activator: root\r\n";
        assert_eq!(played(&[root], Some("pw")).await, (Ok(()), String::new()));
        let asked = played(&["A lecture:\r\n[sudo] password for deploy: ", root], Some("pw")).await;
        assert_eq!(asked, (Ok(()), "pw\n".to_owned()));
        let wrong = "doas (deploy@web) password: ";
        assert_eq!(played(&[wrong, wrong], Some("pw")).await, (Err(NotRoot::Refused), "pw\n".to_owned()));
        let none = "a terminal is required to read the password:";
        assert_eq!(played(&[none], None).await.0, Err(NotRoot::Ended(none.to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_that_comes_back_is_not_shown() {
        let (ended, _) = played(&["Your name: ", "pw is nobody\r\n"], Some("pw")).await;
        assert_eq!(ended, Err(NotRoot::Ended("Your name: \n(sensitive) is nobody\r\n".to_owned())));
    }
}
