//! Waiting for others: until a deadline, with pauses that grow, and no longer than the user wants.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long to wait for something.
#[derive(Clone, Debug)]
pub(crate) struct Deadline {
    /// Nothing is waited for beyond this.
    pub(crate) at: Instant,
    /// Cancelled when the user wants to stop.
    pub(crate) cancel: CancellationToken,
}

/// Why waiting ended without result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GaveUp {
    /// It took too long.
    TimedOut,
    /// The user stopped it.
    Cancelled,
}

/// The pauses between looks: short ones first, because most things take a second and some take minutes.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Duration::from_millis(250), longest: Duration::from_secs(5) }
    }
}

impl Backoff {
    /// Sleeps, longer each time.
    pub(crate) async fn pause(&mut self, deadline: &Deadline) -> Result<(), GaveUp> {
        let now = Instant::now();
        if deadline.cancel.is_cancelled() {
            return Err(GaveUp::Cancelled);
        }
        if now >= deadline.at {
            return Err(GaveUp::TimedOut);
        }
        let until = deadline.at.min(now + self.next);
        self.next = (self.next * 3 / 2).min(self.longest);
        tokio::select! {
            () = tokio::time::sleep_until(until) => Ok(()),
            () = deadline.cancel.cancelled() => Err(GaveUp::Cancelled),
        }
    }
}

impl Deadline {
    /// From now on for `limit`.
    pub(crate) fn new(limit: Duration, cancel: &CancellationToken) -> Self {
        Self { at: Instant::now() + limit, cancel: cancel.clone() }
    }

    /// The same, and not longer than `limit` from now.
    pub(crate) fn at_most(&self, limit: Duration) -> Self {
        Self { at: self.at.min(Instant::now() + limit), cancel: self.cancel.clone() }
    }

    /// The time that is left.
    pub(crate) fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Calls again, with growing pauses, after an error that is `temporary`. Returns the last answer.
    pub(crate) async fn retry<T, E, F>(
        &self,
        temporary: impl Fn(&E) -> bool,
        mut call: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut backoff = Backoff::default();
        loop {
            match call().await {
                Err(error) if temporary(&error) => {
                    if backoff.pause(self).await.is_err() {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }
}
