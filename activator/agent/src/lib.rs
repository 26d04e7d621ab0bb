//! What the activator and the agent on the machine say to each other.
//!
//! One [`Request`] goes in as a line of JSON on standard input, followed by the contents of secrets; [`Event`]s come out, one JSON object a line, the last one being
//! [`EventKind::Done`]. Events are kept in a file on the machine, so that whoever lost the connection can listen again from
//! the event they missed.

pub mod health;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Names one activation, and the units and files that belong to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeploymentId(String);

/// A text that cannot name an activation.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an id: expected 1 to 64 letters, digits and `-`")]
pub struct BadId(String);

/// The system has no random numbers to give.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system gives no random numbers: {0}")]
pub struct NoRandomness(getrandom::Error);

/// Random bytes that nobody can guess: for names that nothing else may have, and for keys.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(bytes)
}

/// Where links are that keep systems from a machine's garbage collector.
pub const ROOTS: &str = "/nix/var/nix/gcroots/nixos-agent";

/// The link to the system that was pushed last and not activated yet.
pub const PUSHED: &str = "/nix/var/nix/gcroots/nixos-agent/pushed";

/// The link to the agent's program, where no program can be run in its own directory.
pub const STORED_AGENT: &str = "/nix/var/nix/gcroots/nixos-agent/agent";

/// What the agent is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, new for each activation.
    pub id: DeploymentId,
    /// The deployment that the system belongs to, for others that find it on the machine; `None`: an operator's own act.
    #[serde(default)]
    pub deployment: Option<DeploymentId>,
    /// The system: a store path that is on the machine already.
    pub toplevel: String,
    /// What to do with it.
    pub action: Action,
    /// The system the machine must run for this to make sense; `None`: any.
    pub expected_system: Option<String>,
    /// Whether to go back to what ran before when the new system fails.
    pub rollback: bool,
    /// How long `switch-to-configuration` may take.
    pub activation_timeout_seconds: u64,
    /// Who has to say that the machine can still be reached before the new system is made the one that boots; `None`: nobody.
    #[serde(default)]
    pub confirmation: Option<Confirmation>,
    /// What must hold on the machine before the new system is made the one that boots.
    #[serde(default)]
    pub health_checks: Vec<health::Check>,
    /// How many of the generations that were made here stay; `None`: all.
    #[serde(default)]
    pub keep_generations: Option<usize>,
    /// The secrets the machine is to have; `None`: nothing is said about any. Their contents follow the request.
    #[serde(default)]
    pub secrets: Option<Secrets>,
    /// Whether the machine was just booted with the system: there is nothing to activate, but it has to be healthy all the same.
    #[serde(default)]
    pub verify: bool,
    /// The login that must still be possible with the new system; `None`: that does not matter.
    #[serde(default)]
    pub login: Option<Login>,
    /// Units that may fail: it is only told.
    #[serde(default)]
    pub tolerated_units: Vec<String>,
    /// Further environment of `switch-to-configuration`, such as `NIXOS_NO_CHECK`.
    #[serde(default)]
    pub switch_environment: BTreeMap<String, String>,
}

/// A login over SSH, as the machine saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user.
    pub user: String,
    /// Where it came from.
    pub client: IpAddr,
    /// The port there.
    pub client_port: u16,
    /// The address of the machine that it was made to.
    pub address: IpAddr,
    /// The port it was made to.
    pub port: u16,
}

/// All secrets of one owner on a machine. Others that were published for the same owner are removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Who answers for them: the identity of a deployment.
    pub owner: DeploymentId,
    /// Each of them.
    pub entries: Vec<SecretEntry>,
}

/// One secret of a request. Never its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEntry {
    /// What it is on the machine.
    #[serde(flatten)]
    pub file: SecretFile,
    /// Stands for its content and everything about its file; means something to the client only.
    pub fingerprint: String,
    /// How many bytes of the contents are its own; `None`: the machine has it.
    pub content: Option<u64>,
}

/// The name of a secret: letters, digits, `-`, `_` and, not in front, `.`. It names files, and fields of lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

