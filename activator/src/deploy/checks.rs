//! Health checks from where we run.

use std::time::Duration;

use nixos_agent::FailedCheck;
use nixos_agent::health::{self, Check, Probe};

/// Tries checks side by side and returns those that did not hold.
pub(super) async fn check_from_here(checks: &[Check]) -> Vec<FailedCheck> {
    let tried = checks.iter().map(|check| {
        let check = check.clone();
        async move {
            let name = check.name.clone();
            let held = tokio::task::spawn_blocking(move || health::try_until_healthy(&check, look)).await;
            let reason = held.unwrap_or_else(|error| Err(error.to_string())).err()?;
            Some(FailedCheck { name, reason })
        }
    });
    futures::future::join_all(tried).await.into_iter().flatten().collect()
}

/// Looks once, from here.
fn look(probe: &Probe, timeout: Duration) -> Result<(), String> {
    match probe {
        Probe::Units { .. } => Err("units can only be looked at on the machine".to_owned()),
        Probe::Command(words) => {
            let (program, arguments) = words.split_first().ok_or("there is no command")?;
            let output = tempfile::tempfile().map_err(|error| error.to_string())?;
            health::command(std::process::Command::new(program).args(arguments), output, timeout)
        }
        Probe::Http { url, statuses, contains } => health::http(url, statuses, contains.as_deref(), timeout),
        Probe::Tcp(address) => health::tcp(address, timeout),
    }
}
