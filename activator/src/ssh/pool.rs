//! The connections of this process: one a machine, whoever asks first opens it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Connection, Endpoint, SshError};

/// A place for one connection; its lock is held while it is being opened.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Connection>>>>;

/// Shares connections between everything that talks to the same endpoint.
#[derive(Debug, Default)]
pub struct Pool {
    slots: Mutex<HashMap<Endpoint, Slot>>,
}

impl Pool {
    /// The open connection to `endpoint`, or a new one; waits up to `deadline` for a machine that does not answer yet.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Arc<Connection>, SshError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry(endpoint.clone()).or_default().clone()
        };
        let mut slot = slot.lock().await;
        if let Some(connection) = slot.as_ref()
            && connection.is_alive().await
        {
            return Ok(connection.clone());
        }
        let connection = Arc::new(Connection::open_within(endpoint, deadline, cancel).await?);
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Closes all connections.
    pub async fn close(&self) {
        let slots: Vec<Slot> = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.drain().map(|(_, slot)| slot).collect()
        };
        for slot in slots {
            if let Some(connection) = slot.lock().await.take() {
                connection.close().await;
            }
        }
    }
}
