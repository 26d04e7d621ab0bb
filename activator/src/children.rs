//! Programs that we run where Terraform runs: Nix and those that bring secrets.
//!
//! Each is in a session of its own, for two reasons. It has no terminal, so that `git`, `ssh` or `pass` below it fail
//! where they would ask: nobody would see the question, and a process group in the background is stopped when it
//! reads the terminal. And Ctrl-C does not reach it before we decide.

use std::process::ExitStatus;
use std::time::Duration;

use process_wrap::tokio::{CommandWrap, CommandWrapper as _, ProcessSession};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::temporary;

/// How long an interrupted program may take to clean up before it is killed.
const GRACE: Duration = Duration::from_secs(2);

/// How long what a program has printed may take to arrive once it has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Starts a program in a session of its own.
pub(crate) fn start(mut command: Command) -> std::io::Result<Child> {
    let nothing = CommandWrap::from(Command::new(""));
    // Only what it does before the start is wanted: `interrupt` knows the group.
    ProcessSession.pre_spawn(&mut command, &nothing)?;
    // `git` asks for a user name even where there is no terminal, by the program that it is told to ask by.
    if std::env::var_os("GIT_TERMINAL_PROMPT").is_none() {
        command.env("GIT_TERMINAL_PROMPT", "0");
    }
    if let Some(place) = temporary::chosen() {
        command.env("TMPDIR", place);
    }
    command.kill_on_drop(true).spawn()
}

/// Waits for a program's end while `talk` writes to it and reads from it. A process that it left behind may keep its
/// pipes open; then talking is given up soon after the program has ended.
pub(crate) async fn finished(
    child: &mut Child,
    talk: impl Future<Output = ()>,
) -> std::io::Result<ExitStatus> {
    tokio::pin!(talk);
    tokio::select! {
        () = &mut talk => child.wait().await,
        status = child.wait() => {
            let _ = tokio::time::timeout(LAST_WORDS, talk).await;
            status
        }
    }
}

/// Asks the whole process group to stop, then makes sure of it.
pub(crate) async fn interrupt(child: &mut Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        // The group may be gone already, which is what we want.
        let _ = kill_process_group(group, Signal::INT);
        if tokio::time::timeout(GRACE, child.wait()).await.is_ok() {
            return;
        }
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        start(command).unwrap()
    }

    /// What it printed, and whether it ended well.
    async fn said(script: &str) -> (String, bool) {
        let mut child = shell(script);
        let mut stdout = child.stdout.take().unwrap();
        let mut bytes = vec![];
        let talk = async {
            let mut piece = [0; 64];
            while let Ok(length @ 1..) = stdout.read(&mut piece).await {
                bytes.extend_from_slice(&piece[..length]);
            }
        };
        let status = finished(&mut child, talk).await.unwrap();
        (String::from_utf8(bytes).unwrap(), status.success())
    }

    #[tokio::test]
    async fn a_program_has_no_terminal_and_a_session_of_its_own() {
        // The session of this test may have no number here: its leader may be outside the container.
        let (text, _) =
            said("echo $$; cut -d ' ' -f 6 /proc/self/stat; exec 2>/dev/null </dev/tty && echo terminal")
                .await;
        let (own, session) = text.split_once('\n').unwrap();
        assert_eq!(session, format!("{own}\n"), "the session it leads, and no terminal");
        assert_eq!(said("echo $GIT_TERMINAL_PROMPT").await.0, "0\n");
    }

    #[tokio::test]
    async fn a_process_that_is_left_behind_keeps_nobody_waiting() {
        let (text, ended_well) = said("echo $$; sleep 600 & echo last").await;
        assert!(ended_well && text.ends_with("last\n"), "{text}");
        // It is in the session of the program that has ended.
        let group = text.lines().next().and_then(|id| Pid::from_raw(id.parse().ok()?)).unwrap();
        kill_process_group(group, Signal::KILL).expect("it still ran");
    }

    #[tokio::test]
    async fn an_interrupt_is_for_the_whole_group() {
        let mut child = shell("trap '' INT; sleep 600 & echo $!; wait");
        let mut stdout = child.stdout.take().unwrap();
        let mut text = String::new();
        // The pipe is closed when both have ended.
        tokio::join!(interrupt(&mut child), async { stdout.read_to_string(&mut text).await.unwrap() });
        let other: i32 = text.trim().parse().unwrap_or_default();
        assert!(other == 0 || !std::path::Path::new(&format!("/proc/{other}/cwd/.")).exists(), "{text}");
    }
}
