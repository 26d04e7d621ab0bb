//! Why a machine cannot be talked to, told apart by what the user can do about it.

use crate::text::plain;

/// A failure of the SSH connection. Each names the host as it was given.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SshError {
    /// There is no `ssh` on PATH.
    #[error("no `ssh` was found on PATH")]
    NotFound,
    /// A setting that cannot be written into `ssh_config`.
    #[error("`{name}` is `{found}`, expected {expected}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A line of `options` that would have no effect, because the value that is set before it counts.
    #[error("`options` has `{found}`, which has no effect: {}", option_advice(.ours, *.instead))]
    Option {
        /// The line.
        found: String,
        /// The line that counts.
        ours: String,
        /// The attribute to set instead.
        instead: Option<&'static str>,
    },
    /// Nobody answers there: off, unreachable, a wrong address or a closed port.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable {
        /// The host.
        host: String,
        /// What `ssh` said.
        reason: String,
    },
    /// The host, or something before it, closes connections before anybody can log in: too many at once, or this
    /// address is shut out.
    #[error("{host} closed the connection before the login: {reason}")]
    TurnedAway {
        /// The host.
        host: String,
        /// What `ssh` said.
        reason: String,
    },
    /// The host's key is not the expected one.
    #[error("the host key of {host} is not the expected one: {reason}")]
    HostKeyChanged {
        /// The host.
        host: String,
        /// What `ssh` said.
        reason: String,
    },
    /// The host's key is not known and the policy is strict.
    #[error("the host key of {host} is not known: {reason}")]
    HostKeyUnknown {
        /// The host.
        host: String,
        /// What `ssh` said.
        reason: String,
    },
    /// The host does not let us in.
    #[error("{host} refused the login as {user}: {reason}")]
    Denied {
        /// The host.
        host: String,
        /// The user who tried.
        user: String,
        /// What `ssh` said.
        reason: String,
    },
    /// What is in the way is the bastion, not the machine behind it.
    #[error("{0}")]
    Bastion(Box<Self>),
    /// The bastion lets this login in, but not through to the machine.
    #[error("{host} lets nobody through to the machine: {reason}")]
    NoForwarding {
        /// The bastion.
        host: String,
        /// What it said.
        reason: String,
    },
    /// The machine opens no more sessions in one connection.
    #[error("{host} opens no further session in a connection that is there: {reason}")]
    NoSession {
        /// The host.
        host: String,
        /// What `ssh` said.
        reason: String,
    },
    /// The login shell prints something before it does what it is asked for. It would be taken for the answer.
    #[error("the shell of {user} on {host} prints `{text}` before it does what it is asked for")]
    Greeting {
        /// The host.
        host: String,
        /// The user who logs in.
        user: String,
        /// The beginning of what it prints.
        text: String,
    },
    /// Becoming root did not work.
    #[error("`{command}` did not give root on {host}: {reason}")]
    Elevate {
        /// The host.
        host: String,
        /// The command of `elevate`.
        command: String,
        /// What it said.
        reason: String,
    },
    /// Anything else that `ssh` said.
    #[error("ssh to {host} failed: {reason}")]
    Other {
        /// The host.
        host: String,
        /// What `ssh` said.
        reason: String,
    },
    /// The connection broke while a command was running.
    #[error("the connection to {host} broke: {reason}")]
    Lost {
        /// The host.
        host: String,
        /// What happened.
        reason: String,
    },
    /// A local file could not be written or a process not be started.
    #[error("cannot prepare the connection to {host}: {reason}")]
    Local {
        /// The host.
        host: String,
        /// What happened.
        reason: String,
    },
    /// The work was cancelled by the user.
    #[error("cancelled")]
    Cancelled,
}

