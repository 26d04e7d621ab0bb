//! The file with the private half of a key that was generated: the only place where it is.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nixos_activator::Secret;

/// Writes a private key where nothing is yet.
pub(super) fn write_private(path: &str, key: &Secret) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key.expose().as_bytes())?;
    file.sync_all()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

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
}
