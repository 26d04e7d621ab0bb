//! The directory of one connection: its configuration, its control socket, its host keys.
//!
//! OpenSSH expands `%` in the names of sockets, Nix splits `NIX_SSHOPTS` at blanks, and the path of a socket is
//! short. So the directory is where its path has nothing of that: below the usual place for temporary files where
//! that will do.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::SshError;

/// The longest path of a Unix socket, less the random suffix `ssh` adds while it binds.
const LONGEST_SOCKET: usize = 103 - 18;

/// A private directory, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Place(TempDir);

impl Place {
    /// A new one for the connection to `host`.
    pub(super) fn new(host: &str) -> Result<Self, SshError> {
        let usual = std::env::temp_dir();
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let candidates = [Some(usual.clone()), runtime, Some("/tmp".into()), Some("/var/tmp".into())];
        Self::in_one_of(host, candidates.into_iter().flatten())
    }

    /// A new one in the first of these that is fit and can be written to.
    fn in_one_of(host: &str, candidates: impl Iterator<Item = PathBuf>) -> Result<Self, SshError> {
        let mut reasons = vec![];
        for parent in candidates {
            let mut builder = tempfile::Builder::new();
            builder.prefix("nixos-ssh-").permissions(std::fs::Permissions::from_mode(0o700));
            match builder.tempdir_in(&parent) {
                Ok(directory) if is_fit(&directory.path().join("ctl")) => return Ok(Self(directory)),
                Ok(_) => reasons.push(format!("{}: unfit for sockets", parent.display())),
                Err(error) => reasons.push(format!("{}: {error}", parent.display())),
            }
        }
        Err(SshError::Local {
            host: host.to_owned(),
            reason: format!(
                "there is no directory for its files. Set TMPDIR to one that can be written to, with a \
                 short path of letters, digits and `/._-` ({})",
                reasons.join("; ")
            ),
        })
    }

    /// A file in it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The `ssh_config` of the connection.
    pub(super) fn config(&self) -> PathBuf {
        self.file("config")
    }

    /// The control socket of the master.
    pub(super) fn socket(&self) -> PathBuf {
        self.file("ctl")
    }

    /// Writes a file that only we may read.
    pub(super) fn write(&self, name: &str, text: &str, host: &str) -> Result<(), SshError> {
        let path = self.file(name);
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| SshError::Local {
                host: host.to_owned(),
                reason: format!("{}: {error}", path.display()),
            })
    }

    /// Removes it now; what is still needed of it is in memory.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_dir_all(self.0.path());
    }
}

/// Whether `ssh`, its sockets and Nix take this path as it is.
fn is_fit(socket: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-".contains(c);
    socket.to_str().is_some_and(|text| text.len() <= LONGEST_SOCKET && text.chars().all(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_ssh_or_nix_would_misread_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let long = "x".repeat(LONGEST_SOCKET);
        for name in ["with blank", "50%", "it's", "a\"b", &long] {
            let unfit = parent.path().join(name);
            std::fs::create_dir(&unfit).unwrap();
            let place = Place::in_one_of("web", [unfit.clone(), "/tmp".into()].into_iter()).unwrap();
            assert!(place.config().starts_with("/tmp"), "{name}: {place:?}");
            assert_eq!(std::fs::read_dir(&unfit).unwrap().count(), 0, "nothing is left in the other one");
        }
        let nowhere = PathBuf::from("/nonexistent");
        let error = Place::in_one_of("web", [nowhere].into_iter()).unwrap_err().to_string();
        assert!(error.contains("Set TMPDIR") && error.contains("/nonexistent"), "{error}");
    }
}
