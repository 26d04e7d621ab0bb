//! Whether there is room for what a boot loader copies to a file system of its own.
//!
//! A boot loader that runs out of it half-way has been known to say nothing, and to leave a machine that does not boot.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The file system that firmware or boot loader can read.
const BOOT: &str = "/boot";
/// Where boot loaders keep kernels there: systemd-boot, and grub.
const KERNELS: [&str; 2] = ["/boot/EFI/nixos", "/boot/kernels"];

/// Refuses a system whose kernel and initial RAM disk cannot be there together with those that the machine may have to go back to. What
/// belongs to other generations is counted as free: boot loaders remove it when it has to go.
pub(crate) fn for_boot(system: &Path) -> Result<(), String> {
    // On the same file system nothing is copied.
    if device("/nix/store") == device(BOOT) {
        return Ok(());
    }
    let Ok(room) = rustix::fs::statvfs(BOOT) else {
        return Ok(());
    };
    let systems = [system, Path::new("/run/current-system"), Path::new("/run/booted-system")];
    let parts: BTreeSet<PathBuf> = systems.iter().flat_map(|system| parts(system)).collect();
    let needed = parts.iter().filter_map(|part| Some(part.metadata().ok()?.len())).sum();
    let kept: u64 = KERNELS.iter().map(|directory| size(directory)).sum();
    judge(needed, kept + room.f_bavail.saturating_mul(room.f_frsize))
}

fn judge(needed: u64, room: u64) -> Result<(), String> {
    if needed <= room {
        return Ok(());
    }
    Err(format!(
        "{BOOT} has room for {} KiB of kernels and initial RAM disks, and those of the new system, with those of the running one to go \
         back to, need {} KiB. Nothing was changed.",
        room / 1024,
        needed.div_ceil(1024)
    ))
}

/// The files in a directory, all together.
fn size(directory: &str) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// What of a system the boot loader copies.
fn parts(system: &Path) -> Vec<PathBuf> {
    ["kernel", "initrd"].iter().filter_map(|name| system.join(name).canonicalize().ok()).collect()
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
        assert!(message.contains("room for 4 KiB") && message.contains("need 5 KiB"), "{message}");
    }
}
