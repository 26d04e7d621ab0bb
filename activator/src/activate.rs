//! Activation: the conversation with the agent, which does the work on the machine.
//!
//! The agent owns the transaction. When the connection breaks it goes on, and we connect again and listen on.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nixos_agent::{
    ActivationId, Answer, Confirmation, Event, EventKind, Message, Outcome, Phase, Report, Request,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::MachineName;
use crate::agent::{AgentError, listen};
use crate::progress::{Progress, Stage};
use crate::ssh::{Connection, Endpoint, Pool, SshError, Wait};

/// How long to wait after a new system refused the login that was to confirm it. OpenSSH (`PerSourcePenalties`) shuts
/// out who is refused more often, and that would outlast the way back.
const REFUSED: Duration = Duration::from_secs(5);

/// How long the machine may stay silent after the connection broke: a network restart, at worst a reboot.
const RECONNECT: Duration = Duration::from_mins(2);

/// The same where the machine may be on its way back from a system that it cannot work with, by a reboot if nothing
/// else helps.
const ON_ITS_WAY_BACK: Duration = Duration::from_mins(5);

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

/// Activates as `request` says, with the contents of its secrets, and returns the agent's report, which says what runs
/// now.
///
/// While the agent holds a new system, it waits for the `decision` whether the machine keeps it. An error means that
/// it is not known what runs: the agent may have done everything, a part, or nothing.
pub async fn activate(
    pool: &Pool,
    connection: &Connection,
    task: Task<'_>,
    decision: impl Future<Output = Answer>,
    progress: &Progress,
) -> Result<Report, AgentError> {
    let Task { machine, agent, request, contents } = task;
    let json = serde_json::to_vec(request).map_err(|error| AgentError::Agent {
        host: connection.endpoint().host.clone(),
        code: None,
        message: error.to_string(),
    })?;
    let input = Zeroizing::new([&json, b"\n".as_slice(), contents].concat());
    let (phase, reached) = watch::channel(Phase::Locked);
    let mut listener = Listener { machine, progress, phase, next: 0 };
    let listen = async {
        match listener.listen(connection, &[agent, "activate"], &input).await {
            Err(AgentError::Ssh(error)) if error.is_unreachable() => {
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
                client.decide(pool, decision.await).await;
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
    id: &'a ActivationId,
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
            // A new one: a connection that was open before the switch proves nothing. Not cancellable: to leave now
            // would undo a system that works.
            let mut pause = Duration::from_millis(300);
            let why = match pool.open(self.endpoint, Wait::ONE_TRY, &CancellationToken::new()).await {
                Ok(connection) => {
                    let told = self.tell(&connection, Answer::Reachable).await;
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
    async fn decide(&self, pool: &Pool, answer: Answer) {
        let start = Instant::now();
        let window = Duration::from_secs(self.confirmation.hold_seconds);
        while start.elapsed() < window {
            let told = match pool
                .connect(self.endpoint, Wait::UntilReachable(RECONNECT), &CancellationToken::new())
                .await
            {
                Ok(connection) => self.tell(&connection, answer.clone()).await,
                Err(error) => Err(error),
            };
            match told {
                Ok(None) => return,
                // It has decided by itself.
                Ok(Some(message)) => return tracing::warn!(message, "the decision came too late"),
                Err(error) => tracing::warn!(%error, "the decision has not arrived yet"),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// What the agent objected, if it did.
    async fn tell(&self, connection: &Connection, answer: Answer) -> Result<Option<String>, SshError> {
        let message = Message { nonce: self.confirmation.nonce.clone(), answer };
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
) -> Result<Report, AgentError> {
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
            Err(AgentError::Ssh(error)) if error.is_unreachable() => {
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
    ) -> Result<Report, AgentError> {
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
