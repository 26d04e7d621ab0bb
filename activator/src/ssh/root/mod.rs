//! Root where the login is somebody else's: asked for once a connection, and shared by all of its commands.
//!
//! `sudo` and its like want a password on a terminal, and what a command reads belongs to the command. So one shell
//! becomes root, on a terminal where there is a password to type, and stays there; commands reach it through a
//! directory that only the user who logged in and root can enter. It ends with the connection.

mod prompt;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

use zeroize::Zeroizing;

use super::command_line::for_any_shell;
use super::config::ALIAS;
use super::session::UserSession;
use super::{Secret, SshError};
use crate::children::interrupt;
use crate::nix::find_on_path;
use crate::text::{complaint, plain};
use prompt::Prompt;

const PREPARE: &str = include_str!("prepare.sh");

/// What the shell prints once it is root.
const READY: &str = "nixos-activator: root";

/// How long it may take to become root: directories of users are asked over the network.
const LIMIT: Duration = Duration::from_mins(1);

/// The most that is listened to before it is root.
const LONGEST: usize = 64 << 10;

/// How long another question may stand there: nobody will answer it.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// Becomes root by the endpoint's `elevate`. When the shell ends by itself, so does the connection, whose
    /// `master` this is: commands would wait for it in vain.
    pub(super) async fn open(session: &UserSession, master: &Arc<Mutex<Child>>) -> Result<Self, SshError> {
        let endpoint = &session.endpoint;
        let failed = |reason: String| SshError::Elevate {
            host: endpoint.host.clone(),
            command: endpoint.elevate.join(" "),
            reason,
        };
        let prepared = session.run(&["sh", "-s"], PREPARE.as_bytes()).await?;
        let said = prepared.text();
        let directory = said.trim();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        if prepared.code != Some(0) || !directory.starts_with('/') || !directory.chars().all(is_plain) {
            return Err(failed(format!("{directory} {}", prepared.stderr.trim())));
        }

        let ssh = find_on_path("ssh").ok_or(SshError::NotFound)?;
        let password = endpoint.elevate_password.as_ref();
        let prompt = Prompt::of(&endpoint.elevate);
        let words =
            if password.is_some() { prompt.words(&endpoint.elevate) } else { endpoint.elevate.clone() };
        let mut shell = start(&ssh, session, directory, &words, password.is_some())
            .map_err(|error| SshError::Local { host: endpoint.host.clone(), reason: error.to_string() })?;
        let (Some(mut stdin), Some(mut stdout), Some(stderr)) =
            (shell.stdin.take(), shell.stdout.take(), shell.stderr.take())
        else {
            return Err(failed("it has no streams".to_owned()));
        };
        let complaints = tokio::spawn(complaint(stderr));
        let ready =
            tokio::time::timeout(LIMIT, wait_until_root(&mut stdin, &mut stdout, &prompt, password)).await;
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
            Ok(Err(NotRoot::Asks(question))) => format!(
                "it asks `{question}`, and `elevate_password` is only given to a question for a password"
            ),
            Ok(Err(NotRoot::Ended(said))) => {
                let complaints = complaints.await.unwrap_or_default();
                without_frame(&format!("{said}\n{complaints}"))
            }
            Err(_) => format!("no answer within {} s", LIMIT.as_secs()),
        };
        interrupt(&mut shell).await;
        // Root has not been there, so that it is still ours to remove.
        let _ = session.run(&["rm", "-rf", "--", directory], b"").await;
        Err(failed(reason))
    }
}

/// Why a shell is not root.
#[derive(Debug, PartialEq, Eq)]
enum NotRoot {
    /// It asked for the password once more.
    Refused,
    /// It asked for something else.
    Asks(String),
    /// It ended, with these words.
    Ended(String),
}

fn start(
    ssh: &Path,
    session: &UserSession,
    directory: &str,
    elevate: &[String],
    on_terminal: bool,
) -> Result<Child, std::io::Error> {
    // Messages that we can tell apart.
    let serve = format!("{directory}/serve");
    let words = ["env", "LC_ALL=C"].into_iter().chain(elevate.iter().map(String::as_str));
    let words: Vec<&str> = words.chain(["sh", serve.as_str()]).collect();
    let mut command = Command::new(ssh);
    // No character of a password ends the connection.
    command.args(session.ssh_options()).args(["-e", "none"]).args(on_terminal.then_some("-tt"));
    command.args(["--", ALIAS]).arg(for_any_shell(&words)).env("LC_ALL", "C");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command.spawn()
}

