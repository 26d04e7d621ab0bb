//! Activation: the agent does it on the machine; we bring the agent there, ask, and listen.
//!
//! The agent lives at a path that names its own content, so that it travels once per version. It owns the transaction:
//! when the connection breaks we connect again and listen on, and what it does does not depend on us.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nixos_agent::{
    Confirmation, DeploymentId, Event, EventKind, Message, NoRandomness, Outcome, Phase, Report, Request,
    STORED_AGENT, Word,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::MachineName;
use crate::agent_binary;
use crate::facts::Facts;
use crate::listen;
use crate::progress::{Progress, Stage};
use crate::ssh::{Connection, Endpoint, Pool, SshError, Wait};

/// How long to wait after a new system refused the login that was to confirm it. OpenSSH (`PerSourcePenalties`) shuts out who is refused
/// more often, and that would outlast the way back.
const REFUSED: Duration = Duration::from_secs(5);

/// Where agents live on a machine.
pub(crate) const AGENTS: &str = "/var/lib/nixos-agent/bin";

/// How long the machine may stay silent after the connection broke: a network restart, at worst a reboot.
const RECONNECT: Duration = Duration::from_mins(2);

/// The same where the machine may be on its way back from a system that it cannot work with, by a reboot if nothing else helps.
const ON_ITS_WAY_BACK: Duration = Duration::from_mins(5);

/// Why it is not known or not true that the machine runs the new system.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The connection.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// No agent was built for this platform.
    #[error("there is no agent for {system} machines in this build of the provider")]
    Platform {
        /// The machine's platform.
        system: String,
    },
    /// The login is not root's and nothing was said about how to become root.
    #[error("{user} is not root on {host}")]
    NotRoot {
        /// The host.
        host: String,
        /// The user who logged in.
        user: String,
    },
    /// No request could be made.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The machine's disk is full.
    #[error("no space left on {host}: {message}")]
    DiskFull {
        /// The host.
        host: String,
        /// What it said.
        message: String,
    },
    /// The agent's directory cannot be written.
    #[error("{AGENTS} on {host} cannot be written: {message}")]
    ReadOnly {
        /// The host.
        host: String,
        /// What it said.
        message: String,
    },
    /// No program can be run where agents are, nor from the Nix store.
    #[error("no program can be run from {AGENTS} on {host}, nor from its Nix store: {message}")]
    CannotRun {
        /// The host.
        host: String,
        /// What it said.
        message: String,
    },
    /// The agent did not do its part.
    #[error("the agent on {host} failed (exit {code:?}): {message}")]
    Agent {
        /// The host.
        host: String,
        /// Its exit code.
        code: Option<i32>,
        /// What it said.
        message: String,
    },
}

/// What is asked of an agent.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The machine, for progress.
    pub machine: &'a MachineName,
    /// The agent's path on it.
    pub agent: &'a str,
    /// What to do.
    pub request: &'a Request,
    /// The contents of the request's secrets, one after the other.
    pub contents: &'a [u8],
}

/// How many sessions an activation has open at once: one listens to the agent, the other tells it something.
const SESSIONS: usize = 2;

/// Makes sure that this login can activate a system, before anything is sent: that it is or becomes root, that its shell does
/// what it is asked for and nothing else, and that the SSH server opens enough sessions.
pub async fn check_login(connection: &Connection, facts: &Facts) -> Result<(), ActivateError> {
    let Endpoint { host, user, elevate, .. } = connection.endpoint();
    if elevate.is_empty() && facts.uid != Some(0) {
        return Err(ActivateError::NotRoot { host: host.clone(), user: user.clone() });
    }
    let text = connection.greeting();
    if !text.is_empty() {
        let (host, user, text) = (host.clone(), user.clone(), text.to_owned());
        return Err(SshError::Greeting { host, user, text }.into());
    }
    connection.to_root().await?;
    connection.check_sessions(SESSIONS).await?;
    Ok(())
}

