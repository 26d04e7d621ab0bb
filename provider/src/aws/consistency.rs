//! AWS is eventually consistent: it answers before all of its parts know what it has done.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::deadline::{Backoff, Deadline};

/// How long one part of AWS may take to know what another part has just made.
pub(crate) const CONSISTENCY: Duration = Duration::from_secs(30);

/// How long to look for something that EC2 may have made, and may not show yet.
const VISIBILITY: Duration = Duration::from_secs(10);

/// Looks for something that EC2 may have made, until it is found or EC2 would show it.
pub(crate) async fn eventually_found<T, E, F>(
    mut look: impl FnMut() -> F,
    cancel: &CancellationToken,
) -> Result<Option<T>, E>
where
    F: Future<Output = Result<Option<T>, E>>,
{
    let deadline = Deadline::new(VISIBILITY, cancel);
    let mut backoff = Backoff::default();
    loop {
        let found = look().await?;
        if found.is_some() || backoff.pause(&deadline).await.is_err() {
            return Ok(found);
        }
    }
}
