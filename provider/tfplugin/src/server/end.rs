//! How a server ends: calls come to a safe point, then everything is put away, before Terraform kills the process.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long everything may take from being told to end: Terraform kills us two seconds after it has told us.
const LEFT: Duration = Duration::from_millis(1800);

/// How much of that calls may take that are running, to come to a safe point.
const LEFT_FOR_CALLS: Duration = Duration::from_millis(1300);

/// How a server ends, for all who have a part in it.
#[derive(Clone, Debug, Default)]
pub(super) struct End {
    /// The calls that are running are to come to a safe point.
    pub(super) stop: CancellationToken,
    /// Nothing is to be served any more.
    pub(super) shutdown: CancellationToken,
    pub(super) running: TaskTracker,
}

impl End {
    pub(super) fn now(&self) {
        self.stop.cancel();
        self.shutdown.cancel();
    }

    /// Lets what is running come to a safe point, and then puts things away, before Terraform's patience ends. Where nothing is
    /// running, as after every apply that was not interrupted twice, nothing is waited for.
    pub(super) async fn put_away(&self, at_end: impl Future<Output = ()>) {
        let told = Instant::now();
        self.stop.cancel();
        self.running.close();
        if tokio::time::timeout_at(told + LEFT_FOR_CALLS, self.running.wait()).await.is_err() {
            tracing::warn!(calls = self.running.len(), "calls are still running, and are left behind");
        }
        // Answers are on their way, the one to Shutdown too; Terraform waits for the process, not for the connection.
        tokio::time::sleep(Duration::from_millis(3)).await;
        let _ = tokio::time::timeout_at(told + LEFT, at_end).await;
    }
}
