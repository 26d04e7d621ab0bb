//! Reboots: when one is due, and how it is known that the machine came back with the system it was to boot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nixos_agent::Trial;
use tokio_util::sync::CancellationToken;

use crate::StorePath;
use crate::agent::AgentError;
use crate::facts::{self, Facts, FactsError};
use crate::ssh::{Connection, Pool, SshError, Wait};
use crate::text::plain;

/// How much longer than both of its boots may take a machine that goes back by itself is waited for.
const MARGIN: Duration = Duration::from_mins(1);

/// How long to wait before asking again a machine that has not gone down yet.
const PAUSE: Duration = Duration::from_millis(500);

/// When a machine is rebooted after its system was made the one that boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// Never.
    #[default]
    Never,
    /// When nothing else leads to the whole of it: see [`When::is_due`].
    IfNeeded,
    /// When it was booted with any other system.
    Always,
}

/// When, and how long the machine may be away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reboot {
    /// When it is done.
    pub when: When,
    /// From the order to reboot until somebody can log in to the system that was booted.
    pub deadline: Duration,
}

/// Why it is not known or not true that the machine came back.
#[derive(Debug, thiserror::Error)]
pub enum RebootError {
    /// The order could not be given.
    #[error("`systemctl reboot` failed: {message}")]
    Refused {
        /// What it said.
        message: String,
    },
    /// Nobody could log in to it in time.
    #[error("it did not come back within {seconds} s: {reason}")]
    Away {
        /// The deadline.
        seconds: u64,
        /// What the last try to log in said.
        reason: String,
    },
    /// It was told to, and did not.
    #[error("it was told to reboot, and did not within {seconds} s")]
    SameBoot {
        /// The deadline.
        seconds: u64,
    },
    /// It was to boot a system once, and is back with the one before.
    #[error("it did not stay with {expected}, and booted {found} again")]
    WentBack {
        /// What was on trial.
        expected: String,
        /// What it was booted with before.
        found: String,
    },
    /// It came back with another system.
    #[error("it booted {found}, not {expected}")]
    OtherSystem {
        /// What was to be booted.
        expected: String,
        /// What was.
        found: String,
    },
    /// The user did not want to wait.
    #[error("it was told to reboot; cancelled before it came back")]
    Cancelled,
    /// The user did not want it any more.
    #[error("it is still to be rebooted; cancelled before")]
    NotBegun,
}

impl When {
    /// Whether a machine that boots `profile` next has to be rebooted: because it was booted with another kernel,
    /// initial RAM disk or set of modules, because it does not run that system, or on principle.
    pub fn is_due(self, facts: &Facts) -> bool {
        match self {
            Self::Never => false,
            Self::IfNeeded => facts.reboot_required || facts.current_system != facts.profile,
            Self::Always => facts.booted_system != facts.profile || facts.current_system != facts.profile,
        }
    }
}

/// Reboots; where systemd refuses, says who told it to.
const REBOOT: &str = r#"
PATH="$PATH:/run/current-system/sw/bin:/usr/bin:/bin"
systemctl --no-wall reboot && exit 0
code=$?
blocked="$(systemd-inhibit --list --no-pager --no-legend 2>/dev/null | grep -w shutdown | grep -w block)"
[ -z "$blocked" ] || printf 'These programs block it (who, user, process, what, why):
%s
' "$blocked" >&2
exit $code
"#;

/// Has the next boot of a machine start `toplevel` once, where its boot loader can. From then on it boots the system
/// that is returned, unless it is told within `deadline` after the boot to switch to `toplevel`. `Err` of the inner
/// result says why it boots `toplevel` for good.
pub async fn try_once(
    connection: &Connection,
    agent: &str,
    toplevel: &StorePath,
    deadline: Duration,
) -> Result<Result<StorePath, String>, AgentError> {
    let seconds = deadline.as_secs().to_string();
    let answer = connection.run_as_root(&[agent, "try", toplevel.as_str(), &seconds], b"").await?;
    let failed = |message: String| AgentError::Agent {
        host: connection.endpoint().host.clone(),
        code: answer.code,
        message,
    };
    if answer.code != Some(0) {
        return Err(failed(answer.stderr.trim().to_owned()));
    }
    match serde_json::from_slice(&answer.stdout).map_err(|error| failed(error.to_string()))? {
        Trial::Begun { fallback } => {
            let fallback = plain(&fallback);
            Ok(Ok(fallback.parse().map_err(|error| failed(format!("{fallback}: {error}")))?))
        }
        Trial::Impossible { reason } => Ok(Err(plain(&reason))),
    }
}

