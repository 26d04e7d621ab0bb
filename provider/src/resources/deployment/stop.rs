//! What ends an apply early: its user, or a limit of time.

use std::time::Duration;

use tfplugin::{Diagnostic, Diagnostics};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the user or by a limit of time.
pub(super) struct Stop {
    pub(super) token: CancellationToken,
    limit: Duration,
    user: CancellationToken,
    timer: tokio::task::JoinHandle<()>,
}

impl Stop {
    /// Begins to count.
    pub(super) fn after(user: &CancellationToken, limit: Duration) -> Self {
        let token = user.child_token();
        let cancel = token.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            cancel.cancel();
        });
        Self { token, limit, user: user.clone(), timer }
    }

    /// Says so where it was the limit, not the user, that ended something.
    pub(super) fn explain(&self, diagnostic: Diagnostic) -> Diagnostic {
        if self.token.is_cancelled() && !self.user.is_cancelled() {
            let seconds = self.limit.as_secs();
            return diagnostic.appended(&format!("The limit of {seconds} s in `timeouts` was reached."));
        }
        diagnostic
    }

    pub(super) fn explain_all(&self, diagnostics: Diagnostics) -> Diagnostics {
        diagnostics.into_iter().map(|diagnostic| self.explain(diagnostic)).collect()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.timer.abort();
    }
}
