//! What is wrong with nodes of a specification: a mistake that breaks many is said once.

use nixos_activator::MachineName;
use nixos_activator::evaluate::Node;
use tfplugin::{Diagnostic, Diagnostics, Path};

use super::trace::Trace;

/// All that is wrong with nodes, in the order of their names.
pub(crate) fn nodes<'a>(nodes: impl IntoIterator<Item = (&'a MachineName, &'a Node)>) -> Diagnostics {
    let machines = Path::root().attribute("machines");
    let (mut found, mut broken) = (vec![], vec![]);
    for (name, node) in nodes {
        let name = name.as_str();
        match node {
            Node::Exact(_) | Node::Waits { .. } => {}
            Node::NoMachine { of, fact } => {
                let summary = format!("Node \"{name}\" needs machine \"{of}\", which is not in `machines`");
                let detail = format!(
                    "The configuration of \"{name}\" uses `{fact}` of \"{of}\". That node is part of the \
                     specification, but no machine was given for it.\n\nAdd it: machines = {{ …, {of} = \
                     nixos_machine.{of}.target }}"
                );
                found.push((name, Diagnostic::error(summary).detail(detail).at(machines.clone().key(name))));
            }
            Node::Broken { trace } => match no_specialisation(trace) {
                Some(detail) => {
                    let path = Path::root().attribute("specialisations").key(name);
                    let summary = format!("Machine \"{name}\" has no such specialisation");
                    found.push((name, Diagnostic::error(summary).detail(detail).at(path)));
                }
                None => broken.push((name, trace.as_str())),
            },
        }
    }
    found.extend(mistakes(broken).iter().map(|mistake| {
        let path =
            if mistake.others.is_empty() { machines.clone().key(mistake.first) } else { machines.clone() };
        (mistake.first, mistake.diagnostic().at(path))
    }));
    found.sort_by_key(|(name, _)| *name);
    found.into_iter().map(|(_, diagnostic)| diagnostic).collect()
}

/// What `eval.nix` says where a machine is to run a specialisation that its configuration does not have.
fn no_specialisation(trace: &str) -> Option<String> {
    let (_, message) = trace.rsplit_once("error: `specialisations` names ")?;
    let line = message.lines().next()?;
    Some(format!("`specialisations` names {line}."))
}

/// A mistake and the nodes that it breaks.
pub(super) struct Mistake<'a> {
    trace: Trace<'a>,
    /// The node that the trace is of.
    first: &'a str,
    others: Vec<&'a str>,
}

/// What breaks nodes, which come with Nix' traces; what breaks several is there once.
pub(super) fn mistakes<'a>(nodes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Mistake<'a>> {
    let mut found: Vec<Mistake<'a>> = vec![];
    for (name, trace) in nodes {
        let trace = Trace::new(trace);
        match found.iter_mut().find(|mistake| mistake.trace.identity() == trace.identity()) {
            Some(mistake) => mistake.others.push(name),
            None => found.push(Mistake { trace, first: name, others: vec![] }),
        }
    }
    found
}

impl Mistake<'_> {
    pub(super) fn diagnostic(&self) -> Diagnostic {
        let first = self.first;
        let summary = match self.others.as_slice() {
            [] => format!("The configuration of machine \"{first}\" does not evaluate"),
            [second] => {
                format!("The configurations of machines \"{first}\" and \"{second}\" do not evaluate")
            }
            [second, more @ ..] => format!(
                "The configurations of machines \"{first}\", \"{second}\" and {} more do not evaluate",
                more.len()
            ),
        };
        let mut detail = self.trace.explained();
        if detail.contains("does not specify your root file system") {
            detail.push_str(
                "\n\nNixOps gave its machines on EC2 a root file system and a boot loader. For a machine \
                 on EC2, set `target_env = \"ec2\"` in its nixos_machine; for another one, import its \
                 `hardware-configuration.nix`.",
            );
        }
        if !self.others.is_empty() {
            let others: Vec<String> = self.others.iter().map(|name| format!("\"{name}\"")).collect();
            detail.push_str(&format!(
                "\n\nThis was said of machine \"{first}\"; it is the same for {}.",
                others.join(", ")
            ));
        }
        Diagnostic::error(summary).detail(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_many_is_said_once() {
        let frame = |what: &str, place: &str| format!("       … while {what}\n         at {place}:\n\n");
        let with_place = |way: &str, cause: &str| {
            format!(
                "error:\n{}       error: {cause}\n       at x.nix:1:2:\n         1| x",
                frame("going", way)
            )
        };
        let without_place = |way: &str, last: &str, cause: &str| {
            format!("error:\n{}{}       error: {cause}", frame("going", way), frame("looking", last))
        };
        let old = |way: &str, last: &str| {
            format!("error: no set\n\n{}{}", frame("looking", last), frame("going", way))
        };
        let recursion = |way: &str| with_place(way, "infinite recursion encountered");
        for (first, second, is_same) in [
            (with_place("a", "one"), with_place("b", "one"), true),
            (with_place("a", "one"), with_place("a", "two"), false),
            (without_place("a", "x", "no set"), without_place("b", "x", "no set"), true),
            (without_place("a", "x", "no set"), without_place("a", "y", "no set"), false),
            (old("a", "x"), old("b", "x"), true),
            (old("a", "x"), old("a", "y"), false),
            (recursion("a"), recursion("b"), false),
            (recursion("a"), recursion("a"), true),
        ] {
            let count = mistakes([("a", first.as_str()), ("b", second.as_str())]).len();
            assert_eq!(count == 1, is_same, "{first}\n{second}");
        }

        let (one, two) = (with_place("a", "one"), with_place("a", "two"));
        let found = mistakes([("a", &*two), ("b", &*one), ("c", &*two), ("d", &*two)]);
        let said: Vec<_> = found.iter().map(|mistake| mistake.diagnostic()).collect();
        let summaries: Vec<&str> = said.iter().map(|diagnostic| diagnostic.summary.as_str()).collect();
        let expected = [
            "The configurations of machines \"a\", \"c\" and 1 more do not evaluate",
            "The configuration of machine \"b\" does not evaluate",
        ];
        assert_eq!(summaries, expected);
        let root =
            "error: Failed assertions:\n- The ‘fileSystems’ option does not specify your root file system.";
        let root = mistakes([("a", root)]);
        assert!(root[0].diagnostic().detail.contains("target_env = \"ec2\""), "{:?}", root[0].diagnostic());
        assert!(said[0].detail.ends_with("of machine \"a\"; it is the same for \"c\", \"d\"."), "{said:?}");
    }
}
