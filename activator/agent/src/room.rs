//! Whether there is room for what a boot loader copies to a file system of its own.
//!
//! A boot loader that runs out of it half-way has been known to say nothing, and to leave a machine that does not boot.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::host;

/// Where boot loaders keep kernels: the file system that firmware or boot loader can read.
const BOOT: &str = "/boot";

/// Refuses a system whose kernel and initial RAM disk do not fit there.
pub(crate) fn for_boot(system: &Path) -> Result<(), String> {
    // On the same file system nothing is copied.
    if device("/nix/store") == device(BOOT) {
        return Ok(());
    }
    let Ok(room) = rustix::fs::statvfs(BOOT) else {
        return Ok(());
    };
    let there: Vec<PathBuf> =
        host::generations().into_iter().flat_map(|number| parts(&link(number))).collect();
    let new: Vec<PathBuf> = parts(system).into_iter().filter(|part| !there.contains(part)).collect();
    let needed: u64 = new.iter().filter_map(|part| Some(part.metadata().ok()?.len())).sum();
    judge(needed, room.f_bavail.saturating_mul(room.f_frsize))
}

fn judge(needed: u64, free: u64) -> Result<(), String> {
    if needed <= free {
        return Ok(());
    }
    Err(format!(
        "{BOOT} has {} KiB left, and the kernel and initial RAM disk of the new system need {} KiB. Nothing was changed. Remove \
         old generations (`keep_generations` does), or make it larger.",
        free / 1024,
        needed.div_ceil(1024)
    ))
}

fn link(generation: u64) -> PathBuf {
    format!("{}-{generation}-link", host::PROFILE).into()
}

/// What of a system the boot loader copies.
fn parts(system: &Path) -> Vec<PathBuf> {
    let mut parts: Vec<_> =
        ["kernel", "initrd"].iter().filter_map(|name| system.join(name).canonicalize().ok()).collect();
    parts.dedup();
    parts
}

fn device(path: &str) -> Option<u64> {
    Some(std::fs::metadata(path).ok()?.dev())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(judge(0, 0), Ok(()));
        assert_eq!(judge(4096, 4096), Ok(()));
        let message = judge(4097, 4096).unwrap_err();
        assert!(message.contains("has 4 KiB left") && message.contains("need 5 KiB"), "{message}");
    }
}
