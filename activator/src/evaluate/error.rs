//! Why there is no evaluation.

use std::collections::BTreeMap;

use crate::MachineName;
use crate::network::SpecError;
use crate::nix::NixError;

/// Why there is no evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Nix itself.
    #[error(transparent)]
    Nix(#[from] NixError),
    /// The specification is not there.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A machine that the specification does not describe.
    #[error("the specification has no node `{name}`; it has {}", list(.known))]
    NoSuchNode {
        /// The machine asked for.
        name: MachineName,
        /// The nodes there are.
        known: Vec<MachineName>,
    },
    /// The specification fails before any node.
    #[error("evaluation failed:\n{trace}")]
    Network {
        /// Nix' error with its trace.
        trace: String,
    },
    /// Nodes that cannot even be asked about themselves.
    #[error("{}", each(.broken))]
    Nodes {
        /// Nix' error of each, with its trace.
        broken: BTreeMap<MachineName, String>,
    },
    /// Our Nix code could not be put into the store.
    #[error("cannot write the evaluator: {0}")]
    Input(#[from] std::io::Error),
}

fn each(broken: &BTreeMap<MachineName, String>) -> String {
    let one = |(name, trace): (&MachineName, &String)| format!("node `{name}` does not evaluate:\n{trace}");
    broken.iter().map(one).collect::<Vec<_>>().join("\n\n")
}

fn list(names: &[MachineName]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
