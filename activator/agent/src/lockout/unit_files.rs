//! Reading the unit files and scripts of a system.

use std::path::Path;

/// The text of a unit file of a system; `None`: the system has no such unit.
pub(super) fn unit(system: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(system.join("etc/systemd/system").join(name)).ok()
}

/// The programs that a unit starts, without the prefixes that systemd gives a meaning.
pub(super) fn programs(unit: &str) -> impl Iterator<Item = &str> {
    programs_of(
        unit,
        &["ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost"],
    )
}

/// The programs that a unit starts by these settings.
pub(super) fn programs_of<'a>(unit: &'a str, keys: &'a [&str]) -> impl Iterator<Item = &'a str> {
    unit.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        keys.contains(&key.trim()).then_some(())?;
        value.trim_start().trim_start_matches(['@', '-', ':', '+', '!']).split_whitespace().next()
    })
}

/// The store paths in a script, each to the end of its word.
pub(super) fn store_paths(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("/nix/store/").map(|(start, _)| {
        let rest = &text[start..];
        let end = rest.find(|c: char| c.is_whitespace() || "\"';|&()<>".contains(c)).unwrap_or(rest.len());
        &rest[..end]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_units_are_found_without_their_prefixes() {
        let unit = "[Service]\nExecStartPre=-/a/b -x\n\
                    ExecStart=@/nix/store/x/bin/firewall-start firewall-start\nRestart=no\n";
        assert_eq!(programs(unit).collect::<Vec<_>>(), ["/a/b", "/nix/store/x/bin/firewall-start"]);
    }

    #[test]
    fn store_paths_end_with_the_word() {
        let script = "perl -w /nix/store/x-p.pl '/nix/store/x-users-groups.json'; y=\"/nix/store/z\"\n";
        assert_eq!(
            store_paths(script).collect::<Vec<_>>(),
            ["/nix/store/x-p.pl", "/nix/store/x-users-groups.json", "/nix/store/z"]
        );
    }
}
