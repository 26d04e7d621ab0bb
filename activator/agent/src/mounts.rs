//! Properties of the file systems that the agent needs: whether they survive a reboot, can be written, and let programs
//! run.

use std::path::{Path, PathBuf};

use rustix::fs::{StatVfsMountFlags, statfs, statvfs};

const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;

/// Checks that what is written at `path`, which may not exist yet, is there after a reboot. The error continues a
/// sentence that ends with "needs".
pub(crate) fn check_lasting(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let existing = nearest_existing(path);
    if is_in_memory(existing)
        || upper_layer(existing).is_some_and(|upper| is_in_memory(nearest_existing(&upper)))
    {
        return Err(format!("a {shown} that survives a reboot, and this one is in memory"));
    }
    if has_flag(existing, StatVfsMountFlags::RDONLY) {
        return Err(format!("a {shown} that can be written, and this one is read-only"));
    }
    Ok(())
}

/// Whether a program at `path`, which may not exist yet, can be run.
pub(crate) fn lets_run(path: &Path) -> bool {
    !has_flag(nearest_existing(path), StatVfsMountFlags::NOEXEC)
}

/// The path itself, or the nearest directory above it that exists.
fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn has_flag(path: &Path, flag: StatVfsMountFlags) -> bool {
    statvfs(path).is_ok_and(|stat| stat.f_flag.contains(flag))
}

fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| [TMPFS, RAMFS].contains(&kind)))
}

/// The upper layer of the overlay that `path` is on, which gets what is written there; `None`: no overlay, or not
/// known.
fn upper_layer(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let upper = upper_layer_in(&std::fs::read_to_string("/proc/self/mountinfo").ok()?, &path)?;
    // The initial RAM disk mounts the root at `/sysroot`, and the list of mounts still names its mounts so.
    let renamed = Path::new("/").join(upper.strip_prefix("/sysroot").unwrap_or(&upper));
    Some(if upper.exists() { upper } else { renamed })
}

/// The same according to a list of mounts.
fn upper_layer_in(mounts: &str, path: &Path) -> Option<PathBuf> {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let point = PathBuf::from(place.split(' ').nth(4)?.replace("\\040", " "));
        path.starts_with(&point).then(|| (point.as_os_str().len(), kind.to_owned()))
    };
    // Of mounts at the same place the last one is on top.
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
             30 22 0:25 / /etc rw,relatime shared:2 - overlay overlay \
             rw,lowerdir=/a,upperdir=/sysroot/.rw-etc/upper,workdir=/w\n\
             31 22 0:26 / /var\\040x rw - tmpfs tmpfs rw\n";
        let upper = |path: &str| upper_layer_in(mounts, Path::new(path));
        assert_eq!(upper("/etc/systemd"), Some("/sysroot/.rw-etc/upper".into()));
        assert_eq!(upper("/etcetera"), None);
        assert_eq!(upper("/var x/y"), None);
        let above = format!("{mounts}32 30 0:27 / /etc rw - tmpfs tmpfs rw\n");
        assert_eq!(upper_layer_in(&above, Path::new("/etc/systemd")), None);
    }

    #[test]
    fn memory_does_not_last() {
        let why = check_lasting(Path::new("/dev/shm/not/there/yet"));
        if is_in_memory(Path::new("/dev/shm")) {
            assert!(why.unwrap_err().contains("/dev/shm/not/there/yet that survives a reboot"));
        }
        assert!(
            check_lasting(Path::new("/proc/sys")).is_err()
                || !has_flag(Path::new("/proc/sys"), StatVfsMountFlags::RDONLY)
        );
    }
}
