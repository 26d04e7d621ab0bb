//! Whether anything on this machine uses a volume of its cloud, which is about to be detached.
//!
//! The kernel decides: it lets the agent open a block device exclusively (`O_EXCL`) only where nothing else has it
//! open, be it a mount in any namespace, swap, LVM, LUKS, a RAID, a ZFS pool or a file system of btrfs over several
//! devices. What uses the device is looked up only to tell the user.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nixos_agent::VolumeUse;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::error::{AgentError, io_error};

/// The model that the `NVMe` devices of EC2's volumes report.
const EBS: &str = "Amazon Elastic Block Store";

/// Finds the volume's device and tries to open it exclusively.
///
/// `id` is EC2's id of the volume. `letter` is the last letter of the device name that it was attached as, which names
/// the device on machines without `NVMe`.
pub(crate) fn usage(id: &str, letter: &str) -> Result<VolumeUse, AgentError> {
    let Some(device) = device(Path::new("/sys/block"), Path::new("/dev"), id, letter) else {
        return Ok(VolumeUse::NotFound);
    };
    let shown = device.display().to_string();
    match open(&device, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Ok(VolumeUse::Free),
        Err(Errno::BUSY) => Ok(VolumeUse::InUse { by: users(&device), device: shown }),
        Err(error) => Err(io_error(shown)(error.into())),
    }
}

/// The volume's block device.
///
/// A device whose serial number is the volume's id certainly is the volume. The letter counts only on machines whose
/// volumes have no serial numbers.
fn device(sysfs: &Path, dev: &Path, id: &str, letter: &str) -> Option<PathBuf> {
    let serial = id.replace('-', "");
    let disks: Vec<PathBuf> =
        fs::read_dir(sysfs).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let reads = |disk: &Path, file: &str| {
        fs::read_to_string(disk.join(file)).is_ok_and(|text| text.trim().replace('-', "") == serial)
    };
    let found = disks.iter().find(|disk| reads(disk, "device/serial") || reads(disk, "serial"));
    if let Some(disk) = found {
        return Some(dev.join(disk.file_name()?));
    }
    let is_ebs =
        |disk: &PathBuf| fs::read_to_string(disk.join("device/model")).is_ok_and(|model| model.trim() == EBS);
    if letter.is_empty() || disks.iter().any(is_ebs) {
        return None;
    }
    let by_letter = [format!("xvd{letter}"), format!("sd{letter}")].map(|name| dev.join(name));
    by_letter
        .into_iter()
        .find(|path| fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device()))
}

/// What uses the device or its partitions, as far as that can be found out: mounts, swap, and devices stacked upon it.
fn users(device: &Path) -> Vec<String> {
    let name = device.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let disk = Path::new("/sys/class/block").join(&name);
    let parts = fs::read_dir(&disk).into_iter().flatten().filter_map(|entry| {
        let name = entry.ok()?.file_name().to_string_lossy().into_owned();
        disk.join(&name).join("partition").exists().then_some(name)
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let mut users = vec![];
    for name in std::iter::once(name.clone()).chain(parts) {
        let path = Path::new("/dev").join(&name);
        if let Ok(found) = fs::metadata(&path) {
            let number = found.rdev();
            let number = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
            users.extend(mounted(&mounts, &number).map(|point| format!("mounted at {point}")));
        }
        if swaps.lines().any(|line| line.split_whitespace().next() == path.to_str()) {
            users.push("swap".to_owned());
        }
        let holders = fs::read_dir(Path::new("/sys/class/block").join(&name).join("holders"));
        for holder in holders.into_iter().flatten().filter_map(Result::ok) {
            let holder = holder.file_name().to_string_lossy().into_owned();
            let mapped = fs::read_to_string(format!("/sys/class/block/{holder}/dm/name"));
            users.push(mapped.map_or(holder, |name| format!("/dev/mapper/{}", name.trim())));
        }
        if is_of_btrfs(&name) {
            users.push("btrfs".to_owned());
        }
    }
    users.sort();
    users.dedup();
    users
}

/// The places where a device of this number is mounted: fields 3 and 5 of `proc_pid_mountinfo(5)`.
fn mounted<'a>(mounts: &'a str, number: &'a str) -> impl Iterator<Item = &'a str> {
    mounts.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(2);
        (fields.next()? == number).then(|| fields.nth(1)).flatten()
    })
}

/// Whether a mounted btrfs has this device. The list of mounts names only one of its devices.
fn is_of_btrfs(name: &str) -> bool {
    let systems = fs::read_dir("/sys/fs/btrfs").into_iter().flatten().filter_map(Result::ok);
    systems.map(|system| system.path().join("devices").join(name)).any(|device| device.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine's `/sys/block` with disks of these names, serial numbers and models.
    fn disks(disks: &[(&str, Option<&str>, Option<&str>)]) -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        for (name, serial, model) in disks {
            let device = sysfs.path().join(name).join("device");
            fs::create_dir_all(&device).unwrap();
            for (file, text) in [("serial", serial), ("model", model)] {
                if let Some(text) = text {
                    fs::write(device.join(file), format!("{text}\n")).unwrap();
                }
            }
        }
        sysfs
    }

    #[test]
    fn a_volume_is_found_by_its_serial_number() {
        let sysfs =
            disks(&[("nvme0n1", Some("vol0root"), Some(EBS)), ("nvme1n1", Some("vol0data"), Some(EBS))]);
        let found = device(sysfs.path(), Path::new("/dev"), "vol-0data", "f");
        assert_eq!(found, Some(PathBuf::from("/dev/nvme1n1")));
        // `/dev/sdf` is some other disk on a machine whose volumes are `NVMe` devices.
        assert_eq!(device(sysfs.path(), Path::new("/dev"), "vol-0gone", "f"), None);
    }

    #[test]
    fn mounts_are_found_by_the_number_of_the_device() {
        let mounts = "36 35 98:0 / /data rw,noatime master:1 - ext4 /dev/vdb rw\n\
                      37 35 98:1 / /other rw - ext4 /dev/vdc rw\n";
        assert_eq!(mounted(mounts, "98:0").collect::<Vec<_>>(), ["/data"]);
    }
}
