//! What Nix' errors mean: which node one was in, and whether it is one at all.

use super::model::Node;
use crate::MachineName;
use crate::nix::parts_of;

/// In which of the nodes an error was that has ended a process, by the name that `eval.nix` puts into Nix' trace, and
/// the trace from there.
pub(super) fn ended_by(message: &str, nodes: &[MachineName]) -> Option<(usize, String)> {
    let (message, printed) = parts_of(message);
    let named = |line: &str| {
        let name = line.strip_prefix("… nixos-node:")?.strip_suffix(':')?;
        nodes.iter().position(|node| node.as_str() == name)
    };
    let mut end = 0;
    // A specification may evaluate itself: ours is the outermost.
    let (mut first, mut last, mut cause) = (None, None, 0);
    for line in message.split_inclusive('\n') {
        let start = end;
        end += line.len();
        let line = line.trim();
        if line == "error:" || line.starts_with("error: ") {
            cause = start;
        } else if let Some(at) = named(line) {
            last = Some((at, start));
            first = first.or(Some((at, end)));
        }
    }
    // Before Nix 2.13 the error comes first, and the way there from its end.
    match first? {
        (at, end) if end <= cause => Some((at, format!("error:\n{}{printed}", message.get(end..)?))),
        _ => {
            last.and_then(|(at, start)| Some((at, format!("{}{printed}", message.get(..start)?.trim_end()))))
        }
    }
}

/// What an error of a single node means.
pub(super) fn explained(message: String) -> Node {
    let (error, _) = parts_of(&message);
    if let Some([on]) = marker(error, "nixos-unknown:") {
        Node::Waits { on: on.to_owned() }
    } else if let Some([of, fact]) = marker(error, "nixos-missing:") {
        Node::NoMachine { of: of.to_owned(), fact: fact.to_owned() }
    } else {
        Node::Broken { trace: message }
    }
}

/// Whether an error says that a fact about a machine is missing, which has advice for who deploys it.
pub(super) fn is_of_a_fact(trace: &str) -> bool {
    parts_of(trace).0.contains(": set it in its nixos_machine")
}

/// Finds `<prefix>a:b:` in an error message and returns its parts.
fn marker<'a, const N: usize>(message: &'a str, prefix: &str) -> Option<[&'a str; N]> {
    // The error itself comes last; traces before it quote the source that throws it.
    let start = message.rfind(prefix)? + prefix.len();
    let parts: Vec<&str> = message.get(start..)?.splitn(N + 1, ':').collect();
    // The last piece is what follows the closing colon.
    (parts.len() > N).then(|| parts.into_iter().take(N).collect::<Vec<_>>().try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_says_in_which_node_it_ended() {
        let nodes: Vec<MachineName> = ["a", "b"].map(|name| name.parse().unwrap()).to_vec();
        let ours = |name: &str| format!("       … nixos-node:{name}:\n\n");
        let (inner, outer) =
            ("       … while inside\n         at a.nix:1:2:\n\n", "       … while outside\n\n");
        let new = format!("error:\n{outer}{}{inner}{}       error: on purpose\n", ours("b"), ours("a"));
        let trace = format!("error:\n\n{inner}{}       error: on purpose\n", ours("a"));
        assert_eq!(ended_by(&new, &nodes), Some((1, trace)));
        let old = format!("error: on purpose\n\n{inner}{}{inner}{}{outer}", ours("a"), ours("b"));
        let trace = format!("error: on purpose\n\n{inner}{}{inner}", ours("a"));
        assert_eq!(ended_by(&old, &nodes), Some((1, trace.trim_end().to_owned())));
        assert_eq!(ended_by(&format!("error: on purpose\n{outer}"), &nodes), None);
        assert_eq!(
            ended_by(&new, nodes.get(..1).unwrap()).map(|(at, _)| at),
            Some(0),
            "not one of the group's"
        );
        assert_eq!(ended_by("", &nodes), None);
        let (_, trace) = ended_by(&format!("{old}\n\nPrinted before that:\ntrace: x"), &nodes).unwrap();
        assert!(trace.ends_with("\n\nPrinted before that:\ntrace: x"), "{trace}");
    }

    #[test]
    fn markers_are_found_in_traces() {
        let trace = "error:\n  … while evaluating\n error: nixos-unknown:arguments.domain: the value is \
                     not known yet";
        assert_eq!(explained(trace.to_owned()), Node::Waits { on: "arguments.domain".to_owned() });
        let trace = "error: nixos-missing:cache:private_ipv4: node cache is …";
        let expected = Node::NoMachine { of: "cache".to_owned(), fact: "private_ipv4".to_owned() };
        assert_eq!(explained(trace.to_owned()), expected);
        assert!(matches!(explained("error: no marker".to_owned()), Node::Broken { .. }));
    }
}
