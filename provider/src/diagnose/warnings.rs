//! What NixOS and Nix warn of while they evaluate: each text once, with the machines it is about.

use nixos_activator::MachineName;
use nixos_activator::evaluate::{Node, Warning};
use tfplugin::{Diagnostic, Diagnostics, Path};

use super::text::beginning;

/// How many warnings are shown whole; of the others there is one line each.
const SHOWN: usize = 10;
/// How many of those lines there are.
const LISTED: usize = 40;
/// How long a headline may be, in characters.
const HEADLINE: usize = 120;
/// How long a text may be, in characters.
const TEXT: usize = 4000;
/// How many machines are named.
const MACHINES: usize = 12;

/// The warnings of all machines. Terraform shows one of those with the same headline, so that each has its text in
/// there.
pub(crate) fn warnings<'a>(nodes: impl IntoIterator<Item = (&'a MachineName, &'a Node)>) -> Diagnostics {
    let mut found: Vec<(&str, Vec<&MachineName>)> = vec![];
    for (name, node) in nodes {
        let Node::Exact(system) = node else { continue };
        for text in &system.warnings {
            match found.iter_mut().find(|(known, _)| known == text) {
                Some((_, machines)) if machines.contains(&name) => {}
                Some((_, machines)) => machines.push(name),
                None => found.push((text, vec![name])),
            }
        }
    }
    let path = |machines: &[&MachineName]| {
        let all = Path::root().attribute("machines");
        if let [machine] = machines { all.key(machine.as_str()) } else { all }
    };
    let shown = found.iter().take(SHOWN).map(|(text, machines)| {
        Diagnostic::warning(format!("Evaluation warning: {}", headline(text)))
            .detail(format!("{}\n\nThis is about {}.", cut(&beginning(text), TEXT), named(machines)))
            .at(path(machines))
    });
    let mut shown: Vec<Diagnostic> = shown.collect();
    if let Some(rest) = found.get(SHOWN..).filter(|rest| !rest.is_empty()) {
        let mut lines: Vec<String> = rest
            .iter()
            .take(LISTED)
            .map(|(text, machines)| format!("- {} ({})", headline(text), named(machines)))
            .collect();
        if rest.len() > LISTED {
            lines.push(format!("and {} more", rest.len() - LISTED));
        }
        shown.push(
            Diagnostic::warning(format!("There are {} more evaluation warnings", rest.len()))
                .detail(lines.join("\n"))
                .at(Path::root().attribute("machines")),
        );
    }
    shown.into_iter().collect()
}

/// What is to be known of a specification as a whole.
pub(crate) fn of_specification(warning: &Warning, spec: &Path) -> Diagnostic {
    let summary = match warning {
        Warning::Unlocked { .. } => "The flake's lock file is not complete",
        Warning::NotAccepted { .. } => "The flake's `nixConfig` is not applied",
        Warning::Exposed { .. } => "Files with secrets are copied to the Nix store",
        Warning::NotFetched { .. } => "The flake is not evaluated purely",
    };
    Diagnostic::warning(summary).detail(warning.to_string()).at(spec.clone())
}

/// The first line that says something.
fn headline(text: &str) -> String {
    cut(text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default(), HEADLINE)
}

fn cut(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text).trim_end()),
        None => text.to_owned(),
    }
}

fn named(machines: &[&MachineName]) -> String {
    let mut names: Vec<String> = machines.iter().take(MACHINES).map(|name| format!("\"{name}\"")).collect();
    if let Some(more) = machines.len().checked_sub(MACHINES).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    let last = names.pop().unwrap_or_default();
    let kind = if machines.len() == 1 { "machine" } else { "machines" };
    if names.is_empty() {
        format!("{kind} {last}")
    } else {
        format!("{kind} {} and {last}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nixos_activator::evaluate::System;
    use nixos_activator::inventory::Inventory;

    use super::*;

    fn node(warnings: &[String]) -> Node {
        Node::Exact(Box::new(System {
            drv: "/nix/store/00000000000000000000000000000000-x.drv".parse().unwrap(),
            toplevel: "/nix/store/00000000000000000000000000000000-x".parse().unwrap(),
            system: None,
            nixos_version: None,
            specialisation: None,
            keys: BTreeMap::new(),
            warnings: warnings.to_vec(),
            inventory: Inventory::default(),
        }))
    }

    #[test]
    fn each_text_is_there_once_and_names_its_machines() {
        let names: Vec<MachineName> = ["a", "b", "c"].map(|name| name.parse().unwrap()).to_vec();
        let (both, own) = ("\n  foo is old\nuse bar".to_owned(), "x".repeat(5000));
        let nodes = [node(&[both.clone(), both.clone()]), node(&[own, both]), node(&[])];
        let said: Vec<Diagnostic> = warnings(names.iter().zip(&nodes)).into_iter().collect();
        let [first, second] = said.as_slice() else { panic!("{said:?}") };
        assert_eq!(first.summary, "Evaluation warning: foo is old");
        assert!(first.detail.ends_with("use bar\n\nThis is about machines \"a\" and \"b\"."), "{first:?}");
        assert!(second.summary.chars().count() < 150 && second.detail.chars().count() < 4100, "{second:?}");
        assert!(second.detail.ends_with("about machine \"b\"."), "{second:?}");
    }

    #[test]
    fn of_many_there_is_a_list() {
        let name: MachineName = "a".parse().unwrap();
        let texts: Vec<String> = (0..60).map(|n| format!("text {n}")).collect();
        let said: Vec<Diagnostic> = warnings([(&name, &node(&texts))]).into_iter().collect();
        assert_eq!(said.len(), 11);
        assert_eq!(said[10].summary, "There are 50 more evaluation warnings");
        assert!(said[10].detail.starts_with("- text 10 (machine \"a\")\n"), "{:?}", said[10]);
        assert!(said[10].detail.ends_with("- text 49 (machine \"a\")\nand 10 more"), "{:?}", said[10]);
    }
}
