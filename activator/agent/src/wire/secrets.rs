//! The secrets of a request: where each file is and for which user. Their contents travel behind the request.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::ids::DeploymentId;

/// All secrets of one deployment on a machine. Other secrets that the machine has from the same deployment are removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// The deployment that the secrets belong to.
    pub owner: DeploymentId,
    /// Each secret.
    pub entries: Vec<SecretEntry>,
}

/// One secret of a request, without its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEntry {
    /// What it is on the machine.
    #[serde(flatten)]
    pub file: SecretFile,
    /// Stands for the content and everything about the file. Only the client can compute it.
    pub fingerprint: String,
    /// How many bytes of the contents behind the request are this secret's; `None`: the machine has the secret already.
    pub content: Option<u64>,
}

/// A secret as it is on a machine: where, and for which user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFile {
    /// Its name among the secrets of the deployment.
    pub name: SecretName,
    /// The path of its file.
    pub path: String,
    /// The user that the file belongs to, by name or number.
    pub user: String,
    /// The group that the file belongs to, by name or number.
    pub group: String,
    /// The permissions of the file.
    pub mode: u32,
    /// Units to restart when it has changed.
    pub restart: Vec<String>,
    /// Units to reload when it has changed.
    pub reload: Vec<String>,
    /// Whether the machine puts it back by itself after a reboot.
    #[serde(default)]
    pub persist: bool,
}

/// The name of a secret: letters, digits, `-`, `_` and, but for the first character, `.`.
///
/// It becomes part of file names and a field of lines, so it must not contain what separates those.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

/// A text that cannot name a secret.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` is not the name of a secret: expected 1 to 200 letters, digits, `-`, `_` and `.`, and no `.` at the \
     beginning"
)]
pub struct BadSecretName(String);

impl SecretName {
    /// The name as text.
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
}
