//! The directory for temporary files, where `TMPDIR` names one that is not there or cannot be written, as after
//! `sudo` or in a container.

use std::path::Path;

/// Where else they may be.
const OTHERS: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Has this process use another directory where the one that the environment names is of no use. For the beginning of
/// `main`.
pub fn choose() {
    if tempfile::tempdir().is_ok() {
        return;
    }
    let usable = |place: &&str| tempfile::tempdir_in(place).is_ok();
    if let Some(place) = OTHERS.into_iter().find(usable) {
        // Only the first who says it is heard, and nobody has before.
        let _ = tempfile::env::override_temp_dir(Path::new(place));
    }
}

/// What children are to be told of it; `None`: what they inherit is right.
pub(crate) fn chosen() -> Option<std::path::PathBuf> {
    Some(tempfile::env::temp_dir()).filter(|place| *place != std::env::temp_dir())
}
