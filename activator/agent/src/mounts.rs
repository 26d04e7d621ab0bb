//! What the file systems are like that we need: whether they survive a reboot, can be written, and let programs run.

use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// Why what is written at `path`, or where that will be, is not there after a reboot; as the rest of a sentence about what is needed.
pub(crate) fn is_lasting(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let there = existing(path);
    if is_in_memory(there) || upper_of(there).is_some_and(|upper| is_in_memory(existing(&upper))) {
        return Err(format!("a {shown} that survives a reboot, and this one is in memory"));
    }
    if has_flag(there, StatVfsMountFlags::RDONLY) {
        return Err(format!("a {shown} that can be written, and this one is read-only"));
    }
    Ok(())
}

/// Whether a program at `path`, or where that will be, can be run.
pub(crate) fn lets_run(path: &Path) -> bool {
    !has_flag(existing(path), StatVfsMountFlags::NOEXEC)
}

/// The nearest that is there.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn has_flag(path: &Path, flag: StatVfsMountFlags) -> bool {
    statvfs(path).is_ok_and(|stat| stat.f_flag.contains(flag))
}

fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| [TMPFS, RAMFS].contains(&kind)))
}

/// Where an overlay that `path` is on has what is written to it; `None`: it is on none, or that cannot be told.
fn upper_of(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let upper = upper_in(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &path)?;
    // What the initial file system has mounted is named as it was there.
    let now = Path::new("/").join(upper.strip_prefix("/sysroot").unwrap_or(&upper));
    Some(if upper.exists() { upper } else { now })
}

/// The same according to the kernel's list of mounts.
fn upper_in(mounts: &str, path: &Path) -> Option<PathBuf> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let point = PathBuf::from(place.split(' ').nth(4)?.replace("\\040", " "));
        path.starts_with(&point).then(|| (point.as_os_str().len(), kind.to_owned()))
    };
    // Of those at the same place the last one is on top.
    let (_, kind) = mounts.lines().filter_map(mount).max_by_key(|(length, _)| *length)?;
    let options = kind.strip_prefix("overlay ")?.rsplit(' ').next()?.to_owned();
    options.split(',').find_map(|option| option.strip_prefix("upperdir=").map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_layer_of_an_overlay_is_found() {
        let mounts = "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda rw\n\
             30 22 0:25 / /etc rw,relatime shared:2 - overlay overlay rw,lowerdir=/a,upperdir=/sysroot/.rw-etc/upper,workdir=/w\n\
             31 22 0:26 / /var\\040x rw - tmpfs tmpfs rw\n";
        let upper = |path: &str| upper_in(mounts, Path::new(path));
        assert_eq!(upper("/etc/systemd"), Some("/sysroot/.rw-etc/upper".into()));
        assert_eq!(upper("/etcetera"), None);
        assert_eq!(upper("/var x/y"), None);
        let above = format!("{mounts}32 30 0:27 / /etc rw - tmpfs tmpfs rw\n");
        assert_eq!(upper_in(&above, Path::new("/etc/systemd")), None);
    }

    #[test]
    fn memory_does_not_last() {
        let why = is_lasting(Path::new("/dev/shm/not/there/yet"));
        if is_in_memory(Path::new("/dev/shm")) {
            assert!(why.unwrap_err().contains("/dev/shm/not/there/yet that survives a reboot"));
        }
        assert!(
            is_lasting(Path::new("/proc/sys")).is_err()
                || !has_flag(Path::new("/proc/sys"), StatVfsMountFlags::RDONLY)
        );
    }
}
