//! How a server ends: calls come to a safe point, then everything is put away, before Terraform kills the process.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the whole end may take: Terraform kills the process two seconds after it has told it to end.
const LEFT: Duration = Duration::from_millis(1800);

/// How much of that time running calls have to come to a safe point.
const LEFT_FOR_CALLS: Duration = Duration::from_millis(1300);

/// The signals by which the parts of a server end together.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    /// Tells running calls to come to a safe point.
    pub(super) stop: CancellationToken,
    /// Ends the server: no further call is served.
    pub(super) shutdown: CancellationToken,
    pub(super) running: TaskTracker,
}

impl End {
    pub(super) fn now(&self) {
        self.stop.cancel();
        self.shutdown.cancel();
    }

    /// Waits until running calls have come to a safe point, then runs `at_end`, all within [`LEFT`]. Usually no call is
    /// running, and there is nothing to wait for; after a second Ctrl-C there may be some.
    pub(super) async fn put_away(&self, at_end: impl Future<Output = ()>) {
        let told = Instant::now();
        self.stop.cancel();
        self.running.close();
        if tokio::time::timeout_at(told + LEFT_FOR_CALLS, self.running.wait()).await.is_err() {
            tracing::warn!(calls = self.running.len(), "calls are still running, and are left behind");
        }
        // The last answers, such as that to Shutdown, are still being sent. Terraform waits for the process to end, so
        // the connection must not be cut before.
        tokio::time::sleep(Duration::from_millis(3)).await;
        let _ = tokio::time::timeout_at(told + LEFT, at_end).await;
    }
}
