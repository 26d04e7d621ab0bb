//! What the system says about memory.

/// The value of a `Key:   1234 kB` line of a file in `/proc`, in MiB, where the system has such files.
pub(crate) fn mib(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_whole_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "VmRSSX:\t 1024 kB\nVmRSS:\t 4096 kB\nName:\tnix\n").unwrap();
        let found = |key| mib(file.path().to_str().unwrap(), key);
        assert_eq!((found("VmRSS"), found("VmR"), found("Name"), found("none")), (Some(4), None, None, None));
    }
}
