//! What the system says about memory.

use std::path::Path;

/// The value of a `Key:   1234 kB` line of a file in `/proc`, in MiB, where the system has such files.
pub(crate) fn mib(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// What the control groups of this process leave, in MiB: in a container that may be less than the machine has.
/// <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory>
pub(crate) fn free_in_cgroup() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    root.join(own).ancestors().take_while(|group| group.starts_with(root)).filter_map(free_in).min()
}

/// What one of them leaves; `None` where it has no limit.
fn free_in(group: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limit, used) = (number("memory.max")?, number("memory.current")?);
    // What goes when somebody needs the memory.
    let given_back = ["active_file", "inactive_file", "slab_reclaimable"];
    let statistics = read("memory.stat").unwrap_or_default();
    let lines = statistics.lines().filter_map(|line| line.split_once(' '));
    let cached = lines
        .filter(|(name, _)| given_back.contains(name))
        .filter_map(|(_, bytes)| bytes.parse::<u64>().ok());
    Some(limit.saturating_sub(used.saturating_sub(cached.sum())) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_leaves_what_is_not_used() {
        let group = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(group.path().join(name), text).unwrap();
        assert_eq!(free_in(group.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "3145728\n");
        assert_eq!(free_in(group.path()), None);
        write("memory.max", "8388608\n");
        assert_eq!(free_in(group.path()), Some(5));
        write("memory.stat", "file 2000000\ninactive_file 1048576\n");
        assert_eq!(free_in(group.path()), Some(6));
        write("memory.current", "99999999\n");
        assert_eq!(free_in(group.path()), Some(0));
    }

    #[test]
    fn a_line_is_found_by_its_whole_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "VmRSSX:\t 1024 kB\nVmRSS:\t 4096 kB\nName:\tnix\n").unwrap();
        let found = |key| mib(file.path().to_str().unwrap(), key);
        assert_eq!((found("VmRSS"), found("VmR"), found("Name"), found("none")), (Some(4), None, None, None));
    }
}
