//! The connections of this process: one a machine, whoever asks first opens it.
//!
//! Each open connection is a process and a handful of files, so there is a limit to how many stay open for the next
//! who asks. Those in use are not counted out: how many machines are worked on at once is the scheduler's affair.
//!
//! Bastions are logged in to once a process, and again when such a connection has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::gate::Gate;
use super::wait::Tries;
use super::{Bastion, Connection, Endpoint, HostKeyPolicy, SshError, Wait};

/// How many connections stay open, unless somebody says otherwise: enough that the machines of most deployments are
/// logged in to once, and with those in use well below what a process may have open: a connection takes four files.
const KEPT: usize = 64;

/// Lets this process have as many files open as it may: the limit it was started with is often a cautious one.
pub fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // What some systems do not take although they say so is not worth a word: it works without.
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// A place for one connection; its lock is held while it is being opened.
type Slot = Arc<tokio::sync::Mutex<Option<Open>>>;

#[derive(Debug)]
struct Open {
    connection: Arc<Connection>,
    last_asked_for: Instant,
}

/// Shares connections between everything that talks to the same endpoint.
///
/// With [`HostKeyPolicy::AcceptNew`] the first host key that a place shows is the only one accepted there for as long
/// as the pool lives: every later connection, also the one that confirms a new system, goes to the machine that the
/// first one went to.
#[derive(Debug)]
pub struct Pool {
    slots: Mutex<HashMap<Endpoint, Slot>>,
    accepted: Mutex<HashMap<Place, String>>,
    gates: Mutex<HashMap<(Bastion, Duration), GateSlot>>,
    kept: usize,
}

/// A place for the connection to one bastion; its lock is held while that is being opened.
type GateSlot = Arc<tokio::sync::Mutex<Passage>>;

#[derive(Debug, Default)]
struct Passage {
    open: Option<Arc<Gate>>,
    /// Why the last try failed, and when: the answer for all who waited meanwhile.
    failed: Option<(Instant, SshError)>,
}

/// How long a refusal of a bastion, and any other failure there, is the answer for all who ask: each of its machines
/// waits for itself, and together they would come so often that OpenSSH shuts them out.
const REFUSED: Duration = Duration::from_secs(10);
const FAILED: Duration = Duration::from_secs(1);

/// What decides which machine answers: an endpoint without the login.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    host: String,
    port: Option<u16>,
    bastion: Option<(String, Option<u16>)>,
    options: Vec<String>,
}

impl Place {
    fn of(endpoint: &Endpoint) -> Self {
        Self {
            host: endpoint.host.clone(),
            port: endpoint.port,
            bastion: endpoint.bastion.as_ref().map(|bastion| (bastion.host.clone(), bastion.port)),
            options: endpoint.options.clone(),
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::keeping(KEPT)
    }
}

impl Pool {
    /// A pool that keeps so many connections open that nobody uses.
    pub fn keeping(kept: usize) -> Self {
        Self { slots: Mutex::default(), accepted: Mutex::default(), gates: Mutex::default(), kept }
    }

    /// The host key that was accepted on first use at this endpoint, where its policy allows that and a connection
    /// was made.
    pub fn accepted_key(&self, endpoint: &Endpoint) -> Option<String> {
        if endpoint.host_key_policy != HostKeyPolicy::AcceptNew || endpoint.host_public_key.is_some() {
            return None;
        }
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        accepted.get(&Place::of(endpoint)).cloned()
    }