impl SshError {
    /// Whether trying again a little later may help: the machine may still be booting.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Bastion(error) => error.is_unreachable(),
            error => matches!(error, Self::Unreachable { .. } | Self::TurnedAway { .. } | Self::Lost { .. }),
        }
    }

    /// Whether the login was refused: the key may not be in place yet.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Bastion(error) => error.is_refusal(),
            error => matches!(error, Self::Denied { .. }),
        }
    }

    /// Whether the connection was closed before the login, or ended at the bastion. To come back a moment later is
    /// most often enough.
    pub fn is_turned_away(&self) -> bool {
        match self {
            Self::Bastion(error) => error.is_turned_away() || matches!(**error, Self::Lost { .. }),
            error => matches!(error, Self::TurnedAway { .. }),
        }
    }

    /// Whether it says something about the machine or its settings, as opposed to a mistake on this side, or the
    /// user's wish to stop.
    pub fn concerns_machine(&self) -> bool {
        !matches!(self, Self::NotFound | Self::Local { .. } | Self::Cancelled)
    }

    /// The error of a bastion, seen from a machine behind it.
    pub(super) fn of_bastion(self) -> Self {
        if self.concerns_machine() { Self::Bastion(Box::new(self)) } else { self }
    }

    /// The same error with one more line of evidence, where it has any.
    pub(super) fn with_evidence(self, line: &str) -> Self {
        let more = |reason: String| format!("{reason}\n{line}");
        match self {
            Self::Denied { host, user, reason } => Self::Denied { host, user, reason: more(reason) },
            Self::Bastion(error) => Self::Bastion(Box::new(error.with_evidence(line))),
            error => error,
        }
    }

    /// Sorts what `ssh` wrote to standard error before it gave up.
    pub(super) fn from_stderr(host: &str, user: &str, stderr: &str) -> Self {
        let host = host.to_owned();
        let reason = said(&plain(stderr));
        let has = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
        // Of the network, whatever the reason is called: a local firewall's "Permission denied" is no refused login.
        if stderr.lines().any(|line| line.starts_with("ssh: connect to host ")) {
            Self::Unreachable { host, reason }
        } else if has(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]) {
            Self::HostKeyChanged { host, reason }
        } else if has(&["Host key verification failed", "host key is known for"]) {
            Self::HostKeyUnknown { host, reason }
        } else if has(&["Permission denied", "Too many authentication failures"]) {
            Self::Denied { host, user: user.to_owned(), reason }
        } else if has(&[
            "Connection refused",
            "timed out",
            "No route to host",
            "Network is unreachable",
            "Could not resolve hostname",
            "System is booting up",
        ]) {
            Self::Unreachable { host, reason }
        } else if has(&["administratively prohibited"]) {
            Self::NoForwarding { host: format!("the host before {host}"), reason }
        } else if has(&["Connection reset", "Connection closed by", "kex_exchange_identification"]) {
            Self::TurnedAway { host, reason }
        } else {
            Self::Other { host, reason }
        }
    }
}

fn option_advice(ours: &str, instead: Option<&'static str>) -> String {
    match instead {
        Some(attribute) => format!("set `{attribute}` instead"),
        None => format!("every connection has `{ours}`; remove the line"),
    }
}

/// The lines of `ssh` that say something: without the frame around the warning of a changed key, and without advice
/// about the `known_hosts` of one connection, which is gone with it.
fn said(stderr: &str) -> String {
    let of_no_use = ["@", "Add correct host key in ", "Offending ", "remove with:", "ssh-keygen "];
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines = lines.filter(|line| !of_no_use.iter().any(|text| line.starts_with(text)));
    let text = lines.take(LINES).collect::<Vec<_>>().join("\n");
    if text.is_empty() { "ssh ended without a word".to_owned() } else { text }
}

/// How much of it is kept.
const LINES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ssh_says_is_sorted_by_what_can_be_done() {
        let sort = |text: &str| SshError::from_stderr("h", "root", text);
        assert!(sort("ssh: connect to host h port 22: Connection refused").is_unreachable());
        assert!(sort("ssh: Could not resolve hostname h: Name or service not known").is_unreachable());
        for reason in ["Permission denied", "Invalid argument", "Cannot assign requested address"] {
            assert!(sort(&format!("ssh: connect to host h port 22: {reason}")).is_unreachable(), "{reason}");
        }
        assert!(matches!(sort("root@h: Permission denied (publickey)."), SshError::Denied { .. }));
        assert!(matches!(
            sort(
                "No ED25519 host key is known for h and you have requested strict checking.\r\nHost key \
                 verification failed."
            ),
            SshError::HostKeyUnknown { .. }
        ));
        assert!(matches!(
            sort(
                "@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@\nHost key \
                 verification failed."
            ),
            SshError::HostKeyChanged { .. }
        ));
        assert!(matches!(sort(""), SshError::Other { .. }));
    }

    #[test]
    fn advice_about_files_of_one_connection_is_left_out() {
        let error = SshError::from_stderr(
            "h",
            "root",
            "@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@\nThe \
             fingerprint for the ED25519 key sent by the remote host is\nSHA256:abc.\nPlease contact your \
             system administrator.\nAdd correct host key in /tmp/nixos-ssh-x/known_hosts to get rid of \
             this message.\nOffending ED25519 key in /tmp/nixos-ssh-x/known_hosts:1\n  remove with:\n  \
             ssh-keygen -f '/tmp/nixos-ssh-x/known_hosts' -R 'h'\nHost key for h has changed and you have \
             requested strict checking.\nHost key verification failed.\n",
        );
        let text = error.to_string();
        assert!(matches!(error, SshError::HostKeyChanged { .. }), "{text}");
        assert!(text.contains("SHA256:abc"), "{text}");
        assert!(!text.contains("/tmp/") && !text.contains("ssh-keygen"), "{text}");
    }
}
