//! Listening to an agent: which activation it works on, and what it says of it.
//!
//! Events are numbered and kept on the machine, so whoever lost a connection asks for those from the one they missed.

use std::time::Duration;

use nixos_agent::{ActivationId, Event, EventKind, Report, STORED_AGENT, SystemState};
use tokio::io::{AsyncRead, AsyncWriteExt};

use super::binary::AGENTS;
use super::error::AgentError;
use crate::ssh::{Connection, SshError};
use crate::text::{Lines, complaint, plain};

/// The most that an agent may say about one activation.
const MOST: usize = 256 << 20;

/// An activation at work on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The path of an agent that can be asked about it.
    pub agent: String,
    /// Which one it is.
    pub id: ActivationId,
    /// How long ago it was asked for.
    pub age: Duration,
}

/// Asks the newest agent that knows the answer and prints `agent id seconds`; nothing where there is no agent, as
/// where none is at work. It writes nothing.
const SCRIPT: &str = r#"
PATH="$PATH:/run/current-system/sw/bin:/usr/bin:/bin"
[ "$(id -u)" = 0 ] || { echo "this needs root" >&2; exit 1; }
found=
for agent in $(ls -t "$1"/*/nixos-agent 2>/dev/null) "$2"; do
  [ -x "$agent" ] || continue
  found=yes
  said="$("$agent" running 2>/dev/null)" || continue
  [ -z "$said" ] || echo "$agent $said"
  exit 0
done
[ -z "$found" ] || { echo "it is of a version that cannot say what it works on" >&2; exit 1; }
"#;

/// The activation that a machine is at work on. An error of the agent means that it cannot be asked.
pub async fn running(connection: &Connection) -> Result<Option<Running>, AgentError> {
    let answer = connection.run_as_root(&["sh", "-c", SCRIPT, "sh", AGENTS, STORED_AGENT], b"").await?;
    if answer.code == Some(0) {
        return Ok(parse(&answer.text()));
    }
    let host = connection.endpoint().host.clone();
    Err(AgentError::Agent { host, code: answer.code, message: answer.stderr.trim().to_owned() })
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
) -> Result<Report, AgentError> {
    let from = from.to_string();
    listen(connection, &[&running.agent, "attach", running.id.as_str(), "--from", &from], b"", on_event).await
}

/// Runs a command of an agent that prints events, with `input` on its standard input, and returns the report in the
/// last one.
pub(crate) async fn listen(
    connection: &Connection,
    command: &[&str],
    input: &[u8],
    on_event: impl FnMut(&Event),
) -> Result<Report, AgentError> {
    let mut child = connection.spawn_as_root(command).await?;
    if let Some(mut stdin) = child.stdin().take() {
        // A broken pipe shows in what the agent says or does not say.
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    }
    let stderr = child.stderr().take();
    let host = connection.endpoint().host.as_str();
    let heard = async {
        // Dropped with what it has not read: nobody waits for an agent that says more than it may.
        let stdout = child.stdout().take();
        match stdout {
            Some(stdout) => events(host, Lines::of(stdout, MOST), on_event).await,
            None => Ok(None),
        }
    };
    let message = async {
        match stderr {
            Some(stderr) => Ok(complaint(stderr).await.trim().to_owned()),
            None => Ok(String::new()),
        }
    };
    let (report, message) = tokio::try_join!(heard, message)?;
    let code = connection.exit_code(child).await;
    match (report, code) {
        (Some(report), _) => Ok(report),
        (None, Ok(Some(code))) if code != 255 => {
            Err(AgentError::Agent { host: host.to_owned(), code: Some(code), message })
        }
        (None, Err(error)) => Err(error.into()),
        (None, Ok(_)) => {
            Err(SshError::Lost { host: host.to_owned(), reason: "no answer from the agent".to_owned() }
                .into())
        }
    }
}

/// The report at the end of the stream; `None` when the stream ends before.
async fn events(
    host: &str,
    mut lines: Lines<impl AsyncRead + Unpin>,
    mut on_event: impl FnMut(&Event),
) -> Result<Option<Report>, AgentError> {
    while let Ok(Some(line)) = lines.next().await {
        let Ok(mut event) = serde_json::from_str::<Event>(&line) else {
            let beginning: String = plain(&line).chars().take(200).collect();
            tracing::warn!(host, line = beginning, "not an event of the agent");
            continue;
        };
        make_plain(&mut event.kind);
        on_event(&event);
        if let EventKind::Done(report) = event.kind {
            return Ok(Some(*report));
        }
    }
    if lines.is_over() {
        let message = format!("it said more than {} MiB", MOST >> 20);
        return Err(AgentError::Agent { host: host.to_owned(), code: None, message });
    }
    Ok(None)
}

/// Takes out what a terminal would obey: everything in an event is shown, and much of it comes from programs of the
/// machine.
fn make_plain(kind: &mut EventKind) {
    let make = |text: &mut String| *text = plain(text);
    match kind {
        EventKind::Phase(_) => {}
        EventKind::Output(line) => make(line),
        EventKind::Done(report) => {
            make(&mut report.message);
            report.output_tail.iter_mut().for_each(make);
            for unit in &mut report.failed_units {
                make(&mut unit.name);
                unit.journal.iter_mut().for_each(make);
            }
            for check in &mut report.failed_checks {
                make(&mut check.name);
                make(&mut check.reason);
            }
            let SystemState { current, booted, profile, generation: _, boot_id } = &mut report.system;
            make(boot_id);
            [current, booted, profile, &mut report.old_system].into_iter().flatten().for_each(make);
        }
    }
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

    #[tokio::test]
    async fn what_a_machine_says_cannot_move_the_cursor_or_fill_the_memory() {
        let report = r#"{"seq":1,"kind":{"done":{"outcome":"rolled_back","message":"a\u001b[2Jb","exit_code":4,"system":{"current":null,
            "booted":null,"profile":null,"generation":null,"boot_id":"x"},"old_system":null,"failed_units":[{"name":"n\u0007",
            "journal":["\u001b]0;t\u0007j"]}],"output_tail":["o\u202e"]}}}"#;
        let said = format!(
            "{{\"seq\":0,\"kind\":{{\"output\":\"\\u001b[31mred\"}}}}\nnoise\n{}\n",
            report.replace('\n', "")
        );
        let mut lines = vec![];
        let heard = |event: &Event| {
            if let EventKind::Output(line) = &event.kind {
                lines.push(line.clone());
            }
        };
        let report = events("web", Lines::of(said.as_bytes(), 1 << 20), heard).await.unwrap().unwrap();
        assert_eq!(lines, ["red"]);
        assert_eq!(report.message, "ab");
        let unit = &report.failed_units[0];
        assert_eq!(
            (unit.name.as_str(), unit.journal[0].as_str(), report.output_tail[0].as_str()),
            ("n", "j", "o")
        );
        let endless = events("web", Lines::of(tokio::io::repeat(b'x'), 1 << 21), |_| {}).await;
        assert!(endless.unwrap_err().to_string().contains("it said more than"));
        assert!(events("web", Lines::of(b"".as_slice(), 10), |_| {}).await.unwrap().is_none());
    }
}
