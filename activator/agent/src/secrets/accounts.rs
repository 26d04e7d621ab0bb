//! Users and groups of the machine.

use crate::program;

/// The number of a user, by name or number. The machine is asked where `/etc/passwd` does not have the name.
pub(super) fn user(name: &str) -> Option<u32> {
    let ask = || program::output("id", &["-u", "--", name]).ok()?.trim().parse().ok();
    number(name, "/etc/passwd").or_else(ask)
}

/// The number of a group, by name or number. The machine is asked where `/etc/group` does not have the name.
pub(super) fn group(name: &str) -> Option<u32> {
    number(name, "/etc/group").or_else(|| {
        let line = program::output("getent", &["group", name]).ok()?;
        line.split(':').nth(2)?.trim().parse().ok()
    })
}

/// The numbers of all groups of a user.
pub(super) fn groups(user: &str) -> Vec<u32> {
    let text = program::output("id", &["-G", "--", user]).unwrap_or_default();
    text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// The number that `name` is, or that a list such as `/etc/passwd` gives it.
pub(super) fn number(name: &str, list: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    if name == "root" {
        return Some(0);
    }
    let text = std::fs::read_to_string(list).ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}
