//! Files with secrets: in memory that is never written to a disk, and each replaced as a whole.

use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock, statfs};
use rustix::mount::{MountFlags, mount};

use crate::AgentError;
use crate::files::failed;
use crate::host;

/// Where contents wait.
pub(super) const MEMORY: &str = "/run/nixos-agent-secrets";
/// Where secrets are by default; NixOS mounts a ramfs there.
const KEYS: &str = "/run/keys";

/// Makes sure that a directory exists and that what is in it is never written to a disk.
pub(super) fn in_memory(directory: &Path, mode: u32) -> Result<(), AgentError> {
    const RAMFS: u64 = 0x8584_58f6;
    let at = directory.display().to_string();
    DirBuilder::new().mode(mode).recursive(true).create(directory).map_err(failed(&at))?;
    // Two that find it missing must not mount one over the other.
    let lock = File::open(directory).map_err(failed(&at))?;
    let _ = flock(&lock, FlockOperation::LockExclusive);
    let is_ramfs = statfs(directory).is_ok_and(|stat| u64::try_from(stat.f_type).ok() == Some(RAMFS));
    if !is_ramfs {
        let options = CString::new(format!("mode={mode:04o}")).unwrap_or_default();
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        // A container may not be allowed to; /run is in memory too, and swap is the user's business.
        let _ = mount("ramfs", directory, "ramfs", flags, options.as_c_str());
    }
    Ok(())
}

/// The directory a secret is to be in.
pub(super) fn make_directory(path: &Path) -> Result<(), AgentError> {
    let Some(directory) = path.parent().filter(|directory| !directory.exists()) else {
        return Ok(());
    };
    if directory == Path::new(KEYS) {
        in_memory(directory, 0o750)?;
    }
    DirBuilder::new()
        .mode(0o750)
        .recursive(true)
        .create(directory)
        .map_err(failed(&directory.display().to_string()))?;
    // As NixOS has it: members of `keys` may look whether a secret has come.
    if let Some(keys) = group("keys") {
        let _ = std::os::unix::fs::chown(directory, None, Some(keys));
    }
    Ok(())
}

/// A file of root's that was not there.
pub(super) fn write_new(path: &Path, content: &[u8]) -> Result<(), AgentError> {
    let at = failed(&path.display().to_string());
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(&at)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(&at)
}

/// Replaces a file as a whole; nobody sees it half-written or with the wrong owner.
pub(super) fn write(path: &Path, content: &[u8], mode: u32, uid: u32, gid: u32) -> Result<(), AgentError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.nixos-agent"));
    write_new(&new, content)?;
    let finish = || {
        std::os::unix::fs::chown(&new, Some(uid), Some(gid))?;
        std::fs::set_permissions(&new, Permissions::from_mode(mode))?;
        std::fs::rename(&new, path)
    };
    finish().map_err(failed(&path.display().to_string()))
}

/// The number of a user; names are asked from the machine, which may have more than `/etc/passwd`.
pub(super) fn user(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    if name == "root" {
        return Some(0);
    }
    host::output("id", &["-u", "--", name]).ok()?.trim().parse().ok()
}

pub(super) fn group(name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    if name == "root" {
        return Some(0);
    }
    let line = host::output("getent", &["group", name]).ok()?;
    line.split(':').nth(2)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        write_new(&path, b"one").unwrap();
        write(&path, b"two", 0o640, rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
            .unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
