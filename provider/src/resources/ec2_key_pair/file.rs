//! The file with the private half of a key that was generated: the only place where it is.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nixos_activator::Secret;

/// Writes a private key where nothing is yet. Half a key does not stay.
pub(super) fn write_private(path: &str, key: &Secret) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(key.expose().as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// Moves it, also to another file system. A file that is not there any more is nothing to move.
pub(super) fn move_private(from: &str, to: &str) -> io::Result<()> {
    if from.is_empty() || to.is_empty() || !Path::new(from).exists() {
        return Ok(());
    }
    let key = Secret::new(fs::read_to_string(from)?);
    write_private(to, &key)?;
    fs::remove_file(from)
}

/// What has become of a file that was to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// There is none now.
    Gone,
    /// It has this name now.
    Kept(String),
    /// It holds something else, and stays.
    NotOurs,
}

/// Gives the file with the private half of `public` another name, because machines may be reached with that key only:
/// `FILE.old`, or the first free one of `FILE.old.2` and so on. An earlier one may be what other machines need. What
/// somebody has put in its place is not touched.
pub(super) fn put_aside(path: &str, public: &str) -> io::Result<Removal> {
    match holds(path, public)? {
        None => return Ok(Removal::Gone),
        Some(false) => return Ok(Removal::NotOurs),
        Some(true) => {}
    }
    let mut number = 1;
    loop {
        let name = if number == 1 { format!("{path}.old") } else { format!("{path}.old.{number}") };
        match move_private(path, &name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            moved => return moved.map(|()| Removal::Kept(name)),
        }
    }
}

/// Whether the file holds the private half of `public`; `None` where there is no file.
fn holds(path: &str, public: &str) -> io::Result<Option<bool>> {
    let text = match fs::read(path) {
        Ok(bytes) => Secret::new(String::from_utf8_lossy(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(public_half(text.expose()).as_deref() == Some(public)))
}

/// The public half of a private key in OpenSSH's format, which has it in clear, also where there is a passphrase.
/// Source: `PROTOCOL.key` of OpenSSH.
fn public_half(private: &str) -> Option<String> {
    let text = private.trim().strip_prefix("-----BEGIN OPENSSH PRIVATE KEY-----")?;
    let text = text.strip_suffix("-----END OPENSSH PRIVATE KEY-----")?;
    let bytes = STANDARD.decode(text.split_whitespace().collect::<String>()).ok()?;
    let rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    let (_cipher, rest) = field(rest)?;
    let (_derivation, rest) = field(rest)?;
    let (_parameters, rest) = field(rest)?;
    let (_number_of_keys, rest) = rest.split_first_chunk::<4>()?;
    let (public, _) = field(rest)?;
    let (kind, _) = field(public)?;
    Some(format!("{} {}", std::str::from_utf8(kind).ok()?, STANDARD.encode(public)))
}

/// A field, which has its length before it, and what is behind it.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use nixos_activator::ssh::{KeyPair, KeyType};

    use super::*;

    #[test]
    fn a_private_key_never_overwrites_a_file_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        write_private(&path("a"), &Secret::new("key")).unwrap();
        assert_eq!(fs::metadata(path("a")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            write_private(&path("a"), &Secret::new("other")).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );

        fs::write(path("b"), "mine").unwrap();
        assert!(move_private(&path("a"), &path("b")).is_err());
        assert_eq!(fs::read_to_string(path("a")).unwrap(), "key");
        move_private(&path("a"), &path("c")).unwrap();
        assert_eq!(
            (fs::read_to_string(path("c")).unwrap().as_str(), Path::new(&path("a")).exists()),
            ("key", false)
        );
        move_private(&path("a"), &path("d")).unwrap();
    }

    #[tokio::test]
    async fn a_key_that_is_put_aside_overwrites_no_earlier_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key").display().to_string();
        let pair = KeyPair::generate(KeyType::Ed25519).await.unwrap();
        assert_eq!(put_aside(&path, &pair.public).unwrap(), Removal::Gone, "there is none");
        for name in ["old", "old.2", "old.3"] {
            write_private(&path, &pair.private).unwrap();
            let kept = format!("{path}.{name}");
            assert_eq!(put_aside(&path, &pair.public).unwrap(), Removal::Kept(kept.clone()));
            assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(!Path::new(&path).exists());
        }
        fs::write(&path, "mine").unwrap();
        assert_eq!(put_aside(&path, &pair.public).unwrap(), Removal::NotOurs);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[tokio::test]
    async fn only_the_file_with_the_key_itself_is_renamed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key").display().to_string();
        let (ours, other) = (KeyType::Ed25519, KeyType::Rsa { bits: 2048 });
        let (ours, other) = (KeyPair::generate(ours).await.unwrap(), KeyPair::generate(other).await.unwrap());
        assert_eq!(put_aside(&path, &ours.public).unwrap(), Removal::Gone, "there is none");
        for text in [other.private.expose(), "mine", ""] {
            fs::write(&path, text).unwrap();
            assert_eq!(put_aside(&path, &ours.public).unwrap(), Removal::NotOurs);
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
