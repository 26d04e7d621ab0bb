//! Listening to an agent: which activation it works on, and what it says of it.
//!
//! Events are numbered and kept on the machine, so whoever lost a connection asks for those from the one they missed.

use std::time::Duration;

use nixos_agent::{DeploymentId, Event, EventKind, Report};
use openssh::RemoteChild;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::activate::{AGENTS, ActivateError};
use crate::ssh::{Connection, SshError};

/// An activation at work on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The path of an agent that can be asked about it.
    pub agent: String,
    /// Which one it is.
    pub id: DeploymentId,
    /// How long ago it was asked for.
    pub age: Duration,
}

/// Asks the newest agent that knows the answer and prints `agent id seconds`; nothing where there is no agent, as where none is at
/// work. It writes nothing.
const SCRIPT: &str = r#"
PATH="$PATH:/run/current-system/sw/bin:/usr/bin:/bin"
[ "$(id -u)" = 0 ] || { echo "this needs root" >&2; exit 1; }
found=
for agent in $(ls -t "$1"/*/nixos-agent 2>/dev/null); do
  found=yes
  said="$("$agent" running 2>/dev/null)" || continue
  [ -z "$said" ] || echo "$agent $said"
  exit 0
done
[ -z "$found" ] || { echo "it is of a version that cannot say what it works on" >&2; exit 1; }
"#;

/// The activation that a machine is at work on. An error of the agent means that it cannot be asked.
pub async fn running(connection: &Connection) -> Result<Option<Running>, ActivateError> {
    let answer = connection.run_as_root(&["sh", "-c", SCRIPT, "sh", AGENTS], b"").await?;
    if answer.code == Some(0) {
        return Ok(parse(&String::from_utf8_lossy(&answer.stdout)));
    }
    let host = connection.endpoint().host.clone();
    Err(ActivateError::Agent { host, code: answer.code, message: answer.stderr.trim().to_owned() })
}

fn parse(text: &str) -> Option<Running> {
    let mut words = text.split_whitespace();
    Some(Running {
        agent: words.next()?.to_owned(),
        id: words.next()?.parse().ok()?,
        age: Duration::from_secs(words.next()?.parse().ok()?),
    })
}

/// Listens to an activation from the event of number `from` to its last, whose report it returns.
pub async fn attach(
    connection: &Connection,
    running: &Running,
    from: u64,
    on_event: impl FnMut(&Event),
) -> Result<Report, ActivateError> {
    let from = from.to_string();
    listen(connection, &[&running.agent, "attach", running.id.as_str(), "--from", &from], b"", on_event).await
}

/// Runs a command of an agent that prints events, with `input` on its standard input, and returns the report in the last one.
pub(crate) async fn listen(
    connection: &Connection,
    command: &[&str],
    input: &[u8],
    on_event: impl FnMut(&Event),
) -> Result<Report, ActivateError> {
    let mut child = connection.spawn_as_root(command).await?;
    if let Some(mut stdin) = child.stdin().take() {
        // A broken pipe shows in what the agent says or does not say.
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    }
    let stderr = child.stderr().take();
    let host = connection.endpoint().host.as_str();
    let (report, message) = tokio::join!(events(host, &mut child, on_event), async {
        let mut text = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = stderr.read_to_end(&mut text).await;
        }
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    let code = connection.exit_code(child).await;
    match (report, code) {
        (Some(report), _) => Ok(report),
        (None, Ok(Some(code))) if code != 255 => {
            Err(ActivateError::Agent { host: host.to_owned(), code: Some(code), message })
        }
        (None, Err(error)) => Err(error.into()),
        (None, Ok(_)) => {
            Err(SshError::Lost { host: host.to_owned(), reason: "no answer from the agent".to_owned() }
                .into())
        }
    }
}

/// The report at the end of the stream; `None` when the stream ends before.
async fn events(host: &str, child: &mut RemoteChild<'_>, mut on_event: impl FnMut(&Event)) -> Option<Report> {
    let mut lines = BufReader::new(child.stdout().take()?).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(event) = serde_json::from_str::<Event>(&line) else {
            tracing::warn!(host, line, "not an event of the agent");
            continue;
        };
        on_event(&event);
        if let EventKind::Done(report) = event.kind {
            return Some(*report);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_read_from_a_line() {
        let running = parse("/var/lib/nixos-agent/bin/0a/nixos-agent 5e3d-1 12\n").unwrap();
        assert_eq!((running.id.as_str(), running.age), ("5e3d-1", Duration::from_secs(12)));
        assert_eq!(running.agent, "/var/lib/nixos-agent/bin/0a/nixos-agent");
        for nothing in ["", "\n", "/bin/nixos-agent", "/bin/nixos-agent ../.. 1", "/bin/nixos-agent a soon"] {
            assert_eq!(parse(nothing), None, "{nothing:?}");
        }
    }
}
