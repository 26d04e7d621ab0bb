//! What an evaluation prints on its way: warnings, and marks of our own Nix code that say what they are about.

use std::collections::BTreeSet;

use super::model::{Node, System};
use crate::MachineName;
use crate::nix::Note;

/// Where a value is: its node (empty: it belongs to none), and the names that lead to it.
pub(super) type Path = Vec<String>;

/// Adds to each system that one process evaluated what was printed for it. What nodes have in common is evaluated
/// once, for the first of them.
pub(super) fn add_warnings<'a>(log: &[Note], nodes: impl Iterator<Item = (&'a MachineName, &'a mut Node)>) {
    let mut printed = by_node(log);
    for (name, node) in nodes {
        if let Node::Exact(system) = node
            && let Some(at) = printed.iter().position(|(done, _)| *done == name.as_str())
        {
            system.add_warnings(printed.swap_remove(at).1);
        }
    }
}

/// Everything that a process printed is about its only node.
pub(super) fn add_all_warnings(log: &[Note], system: &mut System) {
    let texts = log.iter().filter_map(|note| match note {
        Note::Warning(text) => Some(text.as_str()),
        Note::Mark(_) => None,
    });
    system.add_warnings(texts.collect());
}

/// Nodes in their order, with the warnings that were printed until each was done.
fn by_node(log: &[Note]) -> Vec<(&str, Vec<&str>)> {
    let (mut done, mut since) = (vec![], vec![]);
    for note in log {
        match note {
            Note::Warning(text) => since.push(text.as_str()),
            Note::Mark(mark) => {
                if let Some(name) = mark.strip_prefix("done:").and_then(|name| name.strip_suffix(':')) {
                    done.push((name, std::mem::take(&mut since)));
                }
            }
        }
    }
    done
}

/// The paths of values that could not be evaluated for want of a fact. Nix evaluates such a value once more between
/// two marks, so that a fact that is missed in between is missed there. A version that remembers how an evaluation
/// failed says nothing of it.
pub(super) fn for_want_of_facts(log: &[Note]) -> BTreeSet<Path> {
    let mut found = BTreeSet::new();
    let mut probed: Option<Path> = None;
    for note in log {
        let Note::Mark(mark) = note else { continue };
        if let Some(path) = mark.strip_prefix("probe:") {
            probed = serde_json::from_str(path).ok();
        } else if mark == "probed:" {
            probed = None;
        } else if mark == "fact:" {
            found.extend(probed.clone());
        }
    }
    found
}

impl System {
    /// Adds those that it does not have: NixOS prints `config.warnings`, too.
    fn add_warnings(&mut self, printed: Vec<&str>) {
        for text in printed {
            if !self.warnings.iter().any(|known| is_same(known, text)) {
                self.warnings.push(text.to_owned());
            }
        }
    }
}

/// Whether two texts differ in nothing but how their lines are broken and indented.
fn is_same(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(lines: &[&str]) -> Vec<Note> {
        let note = |line: &&str| match line.strip_prefix("nixos-") {
            Some(mark) => Note::Mark(mark.to_owned()),
            None => Note::Warning((*line).to_owned()),
        };
        lines.iter().map(note).collect()
    }

    #[test]
    fn warnings_are_of_the_node_that_is_done_next() {
        let log = notes(&[
            "shared",
            "of a",
            "nixos-fact:",
            "nixos-done:a:",
            "nixos-done:b:",
            "of c",
            "nixos-done:c:",
            "late",
        ]);
        assert_eq!(by_node(&log), [("a", vec!["shared", "of a"]), ("b", vec![]), ("c", vec!["of c"])]);
    }

    #[test]
    fn facts_are_missed_where_nix_looks_again() {
        let log = notes(&[
            "nixos-fact:",
            "nixos-probe:[\"a\",\"deployment\",\"targetHost\"]",
            "nixos-fact:",
            "nixos-probed:",
            "nixos-fact:",
            "nixos-probe:[\"a\",\"deployment\",\"targetPort\"]",
            "nixos-probed:",
        ]);
        let expected: Path = ["a", "deployment", "targetHost"].map(str::to_owned).to_vec();
        assert_eq!(for_want_of_facts(&log), BTreeSet::from([expected]));
    }
}
