//! Ids of activations and of deployments. Both are parts of file names and of names of systemd units.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::random::{NoRandomness, random_bytes};

/// A text that cannot be an id.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an id: expected 1 to 64 letters, digits and `-`, and no `-` at the beginning")]
pub struct BadId(String);

/// A new id: 128 random bits, written like a UUID.
pub fn random_id() -> Result<String, NoRandomness> {
    let mut bytes = random_bytes::<16>()?;
    // RFC 9562 marks a random UUID by version 4 and variant 1.
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let mut text = String::with_capacity(36);
    for (n, byte) in bytes.iter().enumerate() {
        if matches!(n, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(text)
}

/// Checks that a text is an id, so that it stays one part of a path and cannot be taken for an option.
fn checked(text: &str) -> Result<String, BadId> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if (1..=64).contains(&text.len()) && text.chars().all(legal) && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err(BadId(text.chars().take(80).collect()))
    }
}

/// Defines a type of ids: a string in JSON, checked wherever it comes in.
macro_rules! id {
    ($(#[$documentation:meta])* $name:ident) => {
        $(#[$documentation])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// A new id that nothing else has.
            pub fn random() -> Result<Self, NoRandomness> {
                random_id().map(Self)
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                checked(text).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadId;
            fn try_from(text: String) -> Result<Self, BadId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// Names one activation on one machine, and the files and systemd units that belong to it.
    ActivationId
}

id! {
    /// Names a deployment, such as one `nixos_deployment` of Terraform: the owner of systems and secrets on its
    /// machines.
    DeploymentId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_cannot_leave_their_directory() {
        for bad in ["", "..", "a/b", "-a", "a b", &"x".repeat(65)] {
            assert!(bad.parse::<ActivationId>().is_err(), "{bad}");
            assert!(bad.parse::<DeploymentId>().is_err(), "{bad}");
        }
        let (one, other) = (ActivationId::random().unwrap(), ActivationId::random().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.as_str().parse::<ActivationId>().unwrap(), one);
    }
}
