//! An open connection and the commands that run over it.

use std::process::Stdio;
use std::sync::Arc;

use openssh::{RemoteChild, Session};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, OnceCell};
use tokio_util::sync::CancellationToken;

use super::agent::Agent;
use super::config::ALIAS;
use super::gate::Gate;
use super::master::{KNOWN_HOSTS, open_master};
use super::place::Place;
use super::root::Root;
use super::session::{Answer, UserSession};
use super::values::host;
use super::{Endpoint, HostKeyPolicy, SshError};
use crate::children::interrupt;
use crate::nix::find_on_path;
use crate::text::plain;

/// An open master connection.
#[derive(Debug)]
pub struct Connection {
    user: UserSession,
    /// Before the master, so that it ends first.
    root: OnceCell<Root>,
    master: Arc<Mutex<Child>>,
    accepted_key: Option<String>,
    /// What the login shell printed before it did what it was asked for.
    greeting: String,
    /// What it goes through, for as long as it does.
    _gate: Option<Arc<Gate>>,
}

impl Connection {
    /// Connects and logs in once; `gate` leads through the endpoint's bastion, where it has one.
    pub(super) async fn open(
        endpoint: &Endpoint,
        gate: Option<Arc<Gate>>,
        cancel: &CancellationToken,
    ) -> Result<Self, SshError> {
        let ssh = find_on_path("ssh").ok_or(SshError::NotFound)?;
        let place = Place::new(&endpoint.host)?;
        let mut agents = vec![];
        let opened = open_master(&ssh, endpoint, gate.as_deref(), &place, &mut agents, cancel).await;
        // The keys have done their work.
        futures::future::join_all(agents.into_iter().map(Agent::end)).await;
        let (master, greeting) = opened?;
        let session = Session::resume_mux(place.socket().into(), None);
        let accepted_key = accepted_key(endpoint, &place);
        let master = Arc::new(Mutex::new(master));
        let pinned = endpoint.host_public_key.clone().or_else(|| accepted_key.clone());
        Ok(Self {
            user: UserSession {
                endpoint: Endpoint { host_public_key: pinned, ..endpoint.clone() },
                session,
                place,
            },
            root: OnceCell::new(),
            master,
            accepted_key,
            greeting,
            _gate: gate,
        })
    }

    /// Where this goes. A host key that was accepted on first use is the only one there from now on.
    pub fn endpoint(&self) -> &Endpoint {
        &self.user.endpoint
    }

    /// The host key accepted on first use, where the policy allows that.
    pub fn accepted_key(&self) -> Option<&str> {
        self.accepted_key.as_deref()
    }

    /// The port that was really used: the endpoint's, or the one that all the configuration files of `ssh` lead to.
    pub async fn port(&self) -> Result<u16, SshError> {
        if let Some(port) = self.user.endpoint.port {
            return Ok(port);
        }
        let local = |reason: String| SshError::Local { host: self.user.endpoint.host.clone(), reason };
        let output = Command::new(find_on_path("ssh").ok_or(SshError::NotFound)?)
            .arg("-F")
            .arg(self.user.place.config())
            .args(["-G", "--", host("host", &self.user.endpoint.host)?])
            .env("LC_ALL", "C")
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
        self.user.run(command, input).await
    }

    /// Starts a command as the login user with pipes for all three streams.
    pub async fn spawn(&self, command: &[&str]) -> Result<RemoteChild<'_>, SshError> {
        self.user.spawn(command).await
    }

    /// Waits for a command to end; `None` when a signal ended it.
    pub async fn exit_code(&self, child: RemoteChild<'_>) -> Result<Option<i32>, SshError> {
        self.user.exit_code(child).await
    }

    /// Makes sure that so many sessions can be open at once, besides those that are.
    pub async fn check_sessions(&self, count: usize) -> Result<(), SshError> {
        let mut open = vec![];
        for _ in 0..count {
            open.push(self.spawn(&["cat"]).await?);
        }
        for mut session in open {
            drop(session.stdin().take());
            self.exit_code(session).await?;
        }
        Ok(())
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
        if self.user.endpoint.elevate.is_empty() {
            return Ok(vec![]);
        }
        let root = self.root.get_or_try_init(|| Root::open(&self.user, &self.master)).await?;
        Ok(vec!["sh", &root.client])
    }

    /// What the login shell printed before it did what it was asked for; most print nothing.
    pub fn greeting(&self) -> &str {
        &self.greeting
    }

    /// The options that make another `ssh` (that of `nix copy`) go through this connection, to the host
    /// [`Connection::ALIAS`]. None contains a blank.
    pub fn ssh_options(&self) -> Vec<String> {
        self.user.ssh_options()
    }

    /// The name of the machine for an `ssh` with [`Connection::ssh_options`]: it is never looked up, and no version
    /// of Nix sees anything special in it.
    pub const ALIAS: &str = ALIAS;

    /// The arguments of an `ssh` that goes through this connection and has a terminal: with all that the user's files
    /// say.
    pub fn terminal_arguments(&self) -> Result<Vec<String>, SshError> {
        Ok([
            self.user.sharing(&self.user.place.config()),
            vec![host("host", &self.user.endpoint.host)?.to_owned()],
        ]
        .concat())
    }

    /// Ends the connection and removes its files.
    pub async fn close(&self) {
        interrupt(&mut *self.master.lock().await).await;
        self.user.place.remove();
    }
}

/// The host key that `accept-new` has just written down.
fn accepted_key(endpoint: &Endpoint, place: &Place) -> Option<String> {
    if endpoint.host_key_policy != HostKeyPolicy::AcceptNew || endpoint.host_public_key.is_some() {
        return None;
    }
    let text = std::fs::read_to_string(place.file(KNOWN_HOSTS)).ok()?;
    let mut words = text.lines().next()?.split_whitespace().skip(1);
    Some(format!("{} {}", words.next()?, words.next()?))
}