/// A text that cannot name a secret.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not the name of a secret: expected 1 to 200 letters, digits, `-`, `_` and `.`, and no `.` at the beginning"
)]
pub struct BadSecretName(String);

/// A secret as it is on a machine: where, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFile {
    /// Its name among those of the owner.
    pub name: SecretName,
    /// Its file.
    pub path: String,
    /// The user it belongs to, by name or number.
    pub user: String,
    /// The group it belongs to, by name or number.
    pub group: String,
    /// Its permissions.
    pub mode: u32,
    /// Units to restart when it has changed.
    pub restart: Vec<String>,
    /// Units to reload when it has changed.
    pub reload: Vec<String>,
    /// Whether the machine puts it back by itself after a reboot.
    #[serde(default)]
    pub persist: bool,
}

/// How a new system is confirmed: somebody logs in anew and shows that they are the one who asked for it; and, where more
/// than this machine has to be looked at, says later what is to become of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// What they have to know. It is worth nothing to anybody but root on the machine.
    pub nonce: String,
    /// How long the machine waits for the login; 0: it does not.
    pub window_seconds: u64,
    /// How long the machine waits for the verdict; 0: it is made the one that boots as soon as it is known to be reachable and
    /// healthy.
    pub hold_seconds: u64,
}

/// What a client says to an activation that waits for it, as JSON on the standard input of `confirm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The one of [`Confirmation`].
    pub nonce: String,
    /// What it has to say.
    pub word: Word,
}

/// Whether a machine uses a volume of its cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeUse {
    /// The machine has no device that is the volume.
    NotFound,
    /// The kernel would give the device to anybody.
    Free,
    /// The kernel does not give the device away.
    InUse {
        /// The device, e.g. `/dev/nvme1n1`.
        device: String,
        /// What uses it, as far as that can be told: `mounted at /data`, `swap`, `/dev/mapper/secret`. Empty for a ZFS pool, of which
        /// the kernel says nothing.
        by: Vec<String>,
    },
}

/// What a client can say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// I could log in anew.
    Reachable,
    /// Keep the new system.
    Keep,
    /// Go back to the old one, for this reason.
    GoBack(String),
}

/// Whether the next boot starts a system once only, as `try` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    /// It does.
    Begun {
        /// The system that is booted after it, unless it is found well.
        fallback: String,
    },
    /// It boots until somebody says otherwise.
    Impossible {
        /// Why.
        reason: String,
    },
}

/// What to do with a system, in the words of `switch-to-configuration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Run it now and at the next boot.
    Switch,
    /// Run it at the next boot.
    Boot,
    /// Run it now, not at the next boot.
    Test,
    /// Only say what would happen.
    DryActivate,
}

/// Something that happened on the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts from 0 within an activation.
    pub seq: u64,
    /// What it was.
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The transaction entered a phase.
    Phase(Phase),
    /// A line that `switch-to-configuration` printed.
    Output(String),
    /// It is over.
    Done(Box<Report>),
}

/// Where a transaction is. It is written down before the phase's work begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nobody else can change the machine now.
    Locked,
    /// Looking whether it can work at all.
    Preflight,
    /// What runs now is written down and safe from the garbage collector.
    Recorded,
    /// The new system is taking over.
    Activating,
    /// It works; somebody has to log in anew and say so.
    AwaitingConfirmation,
    /// It can be reached; it has to prove that it does what it is for.
    CheckingHealth,
    /// It is healthy; somebody looks at it, or at other machines, from elsewhere, and says what is to become of it.
    Holding,
    /// It is confirmed; profile and boot loader follow.
    Committing,
    /// It does not; the old system is taking over again.
    RollingBack,
    /// Nothing more will happen.
    Finished,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// In one word.
    pub outcome: Outcome,
    /// In one sentence.
    pub message: String,
    /// Exit code of `switch-to-configuration`, where it ran to an end.
    pub exit_code: Option<i32>,
    /// What the machine runs now.
    pub system: SystemState,
    /// What it ran before.
    pub old_system: Option<String>,
    /// Units that failed because of the new system.
    pub failed_units: Vec<FailedUnit>,
    /// Health checks that did not hold.
    #[serde(default)]
    pub failed_checks: Vec<FailedCheck>,
    /// The last lines of `switch-to-configuration`.
    pub output_tail: Vec<String>,
    /// What is not as it should be although it ended well, a sentence each.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The machine reboots right after this report, because nothing else brings it back to a system that works.
    #[serde(default)]
    pub reboots: bool,
}