    /// The open connection to `endpoint`, or a new one; waits as `wait` says for a machine that is not there yet.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        wait: Wait,
        cancel: &CancellationToken,
    ) -> Result<Arc<Connection>, SshError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry(endpoint.clone()).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some(open) = slot.as_mut()
            && open.connection.is_alive().await
        {
            open.last_asked_for = Instant::now();
            return Ok(open.connection.clone());
        }
        // Before the new one is there, so that it is not taken for one that nobody uses.
        self.make_room().await;
        let connection = Arc::new(self.open(endpoint, wait, cancel).await?);
        *slot = Some(Open { connection: connection.clone(), last_asked_for: Instant::now() });
        Ok(connection)
    }

    /// A connection that nobody else gets, although another may be open; it is the caller's to close. Tries again as
    /// `wait` says.
    pub async fn open(
        &self,
        endpoint: &Endpoint,
        wait: Wait,
        cancel: &CancellationToken,
    ) -> Result<Connection, SshError> {
        let pinned = Endpoint {
            host_public_key: endpoint.host_public_key.clone().or_else(|| self.accepted_key(endpoint)),
            ..endpoint.clone()
        };
        let start = Instant::now();
        let mut tries = Tries::new(wait);
        let connection = loop {
            let error = match self.open_once(&pinned, cancel).await {
                Ok(connection) => break connection,
                Err(error) => error,
            };
            let Some(pause) = tries.pause(&error, start.elapsed()) else {
                return Err(tries.last(error, start.elapsed()));
            };
            tracing::info!(host = endpoint.host, %error, "waiting for the machine");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return Err(SshError::Cancelled),
            }
        };
        if let Err(error) = self.pin(endpoint, &connection) {
            connection.close().await;
            return Err(error);
        }
        Ok(connection)
    }

    async fn open_once(
        &self,
        endpoint: &Endpoint,
        cancel: &CancellationToken,
    ) -> Result<Connection, SshError> {
        let gate = match &endpoint.bastion {
            Some(bastion) => {
                let gate = self.gate(bastion, endpoint.connect_timeout, cancel).await;
                Some(gate.map_err(SshError::of_bastion)?)
            }
            None => None,
        };
        Connection::open(endpoint, gate, cancel).await
    }

    /// The open connection to a bastion, or a new one.
    async fn gate(
        &self,
        bastion: &Bastion,
        connect_timeout: Duration,
        cancel: &CancellationToken,
    ) -> Result<Arc<Gate>, SshError> {
        let slot = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            gates.entry((bastion.clone(), connect_timeout)).or_default().clone()
        };
        let asked = Instant::now();
        let mut passage = tokio::select! {
            passage = slot.lock() => passage,
            () = cancel.cancelled() => return Err(SshError::Cancelled),
        };
        if let Some(gate) = &passage.open
            && gate.is_alive().await
        {
            return Ok(gate.clone());
        }
        if let Some((at, error)) = &passage.failed
            && (*at >= asked || at.elapsed() < if error.is_refusal() { REFUSED } else { FAILED })
        {
            return Err(error.clone());
        }
        match Gate::open(bastion, connect_timeout, cancel).await {
            Ok(gate) => {
                let gate = Arc::new(gate);
                *passage = Passage { open: Some(gate.clone()), failed: None };
                Ok(gate)
            }
            Err(SshError::Cancelled) => Err(SshError::Cancelled),
            Err(error) => {
                *passage = Passage { open: None, failed: Some((Instant::now(), error.clone())) };
                Err(error)
            }
        }
    }

    /// Remembers the key that a first connection accepted. Two first connections at once may have been shown
    /// different ones.
    fn pin(&self, endpoint: &Endpoint, connection: &Connection) -> Result<(), SshError> {
        let Some(key) = connection.accepted_key() else { return Ok(()) };
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let first = accepted.entry(Place::of(endpoint)).or_insert_with(|| key.to_owned());
        if first == key {
            return Ok(());
        }
        Err(SshError::HostKeyChanged {
            host: endpoint.host.clone(),
            reason: format!("it showed {first} first, and {key} a moment later"),
        })
    }

    /// Closes all connections.
    pub async fn close(&self) {
        let slots: Vec<Slot> = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.drain().map(|(_, slot)| slot).collect()
        };
        let closing = slots.iter().map(|slot| async {
            if let Some(open) = slot.lock().await.take() {
                open.connection.close().await;
            }
        });
        futures::future::join_all(closing).await;
        let gates: Vec<GateSlot> = {
            let mut gates = self.gates.lock().unwrap_or_else(PoisonError::into_inner);
            gates.drain().map(|(_, slot)| slot).collect()
        };
        for slot in gates {
            if let Some(gate) = slot.lock().await.open.take() {
                gate.close().await;
            }
        }
    }

    /// Closes those that nobody uses and that were not asked for for the longest time, until one more may be opened.
    async fn make_room(&self) {
        let mut idle = vec![];
        {
            let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in slots.values() {
                // A slot whose lock somebody holds is in use.
                let Ok(slot) = slot.clone().try_lock_owned() else {
                    continue;
                };
                if let Some(open) = slot.as_ref()
                    && Arc::strong_count(&open.connection) == 1
                {
                    idle.push((open.last_asked_for, slot));
                }
            }
        }
        idle.sort_by_key(|(last, _)| *last);
        let surplus = (idle.len() + 1).saturating_sub(self.kept);
        idle.truncate(surplus);
        let closing = idle.iter_mut().map(|(_, slot)| async {
            if let Some(open) = slot.take() {
                open.connection.close().await;
            }
        });
        futures::future::join_all(closing).await;
    }
}
