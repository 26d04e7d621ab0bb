//! Commands of the login user over an open connection.

use std::path::Path;

use openssh::{RemoteChild, Session};
use tokio::io::AsyncWriteExt;

use super::Endpoint;
use super::command_line::for_any_shell;
use super::error::SshError;
use super::place::Place;
use crate::text::{complaint, plain, read_at_most};

/// The most that a command may print.
const LARGEST: usize = 64 << 20;

/// What the login user can do.
#[derive(Debug)]
pub(super) struct UserSession {
    pub(super) endpoint: Endpoint,
    pub(super) session: Session,
    pub(super) place: Place,
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

impl UserSession {
    /// Runs a command as the login user, with `input` on its standard input.
    pub(super) async fn run(&self, command: &[&str], input: &[u8]) -> Result<Answer, SshError> {
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
    pub(super) async fn exit_code(&self, child: RemoteChild<'_>) -> Result<Option<i32>, SshError> {
        match child.wait().await {
            Ok(status) => Ok(status.code()),
            // How the crate reports the shell's exit code for a command it does not find.
            Err(openssh::Error::Remote(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Some(127))
            }
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// The options that make another `ssh` (that of `nix copy`) go through this connection, to the host `ALIAS`.
    /// None contains a blank.
    pub(super) fn ssh_options(&self) -> Vec<String> {
        self.sharing(&self.place.file("shared"))
    }

    /// The options of an `ssh` that reads this configuration and goes through the connection.
    pub(super) fn sharing(&self, config: &Path) -> Vec<String> {
        let (config, socket) = (config.display().to_string(), self.place.socket().display().to_string());
        vec!["-F".to_owned(), config, "-S".to_owned(), socket, "-o".to_owned(), "ControlMaster=no".to_owned()]
    }

    /// Starts a command as the login user with pipes for all three streams.
    pub(super) async fn spawn(&self, command: &[&str]) -> Result<RemoteChild<'_>, SshError> {
        self.session
            .raw_command(for_any_shell(if command.is_empty() { &["true"] } else { command }))
            .stdin(openssh::Stdio::piped())
            .stdout(openssh::Stdio::piped())
            .stderr(openssh::Stdio::piped())
            .spawn()
            .await
            .map_err(|error| self.lost(&error))
    }

    fn lost(&self, error: &openssh::Error) -> SshError {
        let (host, reason) = (self.endpoint.host.clone(), with_causes(error));
        if reason.contains(NO_SESSION) {
            return SshError::NoSession { host, reason };
        }
        SshError::Lost { host, reason }
    }
}

/// How a master says that the server opens no more sessions.
const NO_SESSION: &str = "Session open refused by peer";

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