/// Ways to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As requested.
    Activated,
    /// It was so already.
    Unchanged,
    /// The new system failed; the old one runs again.
    RolledBack,
    /// The new system failed, and the old one could not be brought back (or was not to be).
    RollbackFailed,
    /// Agent or machine ended while the new system was activated; the old one runs.
    Interrupted,
    /// Nothing was changed.
    Rejected,
    /// The new system runs, but the next boot will start the old one.
    NotPersisted,
    /// The new system cannot take over from the running one without a reboot; nothing was changed.
    RebootRequired,
}

/// Systems of a machine, as store paths.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemState {
    /// The one that runs.
    pub current: Option<String>,
    /// The one it was booted with.
    pub booted: Option<String>,
    /// The one the system profile points at.
    pub profile: Option<String>,
    /// The number of that generation of the profile.
    pub generation: Option<u64>,
    /// Changes with every boot.
    pub boot_id: String,
}

/// A unit that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedUnit {
    /// Its name, e.g. `nginx.service`.
    pub name: String,
    /// The last lines of its journal since it was started last.
    pub journal: Vec<String>,
}

/// A health check that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCheck {
    /// Its name.
    pub name: String,
    /// What was seen last.
    pub reason: String,
}

impl DeploymentId {
    /// A new one: 128 random bits, written like a UUID.
    pub fn random() -> Result<Self, NoRandomness> {
        let mut bytes = random_bytes::<16>()?;
        // Version 4, variant 1, as RFC 9562 wants it.
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let mut text = String::with_capacity(36);
        for (n, byte) in bytes.iter().enumerate() {
            if matches!(n, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            text.push_str(&format!("{byte:02x}"));
        }
        Ok(Self(text))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DeploymentId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if (1..=64).contains(&text.len()) && text.chars().all(legal) && !text.starts_with('-') {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadId(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for DeploymentId {
    type Error = BadId;
    fn try_from(text: String) -> Result<Self, BadId> {
        text.parse()
    }
}

impl From<DeploymentId> for String {
    fn from(id: DeploymentId) -> Self {
        id.0
    }
}

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SecretName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = BadSecretName;

    fn from_str(text: &str) -> Result<Self, BadSecretName> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if (1..=200).contains(&text.len()) && !text.starts_with('.') && text.chars().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadSecretName(text.chars().filter(|c| !c.is_control()).take(80).collect()))
        }
    }
}

impl TryFrom<String> for SecretName {
    type Error = BadSecretName;
    fn try_from(text: String) -> Result<Self, BadSecretName> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Phase {
    /// How many there are.
    pub const COUNT: usize = Self::Finished as usize + 1;

    /// Which of them it is, from 1 to [`Phase::COUNT`].
    pub fn position(self) -> usize {
        self as usize + 1
    }
}

impl Action {
    /// The argument of `switch-to-configuration`.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Boot => "boot",
            Self::Test => "test",
            Self::DryActivate => "dry-activate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_cannot_leave_their_directory_or_line() {
        for good in ["token", "db-password", "tls.key", "_x", "1"] {
            assert!(good.parse::<SecretName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "a/b", "a\tb", "a\nb", "a b", "é", &"x".repeat(201)] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad}");
            let json = serde_json::json!({ "name": bad, "path": "/run/keys/x", "user": "root", "group": "root",
                "mode": 256, "restart": [], "reload": [] });
            assert!(serde_json::from_value::<SecretFile>(json).is_err(), "{bad}: the agent would take it");
        }
    }

    #[test]
    fn ids_cannot_leave_their_directory() {
        for bad in ["", "..", "a/b", "-a", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<DeploymentId>().is_err(), "{bad}");
        }
        let (one, other) = (DeploymentId::random().unwrap(), DeploymentId::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.as_str().parse::<DeploymentId>().unwrap(), one);
    }
}