/// Activates as `request` says, with the contents of its secrets, and returns the agent's report, which says what runs now. `verdict` is asked for what is to
/// become of a new system that is held. An error means that it is not known what runs: the agent may have done anything, or
/// nothing.
pub async fn activate(
    pool: &Pool,
    connection: &Connection,
    task: Task<'_>,
    verdict: impl Future<Output = Word>,
    progress: &Progress,
) -> Result<Report, ActivateError> {
    let Task { machine, agent, request, contents } = task;
    let json = serde_json::to_vec(request).map_err(|error| ActivateError::Agent {
        host: connection.endpoint().host.clone(),
        code: None,
        message: error.to_string(),
    })?;
    let input = Zeroizing::new([&json, b"\n".as_slice(), contents].concat());
    let (phase, reached) = watch::channel(Phase::Locked);
    let mut listener = Listener { machine, progress, phase, next: 0 };
    let listen = async {
        match listener.listen(connection, &[agent, "activate"], &input).await {
            Err(ActivateError::Ssh(error)) if error.is_unreachable() => {
                tracing::warn!(%machine, %error, "the connection broke during activation; the agent goes on");
                attach(pool, connection.endpoint(), agent, request, &mut listener).await
            }
            result => result,
        }
    };
    let obstacle = Mutex::new(None);
    let confirm = async {
        if let Some(confirmation) = &request.confirmation {
            let endpoint = connection.endpoint();
            let client = Client { endpoint, agent, id: &request.id, confirmation, obstacle: &obstacle };
            if waits_in(Phase::AwaitingConfirmation, reached.clone()).await {
                client.confirm(pool).await;
            }
            if waits_in(Phase::Holding, reached.clone()).await {
                client.decide(pool, verdict.await).await;
            }
        }
        // Whatever came of it, the agent's report is the end.
        std::future::pending::<Infallible>().await
    };
    let mut report = tokio::select! {
        result = listen => result?,
        never = confirm => match never {},
    };
    let obstacle = obstacle.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let (Outcome::RolledBack | Outcome::RollbackFailed, Some(why)) = (report.outcome, obstacle) {
        // The agent knows that nobody came, and not why.
        report.message = format!("{} The last try to confirm it: {why}.", report.message);
    }
    Ok(report)
}

/// Whether the agent comes to wait in a phase, once it has got there or beyond.
async fn waits_in(phase: Phase, mut reached: watch::Receiver<Phase>) -> bool {
    reached.wait_for(|now| *now >= phase).await.is_ok_and(|now| *now == phase)
}

/// What it takes to tell an agent something while it works.
struct Client<'a> {
    endpoint: &'a Endpoint,
    agent: &'a str,
    id: &'a DeploymentId,
    confirmation: &'a Confirmation,
    /// Why the new system could not be confirmed so far.
    obstacle: &'a Mutex<Option<String>>,
}

