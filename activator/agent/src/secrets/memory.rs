//! Files of root in memory that is never written to a disk.

use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock, statfs};
use rustix::mount::{MountFlags, mount};

use crate::error::{AgentError, io_error};

/// The directory where contents wait.
pub(super) const MEMORY: &str = "/run/nixos-agent-secrets";

/// The directory of one activation there: contents that were sent, and what was in their places before.
pub(super) fn directory_of(activation: &str) -> PathBuf {
    Path::new(MEMORY).join(activation)
}

/// Makes such a directory, for root only.
pub(super) fn make_directory(directory: &Path) -> Result<(), AgentError> {
    mount_ramfs(Path::new(MEMORY), 0o700)?;
    DirBuilder::new().mode(0o700).recursive(true).create(directory).map_err(io_error(directory.display()))
}

/// Makes sure that a directory exists and that what is in it is never written to a disk.
pub(super) fn mount_ramfs(directory: &Path, mode: u32) -> Result<(), AgentError> {
    const RAMFS: u64 = 0x8584_58f6;
    let failed = io_error(directory.display());
    DirBuilder::new().mode(mode).recursive(true).create(directory).map_err(&failed)?;
    // Two agents that find no ramfs there must not mount one over the other.
    let lock = File::open(directory).map_err(&failed)?;
    let _ = flock(&lock, FlockOperation::LockExclusive);
    let is_ramfs = statfs(directory).is_ok_and(|stat| u64::try_from(stat.f_type).ok() == Some(RAMFS));
    if !is_ramfs {
        let options = CString::new(format!("mode={mode:04o}")).unwrap_or_default();
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        // A container may not be allowed to mount. Its `/run` is in memory too, and its swap is the user's business.
        let _ = mount("ramfs", directory, "ramfs", flags, options.as_c_str());
    }
    Ok(())
}

/// Writes a file of root's anew. Its directory must be one that only root can change.
pub(super) fn write_new(path: &Path, content: &[u8]) -> Result<(), AgentError> {
    let failed = io_error(path.display());
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(&failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(&failed)
}
