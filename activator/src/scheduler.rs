//! One set of limits a process: Terraform starts ten resources at once and knows nothing of bandwidth.

use tokio::sync::{Semaphore, SemaphorePermit};

/// How many machines activate at once, whatever a rollout allows.
pub(crate) const ACTIVATIONS: usize = 32;

/// How much of each kind of work may happen at once.
#[derive(Debug)]
pub struct Scheduler {
    pushes: Semaphore,
    activations: Semaphore,
    machines: Semaphore,
}

impl Scheduler {
    /// `pushes` share the uplink, so few run at once; activations mostly wait for machines, so many do.
    pub fn new(pushes: usize, activations: usize) -> Self {
        let machines = pushes.max(activations).max(1);
        Self {
            pushes: Semaphore::new(pushes.max(1)),
            activations: Semaphore::new(activations.max(1)),
            machines: Semaphore::new(machines),
        }
    }

    /// Waits for permission to begin with a machine.
    pub async fn machine(&self) -> Option<SemaphorePermit<'_>> {
        // Only a closed semaphore gives no permit, and these are never closed.
        self.machines.acquire().await.ok()
    }

    /// Waits for permission to push.
    pub async fn push(&self) -> Option<SemaphorePermit<'_>> {
        self.pushes.acquire().await.ok()
    }

    /// Waits for permission to activate.
    pub async fn activate(&self) -> Option<SemaphorePermit<'_>> {
        self.activations.acquire().await.ok()
    }
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new(4, ACTIVATIONS)
    }
}
