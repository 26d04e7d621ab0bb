//! The names everything else is built from: machines and store paths, parsed once at the border.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a machine in a network: the attribute name of the node and the key in `machines`.
///
/// As in NixOps: letters, digits, `_`, `-` and, not in front, `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineName(String);

/// A path in the Nix store, e.g. `/nix/store/<32 characters>-nginx-1.26.2`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorePath(String);

/// A text that is not the name it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// A machine name with characters that NixOps and DNS tools do not accept.
    #[error(
        "`{0}` is not a machine name: expected letters, digits, `_`, `-` and `.`, and no `.` at the beginning"
    )]
    Machine(String),
    /// Not a path directly below the store.
    #[error("`{0}` is not a store path: expected /nix/store/<hash>-<name>")]
    StorePath(String),
}

impl MachineName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl StorePath {
    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the hash, e.g. `nginx-1.26.2`.
    pub fn name(&self) -> &str {
        self.0.get("/nix/store/".len() + 33..).unwrap_or_default()
    }

    /// The name in two, as `builtins.parseDrvName` does it: the version begins behind the first `-` that no letter
    /// follows. It is empty where there is none.
    pub fn name_and_version(&self) -> (&str, &str) {
        let name = self.name();
        let begins = |at: usize| name.as_bytes().get(at + 1).is_some_and(|next| !next.is_ascii_alphabetic());
        let dash = name.match_indices('-').find(|(at, _)| begins(*at));
        dash.and_then(|(at, _)| Some((name.get(..at)?, name.get(at + 1..)?))).unwrap_or((name, ""))
    }

    /// Whether this is a derivation (`.drv`).
    pub fn is_derivation(&self) -> bool {
        self.0.strip_suffix(".drv").is_some()
    }
}

impl FromStr for MachineName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.is_empty() || text.starts_with('.') || !text.chars().all(legal) {
            return Err(NameError::Machine(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for StorePath {
    type Err = NameError;

    /// Accepts exactly `/nix/store/<32 base-32 digits>-<name>`, the form of nixpkgs' default store.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::StorePath(text.to_owned());
        let base = text.strip_prefix("/nix/store/").ok_or_else(wrong)?;
        let (hash, name) = base.split_once('-').ok_or_else(wrong)?;
        let hash_ok = hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let legal = |c: char| c.is_ascii_alphanumeric() || "+-._?=".contains(c);
        if hash_ok && !name.is_empty() && name.chars().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(wrong())
        }
    }
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}
text_newtype!(MachineName);
text_newtype!(StorePath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_names_are_those_of_nixops() {
        for good in ["db", "web-1", "_x", "web.example", "1"] {
            assert!(good.parse::<MachineName>().is_ok(), "{good}");
        }
        for bad in ["", "machine 1", ".hidden", "a/b", "naïve", "a\nb"] {
            assert!(bad.parse::<MachineName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_version_begins_where_nix_says() {
        for (name, expected) in [
            ("nginx-1.26.2", ("nginx", "1.26.2")),
            ("nixos-system-web-24.11", ("nixos-system-web", "24.11")),
            ("openssl-3.0.14-bin", ("openssl", "3.0.14-bin")),
            ("perl5.38-URI-5.21", ("perl5.38-URI", "5.21")),
            ("a--b", ("a", "-b")),
            ("unit-web.service", ("unit-web.service", "")),
            ("ends-", ("ends-", "")),
        ] {
            let path: StorePath =
                format!("/nix/store/00000000000000000000000000000000-{name}").parse().unwrap();
            assert_eq!(path.name_and_version(), expected, "{name}");
        }
    }

    #[test]
    fn store_paths_are_parsed_strictly() {
        let path: StorePath = "/nix/store/00000000000000000000000000000000-a-1.0.drv".parse().unwrap();
        assert_eq!(path.name(), "a-1.0.drv");
        assert!(path.is_derivation());
        for bad in [
            "/nix/store/short-a",
            "/run/current-system",
            "/nix/store/00000000000000000000000000000000-",
            "/nix/store/00000000000000000000000000000000-a/bin",
            "/nix/store/00000000000000000000000000000000-a b",
        ] {
            assert!(bad.parse::<StorePath>().is_err(), "{bad}");
        }
    }
}
