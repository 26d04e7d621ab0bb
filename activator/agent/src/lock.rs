//! The lock of the machine: one activation at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// The file that is locked. Its text is the id of the activation that holds the lock.
///
/// Only root can open it. A user who can open a file can lock it, and could so block every deployment.
pub(crate) const LOCK: &str = "/run/nixos-agent/lock";

/// Takes the lock for `holder`. It is held as long as the returned file is open, so the kernel frees it however the
/// agent ends.
pub(crate) fn lock(holder: &str) -> Result<File, String> {
    let failed = |error: std::io::Error| format!("The lock {LOCK} cannot be taken: {error}.");
    let directory = Path::new(LOCK).parent().unwrap_or(Path::new("/run"));
    DirBuilder::new().mode(0o700).recursive(true).create(directory).map_err(failed)?;
    std::fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(failed)?;
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).mode(0o600).open(LOCK).map_err(failed)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut other = String::new();
        let _ = file.read_to_string(&mut other);
        return Err(format!(
            "Another activation ({}) is under way on the machine; nothing was changed. Wait for its end \
             (`nixos-activator watch`), then apply again.",
            other.trim()
        ));
    }
    let _ = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes()));
    Ok(file)
}
