//! New SSH keys, made by OpenSSH's own `ssh-keygen`.

use std::io;
use std::path::PathBuf;

use tokio::process::Command;

use crate::Secret;

/// What kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// Short and quick: what to take unless something old has to read it.
    Ed25519,
    /// With so many bits.
    Rsa {
        /// Length of the modulus.
        bits: u16,
    },
}

/// Both halves of a key.
#[derive(Clone, Debug)]
pub struct KeyPair {
    /// The public half as in `authorized_keys`, without a comment.
    pub public: String,
    /// The private half in OpenSSH's format, without a passphrase.
    pub private: Secret,
}

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The program is not there.
    #[error("`ssh-keygen` was not found; it comes with OpenSSH's client (`apt-get install openssh-client`)")]
    NotFound,
    /// It failed.
    #[error("ssh-keygen: {0}")]
    Failed(String),
    /// The temporary directory.
    #[error("a temporary directory for a new key: {0}")]
    Io(#[from] io::Error),
}

impl KeyPair {
    /// Draws a new key. Until this returns it is in a file (0600, in a directory of its own): in memory, where the
    /// system has a place for that, so that a process that is killed meanwhile leaves no key on a disk.
    ///
    /// # Errors
    ///
    /// Without `ssh-keygen` on PATH, or without a place for temporary files.
    pub async fn generate(kind: KeyType) -> Result<Self, KeyError> {
        let mut place = tempfile::Builder::new();
        let place = place.prefix("nixos-key-");
        let in_memory = in_memory().into_iter().find_map(|memory| place.tempdir_in(memory).ok());
        let directory = in_memory.map_or_else(|| place.tempdir(), Ok)?;
        let file = directory.path().join("key");
        let bits = match kind {
            KeyType::Ed25519 => None,
            KeyType::Rsa { bits } => Some(bits.to_string()),
        };
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-N", "", "-C", "", "-t"]);
        match &bits {
            None => command.arg("ed25519"),
            Some(bits) => command.args(["rsa", "-b", bits]),
        };
        command.arg("-f").arg(&file).stdin(std::process::Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => KeyError::NotFound,
            _ => KeyError::Io(error),
        })?;
        if !output.status.success() {
            return Err(KeyError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let public = std::fs::read_to_string(file.with_extension("pub"))?;
        let private = Secret::new(std::fs::read_to_string(&file)?);
        Ok(Self { public: normalized(&public).unwrap_or_default(), private })
    }
}

/// Directories that are no disk, and that systems with systemd or with POSIX' shared memory have.
fn in_memory() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime.into_iter().chain([PathBuf::from("/dev/shm")]).filter(|directory| directory.is_dir()).collect()
}

/// A public key as `TYPE BASE64`: without options before and comment behind it.
pub fn normalized(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|word| !is_key_type(word));
    let (kind, blob) = (words.next()?, words.next()?);
    let base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    (blob.len() >= 32 && blob.chars().all(base64)).then(|| format!("{kind} {blob}"))
}

fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|prefix| word.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_key_has_two_halves_and_no_comment() {
        let pair = KeyPair::generate(KeyType::Ed25519).await.unwrap();
        assert!(pair.public.starts_with("ssh-ed25519 AAAA"), "{}", pair.public);
        assert_eq!(pair.public.split(' ').count(), 2);
        assert!(pair.private.expose().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
        assert!(!format!("{pair:?}").contains("BEGIN"));
    }

    #[test]
    fn comments_and_white_space_do_not_make_another_key() {
        let blob = "AAAAC3NzaC1lZDI1NTE5AAAAIF0000000000000000000000000000000000000000000";
        let expected = Some(format!("ssh-ed25519 {blob}"));
        assert_eq!(normalized(&format!("ssh-ed25519  {blob}   me@home\n")), expected);
        assert_eq!(normalized(&format!("no-pty ssh-ed25519 {blob}")), expected);
        assert_eq!(normalized("ssh-ed25519"), None);
        assert_eq!(normalized("hello world"), None);
    }
}