/// Takes back what [`try_once`] began, where the machine does not reboot: its new system boots from then on.
pub(crate) async fn take_back(connection: &Connection, agent: &str) -> Result<(), String> {
    match connection.run_as_root(&[agent, "take-back-trial"], b"").await {
        Ok(answer) if answer.code == Some(0) => Ok(()),
        Ok(answer) => Err(answer.stderr.trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reboots a machine and waits until it runs `toplevel`. `facts` are those from before, `fallback` is what it goes
/// back to by itself.
pub async fn reboot(
    pool: &Pool,
    connection: &Arc<Connection>,
    facts: &Facts,
    toplevel: &StorePath,
    fallback: Option<&StorePath>,
    deadline: Duration,
    cancel: &CancellationToken,
) -> Result<(Arc<Connection>, Facts), RebootError> {
    let start = Instant::now();
    let deadline = if fallback.is_some() { deadline * 2 + MARGIN } else { deadline };
    let seconds = deadline.as_secs();
    match connection.run_as_root(&["sh", "-c", REBOOT], b"").await {
        Ok(answer) if answer.code.is_some_and(|code| code != 0 && code != 255) => {
            return Err(RebootError::Refused { message: answer.stderr.trim().to_owned() });
        }
        // It may have been faster than its answer.
        Ok(_) | Err(_) => {}
    }
    let left = deadline.saturating_sub(start.elapsed());
    let (connection, now) =
        returned(pool, connection, facts, left, cancel).await.map_err(|error| match error {
            RebootError::SameBoot { .. } => RebootError::SameBoot { seconds },
            RebootError::Away { reason, .. } => RebootError::Away { seconds, reason },
            error => error,
        })?;
    if now.booted_system.as_ref() == Some(toplevel) {
        return Ok((connection, now));
    }
    let went_back = fallback.is_some() && now.booted_system.as_ref() == fallback;
    let found = now.booted_system.as_ref().map_or("nothing that is known", StorePath::as_str);
    let (expected, found) = (toplevel.to_string(), found.to_owned());
    Err(if went_back {
        RebootError::WentBack { expected, found }
    } else {
        RebootError::OtherSystem { expected, found }
    })
}

/// Waits until a machine that reboots has booted again. `facts` are those from before.
pub async fn returned(
    pool: &Pool,
    connection: &Arc<Connection>,
    facts: &Facts,
    deadline: Duration,
    cancel: &CancellationToken,
) -> Result<(Arc<Connection>, Facts), RebootError> {
    let start = Instant::now();
    let seconds = deadline.as_secs();
    let endpoint = connection.endpoint().clone();
    let mut connection = connection.clone();
    let mut away = None;
    loop {
        // A connection to the boot before says nothing.
        connection.close().await;
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = cancel.cancelled() => return Err(RebootError::Cancelled),
        }
        let left = deadline.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(away
                .map_or(RebootError::SameBoot { seconds }, |reason| RebootError::Away { seconds, reason }));
        }
        connection = match pool.connect(&endpoint, Wait::UntilLetIn(left), cancel).await {
            Ok(connection) => connection,
            Err(SshError::Cancelled) => return Err(RebootError::Cancelled),
            Err(error) => return Err(RebootError::Away { seconds, reason: error.to_string() }),
        };
        match facts::gather(&endpoint.host, &connection).await {
            Ok(now) if now.boot_id == facts.boot_id => away = None,
            Ok(now) => return Ok((connection, now)),
            // On its way down, or not quite up yet.
            Err(FactsError::Ssh(error)) => away = Some(error.to_string()),
            Err(error @ FactsError::Shell { .. }) => away = Some(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reboot_is_due_when_nothing_else_leads_to_the_system() {
        let system = |name: &str| {
            format!("/nix/store/00000000000000000000000000000000-{name}").parse::<StorePath>().ok()
        };
        let facts = |booted: &str, current: &str, profile: &str, reboot_required| Facts {
            booted_system: system(booted),
            current_system: system(current),
            profile: system(profile),
            reboot_required,
            ..Facts::default()
        };
        let due = |facts: Facts| [When::Never, When::IfNeeded, When::Always].map(|when| when.is_due(&facts));
        assert_eq!(due(facts("a", "a", "a", false)), [false, false, false]);
        assert_eq!(due(facts("a", "b", "b", false)), [false, false, true], "switched");
        assert_eq!(due(facts("a", "b", "b", true)), [false, true, true], "switched, with another kernel");
        assert_eq!(due(facts("a", "a", "b", false)), [false, true, true], "only to be booted");
        assert_eq!(due(facts("a", "b", "a", false)), [false, true, true], "to be booted again");
    }
}
