//! Whether a machine uses a volume of its cloud: asked before the volume is taken away.

pub use nixos_agent::VolumeUse;

use crate::agent::{self, AgentError};
use crate::facts::{self, FactsError};
use crate::ssh::Connection;

/// Why it is not known whether a machine uses a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The machine could not be asked what it is.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The agent could not be brought there, or did not answer.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Has the agent on the machine ask the kernel. `id` is EC2's id of the volume, `device` where it was attached, e.g.
/// `/dev/sdf`.
pub async fn ask(
    machine: &str,
    connection: &Connection,
    id: &str,
    device: &str,
) -> Result<VolumeUse, VolumeError> {
    let facts = facts::gather(machine, connection).await?;
    agent::check_login(connection, &facts).await?;
    let agent = agent::install(connection, facts.system.as_deref().unwrap_or_default()).await?;
    let letter = device.chars().last().map(String::from).unwrap_or_default();
    let answer = connection.run_as_root(&[&agent, "volume", id, &letter], b"").await;
    let answer = answer.map_err(AgentError::Ssh)?;
    serde_json::from_slice(&answer.stdout).map_err(|_| {
        let host = connection.endpoint().host.clone();
        AgentError::Agent { host, code: answer.code, message: answer.stderr.trim().to_owned() }.into()
    })
}
