//! Whether `/boot` has space for the kernel and initial RAM disk of a new system, which the boot loader copies there.
//!
//! Some boot loaders that run out of space half-way say nothing, and leave a machine that does not boot.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The file system that the firmware or the boot loader reads.
const BOOT: &str = "/boot";
/// Where systemd-boot and GRUB keep kernels there.
const KERNELS: [&str; 2] = ["/boot/EFI/nixos", "/boot/kernels"];

/// Refuses a system whose kernel and initial RAM disk do not fit beside those of the systems that the machine may go
/// back to.
///
/// The files of other generations count as free space, because boot loaders remove files that no generation needs.
pub(crate) fn check(system: &Path) -> Result<(), String> {
    // Where `/boot` and the store are one file system, the boot loader copies nothing.
    if device("/nix/store") == device(BOOT) {
        return Ok(());
    }
    let Ok(boot) = rustix::fs::statvfs(BOOT) else {
        return Ok(());
    };
    let systems = [system, Path::new("/run/current-system"), Path::new("/run/booted-system")];
    let parts: BTreeSet<PathBuf> = systems.iter().flat_map(|system| parts(system)).collect();
    let needed = parts.iter().filter_map(|part| Some(part.metadata().ok()?.len())).sum();
    let used: u64 = KERNELS.iter().map(|directory| size(directory)).sum();
    check_fits(needed, used + boot.f_bavail.saturating_mul(boot.f_frsize))
}

fn check_fits(needed: u64, space: u64) -> Result<(), String> {
    if needed <= space {
        return Ok(());
    }
    Err(format!(
        "{BOOT} has room for {} KiB of kernels and initial RAM disks, and those of the new system, with those of the \
         running one to go back to, need {} KiB. Nothing was changed.",
        space / 1024,
        needed.div_ceil(1024)
    ))
}

/// The size of all files in a directory.
fn size(directory: &str) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// The files of a system that the boot loader copies.
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
        assert_eq!(check_fits(0, 0), Ok(()));
        assert_eq!(check_fits(4096, 4096), Ok(()));
        let message = check_fits(4097, 4096).unwrap_err();
        assert!(message.contains("room for 4 KiB") && message.contains("need 5 KiB"), "{message}");
    }
}
