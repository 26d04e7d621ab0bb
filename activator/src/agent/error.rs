//! Why an agent did not do its part, or could not be asked.

use nixos_agent::NoRandomness;

use super::binary::AGENTS;
use crate::ssh::SshError;

/// Why it is not known or not true that the machine runs the new system.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
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
