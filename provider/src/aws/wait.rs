//! Waiting for AWS to come round: it answers before it has done what it was told.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long EC2 may take to hear of what it has just made.
pub(crate) const SETTLING: Duration = Duration::from_secs(30);

/// How long to look for something that EC2 may have made: it may not have heard of it yet.
const HEARING: Duration = Duration::from_secs(10);

/// Looks for something that EC2 may have made, until it is found or EC2 should have heard of it.
pub(crate) async fn heard_of<T, E, F>(
    mut look: impl FnMut() -> F,
    cancel: &CancellationToken,
) -> Result<Option<T>, E>
where
    F: Future<Output = Result<Option<T>, E>>,
{
    let patience = Patience::new(HEARING, cancel);
    let mut backoff = Backoff::default();
    loop {
        let found = look().await?;
        if found.is_some() || backoff.pause(&patience).await.is_err() {
            return Ok(found);
        }
    }
}

/// How long to wait for something, and who may cut it short.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// Nothing is waited for beyond this.
    pub(crate) deadline: Instant,
    /// Cancelled when the user wants to stop.
    pub(crate) cancel: CancellationToken,
}

/// Why waiting ended without result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Impatient {
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
    pub(crate) async fn pause(&mut self, patience: &Patience) -> Result<(), Impatient> {
        let now = Instant::now();
        if patience.cancel.is_cancelled() {
            return Err(Impatient::Cancelled);
        }
        if now >= patience.deadline {
            return Err(Impatient::TimedOut);
        }
        let until = patience.deadline.min(now + self.next);
        self.next = (self.next * 3 / 2).min(self.longest);
        tokio::select! {
            () = tokio::time::sleep_until(until) => Ok(()),
            () = patience.cancel.cancelled() => Err(Impatient::Cancelled),
        }
    }
}

impl Patience {
    /// From now on for `limit`.
    pub(crate) fn new(limit: Duration, cancel: &CancellationToken) -> Self {
        Self { deadline: Instant::now() + limit, cancel: cancel.clone() }
    }

    /// The same, and not longer than `limit` from now.
    pub(crate) fn at_most(&self, limit: Duration) -> Self {
        Self { deadline: self.deadline.min(Instant::now() + limit), cancel: self.cancel.clone() }
    }

    /// What is left of it.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Calls until the answer is another than one that `passes`, or the time is over: then the last answer.
    pub(crate) async fn retry<T, E, F>(
        &self,
        passes: impl Fn(&E) -> bool,
        mut call: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut backoff = Backoff::default();
        loop {
            match call().await {
                Err(error) if passes(&error) => {
                    if backoff.pause(self).await.is_err() {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
    }
}