impl Client<'_> {
    /// Logs in anew, as the next deployment would have to, and says so to the agent.
    async fn confirm(&self, pool: &Pool) {
        let start = Instant::now();
        let window = Duration::from_secs(self.confirmation.window_seconds);
        while start.elapsed() < window {
            // A new one: a connection that was open before the switch proves nothing. Not cancellable: to leave now would undo
            // a system that works.
            let mut pause = Duration::from_millis(300);
            let why = match pool.open(self.endpoint, Wait::ONE_TRY, &CancellationToken::new()).await {
                Ok(connection) => {
                    let told = self.tell(&connection, Word::Reachable).await;
                    connection.close().await;
                    match told {
                        Ok(None) => {
                            *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = None;
                            return;
                        }
                        Ok(Some(message)) => {
                            // Most likely it has stopped waiting: what kept us from it before is the reason.
                            let said = || format!("the login worked, and the agent said: {message}");
                            self.obstacle
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert_with(said);
                            tracing::warn!(message, "the new system is not confirmed yet");
                            tokio::time::sleep(Duration::from_millis(300)).await;
                            continue;
                        }
                        Err(error) => format!("the login worked, but {error}"),
                    }
                }
                Err(error) => {
                    if error.is_refusal() {
                        pause = REFUSED;
                    }
                    error.to_string()
                }
            };
            tracing::warn!(why, "the new system is not confirmed yet");
            *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            tokio::time::sleep(pause).await;
        }
    }

    /// Says what is to become of a system that is held.
    async fn decide(&self, pool: &Pool, word: Word) {
        let start = Instant::now();
        let window = Duration::from_secs(self.confirmation.hold_seconds);
        while start.elapsed() < window {
            let told = match pool
                .connect(self.endpoint, Wait::UntilReachable(RECONNECT), &CancellationToken::new())
                .await
            {
                Ok(connection) => self.tell(&connection, word.clone()).await,
                Err(error) => Err(error),
            };
            match told {
                Ok(None) => return,
                // It has decided by itself.
                Ok(Some(message)) => return tracing::warn!(message, "the verdict came too late"),
                Err(error) => tracing::warn!(%error, "the verdict has not arrived yet"),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// What the agent objected, if it did.
    async fn tell(&self, connection: &Connection, word: Word) -> Result<Option<String>, SshError> {
        let message = Message { nonce: self.confirmation.nonce.clone(), word };
        // Texts and nothing else: this cannot fail.
        let json = serde_json::to_vec(&message).unwrap_or_default();
        let answer = connection.run_as_root(&[self.agent, "confirm", self.id.as_str()], &json).await?;
        Ok((answer.code != Some(0)).then(|| answer.stderr.trim().to_owned()))
    }
}

/// Connects again and listens from where the last connection broke.
async fn attach(
    pool: &Pool,
    endpoint: &Endpoint,
    agent: &str,
    request: &Request,
    listener: &mut Listener<'_>,
) -> Result<Report, ActivateError> {
    let id = request.id.to_string();
    // A machine that cannot be reached with its new system can be again once it has gone back.
    let window = request
        .confirmation
        .as_ref()
        .map_or(0, |confirmation| confirmation.window_seconds.max(confirmation.hold_seconds));
    let patience = ON_ITS_WAY_BACK + Duration::from_secs(window);
    let mut last_heard = Instant::now();
    loop {
        // Not cancellable: the outcome has to be known, or the state would not be true.
        let connection =
            pool.connect(endpoint, Wait::UntilReachable(patience), &CancellationToken::new()).await?;
        let from = listener.next;
        let number = from.to_string();
        match listener.listen(&connection, &[agent, "attach", &id, "--from", &number], b"").await {
            Err(ActivateError::Ssh(error)) if error.is_unreachable() => {
                if listener.next > from {
                    last_heard = Instant::now();
                } else if last_heard.elapsed() > patience {
                    return Err(error.into());
                }
                // A master that lives but gives no session would be handed out again.
                connection.close().await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            result => return result,
        }
    }
}

/// Brings the agent for `system` to the machine unless it is there, and returns its path. Agents of other versions that were not used for
/// a week, and that nothing can start any more, are removed.
pub async fn install(connection: &Connection, system: &str) -> Result<String, ActivateError> {
    let platform = || ActivateError::Platform { system: system.to_owned() };
    let binary = agent_binary::binary(system).ok_or_else(platform)?;
    let path = format!("{AGENTS}/{}/nixos-agent", binary.sha256);
    let run = async |script: &str, input| {
        let words = ["sh", "-c", script, "sh", &path, binary.sha256, AGENTS, STORED_AGENT];
        connection.run_as_root(&words, input).await
    };
    // Its content decides: after a power cut a file may be there without it.
    let found = run(&format!("{COMMON}{FIND}"), b"".as_slice()).await?;
    if found.code == Some(0) {
        return Ok(found.text().trim().to_owned());
    }
    let answer = match found.code {
        Some(READ_ONLY) => found,
        _ => run(&format!("{COMMON}{INSTALL}"), binary.bytes).await?,
    };
    if answer.code == Some(0) {
        return Ok(answer.text().trim().to_owned());
    }
    let (host, message) = (connection.endpoint().host.clone(), answer.stderr.trim().to_owned());
    let says = |text: &str| message.contains(text);
    Err(match answer.code {
        _ if says("No space left on device") => ActivateError::DiskFull { host, message },
        _ if says("Read-only file system") => ActivateError::ReadOnly { host, message },
        Some(CANNOT_RUN) => ActivateError::CannotRun { host, message },
        code => ActivateError::Agent { host, code, message },
    })
}

/// The script's exit code where no program can be run.
const CANNOT_RUN: i32 = 126;

/// The script's exit code where the directory of agents cannot be written.
const READ_ONLY: i32 = 30;

/// `$1` is the agent's path, `$2` its hash, `$3` the directory of agents, `$4` the link to it in the store.
///
/// What its programs say is read, so that they say it in the language they were written in.
const COMMON: &str = r#"
export LC_ALL=C
PATH="$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/sbin:/usr/bin:/sbin:/bin"
is_whole() { found="$(sha256sum <"$1")" && [ "${found%% *}" = "$2" ]; }
works() { is_whole "$1" "$2" 2>/dev/null && "$1" --version >/dev/null 2>&1; }
"#;

/// Finds the agent, and says that it is in use.
const FIND: &str = r#"
[ ! -d "$3" ] || [ -w "$3" ] || { echo "$3: Read-only file system" >&2; exit 30; }
if works "$1" "$2"; then agent="$1"; touch "$1"
elif works "$4" "$2"; then agent="$(readlink -f "$4")"
else exit 1; fi
for old in $(find "$3" -mindepth 2 -maxdepth 2 -name nixos-agent -mtime +7 2>/dev/null); do
  [ "$old" != "$1" ] || continue
  # A unit may start it again, and a process run it.
  ! grep -rqF "$old" /run/systemd /etc/systemd/system 2>/dev/null || continue
  for program in /proc/[0-9]*/exe; do
    [ "$(readlink "$program" 2>/dev/null)" != "$old" ] || continue 2
  done
  rm -rf "${old%/*}"
done
echo "$agent"
"#;

/// Complete and on the disk, or not there at all: the rename comes when all else is written. Where its directory lets no program run
/// (`noexec`), it goes to the Nix store, with a link that keeps it there.
const INSTALL: &str = r#"
set -e; umask 022
d="$(dirname "$1")"; mkdir -p "$d"; t="$d/.new.$$"; rm -rf "$t"; mkdir "$t"; trap 'rm -rf "$t"' EXIT
durable() { sync "$@" 2>/dev/null || sync; }
new="$t/nixos-agent"; cat >"$new"; chmod 755 "$new"
is_whole "$new" "$2" || { echo "it did not arrive whole" >&2; exit 1; }
if "$new" --version >/dev/null 2>&1; then
  durable "$new"; mv -f "$new" "$1"; durable "$d" "$3"
  echo "$1"; exit
fi
mkdir -p "${4%/*}"
if stored="$(nix-store --add "$new")"; then
  ln -sfn "$stored" "$4.new"; mv -fT "$4.new" "$4"
  if works "$4" "$2"; then rm -rf "$d"; readlink -f "$4"; exit; fi
fi
"$new" --version >/dev/null || exit 126
"#;

/// Follows an agent's events and remembers how far it came.
struct Listener<'a> {
    machine: &'a MachineName,
    progress: &'a Progress,
    /// Where the agent is.
    phase: watch::Sender<Phase>,
    next: u64,
}

impl Listener<'_> {
    async fn listen(
        &mut self,
        connection: &Connection,
        command: &[&str],
        input: &[u8],
    ) -> Result<Report, ActivateError> {
        let heard = |event: &Event| {
            self.next = event.seq + 1;
            match &event.kind {
                EventKind::Phase(phase) => {
                    self.phase.send_replace(*phase);
                    self.progress.machine(self.machine, Stage::Activate, format!("{phase:?}"));
                }
                EventKind::Output(line) => self.progress.machine(self.machine, Stage::Activate, line),
                EventKind::Done(_) => {}
            }
        };
        listen::listen(connection, command, input, heard).await
    }
}