/// Answers the question for the password, and returns once the shell says that it is root.
async fn wait_until_root(
    stdin: &mut (impl AsyncWriteExt + Unpin),
    stdout: &mut (impl AsyncRead + Unpin),
    prompt: &Prompt,
    password: Option<&Secret>,
) -> Result<(), NotRoot> {
    let mut heard = String::new();
    let mut answered = false;
    let mut buffer = [0; 1024];
    // A terminal shows what is typed where it was no question for a password after all.
    let shown = |heard: &str| {
        plain(
            &password
                .map_or_else(|| heard.to_owned(), |password| heard.replace(password.expose(), "(sensitive)")),
        )
    };
    loop {
        let question = password.and_then(|_| prompt.question(&heard));
        let read = tokio::select! {
            read = stdout.read(&mut buffer) => read.unwrap_or_default(),
            () = tokio::time::sleep(PAUSE), if question == Some(prompt::Question::Password) => {
                let Some(password) = password.filter(|_| !answered) else {
                    return Err(NotRoot::Refused);
                };
                answered = true;
                heard.push('\n');
                let line = Zeroizing::new(format!("{}\n", password.expose()));
                // Where nobody reads any more, nothing more is said either.
                let _ = stdin.write_all(line.as_bytes()).await;
                let _ = stdin.flush().await;
                continue;
            }
            () = tokio::time::sleep(PATIENCE), if question == Some(prompt::Question::Other) => {
                let asks = shown(heard.rsplit('\n').next().unwrap_or_default());
                return Err(NotRoot::Asks(asks.trim().to_owned()));
            }
        };
        heard.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if heard.contains(READY) {
            return Ok(());
        }
        if read == 0 || heard.len() > LONGEST {
            return Err(NotRoot::Ended(shown(&heard)));
        }
    }
}

/// Reads to the end what the shell still says, then ends the connection.
async fn watch(mut shell: Child, mut stdout: impl AsyncRead + Unpin, master: Arc<Mutex<Child>>) {
    let _ = tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await;
    let _ = shell.wait().await;
    interrupt(&mut *master.lock().await).await;
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
    async fn played(elevate: &str, said: &[&str], password: Option<&str>) -> (Result<(), NotRoot>, String) {
        let (mut ours, theirs) = tokio::io::duplex(4096);
        let (mut from_us, mut to_us) = tokio::io::split(theirs);
        let (mut stdout, mut stdin) = tokio::io::split(&mut ours);
        let password = password.map(Secret::new);
        let prompt = Prompt::of(&[elevate.to_owned()]);
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
            tokio::time::sleep(2 * PATIENCE).await;
            to_us.shutdown().await.unwrap();
            sent
        };
        tokio::join!(wait_until_root(&mut stdin, &mut stdout, &prompt, password.as_ref()), machine)
    }

    #[tokio::test(start_paused = true)]
    async fn the_password_is_typed_once_and_only_where_it_is_asked_for() {
        let root = "nixos-activator: root\r\n";
        assert_eq!(played("sudo", &[root], Some("pw")).await, (Ok(()), String::new()));
        let ours = "nixos-activator: password: ";
        let asked = played("sudo", &[&format!("A lecture:\r\n{ours}"), root], Some("pw")).await;
        assert_eq!(asked, (Ok(()), "pw\n".to_owned()));
        let again = format!("Sorry, try again.\r\n{ours}");
        let refused = played("sudo", &[ours, &again], Some("pw")).await;
        assert_eq!(refused, (Err(NotRoot::Refused), "pw\n".to_owned()));
        let wrong = "doas (deploy@web) password: ";
        assert_eq!(
            played("doas", &[wrong, wrong], Some("pw")).await,
            (Err(NotRoot::Refused), "pw\n".to_owned())
        );
        let none = "a terminal is required to read the password:";
        assert_eq!(played("sudo", &[none], None).await.0, Err(NotRoot::Ended(none.to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn other_questions_do_not_get_the_password() {
        for (elevate, question) in [
            ("sudo", "Verification code: "),
            ("sudo", "[sudo] password for deploy: "),
            ("doas", "Password for the vault: "),
            ("run0", "Password: "),
            ("other", "One-time password (OATH) for `deploy': "),
            ("other", "Your name: "),
        ] {
            let (asked, typed) = played(elevate, &[question], Some("pw")).await;
            assert_eq!(
                (asked, typed.as_str()),
                (Err(NotRoot::Asks(question.trim().to_owned())), ""),
                "{elevate}"
            );
        }
        // A second factor comes after the password.
        let (asked, typed) = played("doas", &["doas (a@b) password: ", "Code: "], Some("pw")).await;
        assert_eq!((asked, typed.as_str()), (Err(NotRoot::Asks("Code:".to_owned())), "pw\n"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_that_comes_back_is_not_shown() {
        let (ended, _) = played("other", &["password: ", "pw is nobody\u{1b}[1m\r\n"], Some("pw")).await;
        assert_eq!(ended, Err(NotRoot::Ended("password: \n(sensitive) is nobody\n".to_owned())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_talks_without_end_is_not_listened_to() {
        let long = "x".repeat(LONGEST + 1);
        let mut stdout = long.as_bytes();
        let ended = wait_until_root(&mut tokio::io::sink(), &mut stdout, &Prompt::of(&[]), None).await;
        assert!(matches!(ended, Err(NotRoot::Ended(_))), "{ended:?}");
    }
}
