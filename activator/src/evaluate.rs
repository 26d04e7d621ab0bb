//! Evaluation: a [`Request`] goes in, a derivation per machine comes out, or what that machine still waits for.
//!
//! All nodes are evaluated in one pass. Values that are not known yet are lazy `throw`s in Nix: a node that does not look
//! at one evaluates exactly, a node that does fails *catchably*. Only such nodes get a second, solitary look, whose error
//! says which value it was, or, where none was involved, is the error to show.

use std::collections::BTreeMap;
use std::io::Write as _;

use serde::Deserialize;
use serde_json::Value as Json;
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::inventory::Inventory;
use crate::network::{Request, SpecError};
use crate::nix::{Nix, NixError};
use crate::{MachineName, StorePath};

/// Runs evaluations, not more at once than memory allows.
#[derive(Debug)]
pub struct Evaluator {
    tree: OnceCell<StorePath>,
    slots: Semaphore,
}

/// The result for every wanted node.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// All nodes of the specification; `None` when even their names wait for something.
    pub names: Option<Vec<MachineName>>,
    /// One entry per wanted node.
    pub nodes: BTreeMap<MachineName, Node>,
}

/// What is known about a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Its system, exactly.
    Exact(Box<System>),
    /// Its system depends on a value that is not known yet.
    Waits {
        /// Which, e.g. `arguments.domain`.
        on: String,
    },
}

/// A NixOS system as evaluation sees it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct System {
    /// The derivation to build.
    pub drv: StorePath,
    /// The path it builds.
    pub toplevel: StorePath,
    /// Platform, e.g. `x86_64-linux`.
    pub system: Option<String>,
    /// E.g. `24.11.20250101.abcdef`.
    #[serde(rename = "nixosVersion")]
    pub nixos_version: Option<String>,
    /// What is in it.
    #[serde(flatten)]
    pub inventory: Inventory,
}

/// What a specification says about a node without evaluating its system.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Description {
    /// Values of `deployment.*`.
    pub deployment: serde_json::Map<String, serde_json::Value>,
    /// The option values asked for.
    #[serde(default)]
    pub options: BTreeMap<String, serde_json::Value>,
}

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
    /// A node needs a fact about a machine nobody told us about.
    #[error("node `{node}` needs `{fact}` of `{of}`, which has no machine")]
    NoMachine {
        /// The node being evaluated.
        node: MachineName,
        /// The node it looks at.
        of: String,
        /// What it wants to know.
        fact: String,
    },
    /// The specification's own error.
    #[error("evaluation of node `{node}` failed:\n{trace}")]
    Node {
        /// The node.
        node: MachineName,
        /// Nix' error with its trace.
        trace: String,
    },
    /// The specification fails before any node.
    #[error("evaluation failed:\n{trace}")]
    Network {
        /// Nix' error with its trace.
        trace: String,
    },
    /// The input file could not be written.
    #[error("cannot write the evaluator's input: {0}")]
    Input(#[from] std::io::Error),
}

/// The Nix code that evaluates, as it is built into this program.
const TREE: &[(&str, &str)] = &[
    ("eval.nix", include_str!("../../nix/eval.nix")),
    ("lib/flake.nix", include_str!("../../nix/lib/flake.nix")),
    ("lib/input.nix", include_str!("../../nix/lib/input.nix")),
    ("lib/network.nix", include_str!("../../nix/lib/network.nix")),
    ("lib/system.nix", include_str!("../../nix/lib/system.nix")),
    ("modules/default.nix", include_str!("../../nix/modules/default.nix")),
    ("modules/deployment.nix", include_str!("../../nix/modules/deployment.nix")),
    ("modules/facts.nix", include_str!("../../nix/modules/facts.nix")),
];

/// What `eval.nix` reports per node.
#[derive(Deserialize)]
struct Caught<T> {
    ok: Option<T>,
}

impl Evaluator {
    /// At most `limit` evaluations at once.
    pub fn new(limit: usize) -> Self {
        Self { tree: OnceCell::new(), slots: Semaphore::new(limit.max(1)) }
    }

    /// Evaluates the wanted nodes; the derivations are in the local store afterwards.
    pub async fn evaluate(
        &self,
        nix: &Nix,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<Evaluation, EvaluateError> {
        let run = self.start(nix, request, cancel).await?;
        let [names, nodes] = run.values(&["names", "nodes"]).await?;
        let names: Caught<Vec<MachineName>> = parse(names)?;
        let nodes: BTreeMap<MachineName, Caught<System>> = parse(nodes)?;

        if let (Some(wanted), Some(known)) = (&request.nodes, &names.ok)
            && let Some(name) = wanted.iter().find(|name| !known.contains(name))
        {
            return Err(EvaluateError::NoSuchNode { name: name.clone(), known: known.clone() });
        }
        let mut evaluation = Evaluation { names: names.ok, nodes: BTreeMap::new() };
        for (name, node) in nodes {
            let node = match node.ok {
                Some(system) => Node::Exact(Box::new(system)),
                None => run.second_look(&name).await?,
            };
            evaluation.nodes.insert(name, node);
        }
        Ok(evaluation)
    }

    /// The same for all nodes of a specification, whether or not they have a machine: a node that needs facts of one that
    /// was not given waits for them.
    pub async fn survey(
        &self,
        nix: &Nix,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<BTreeMap<MachineName, Node>, EvaluateError> {
        let run = self.start(nix, request, cancel).await?;
        let [nodes] = run.values(&["nodes"]).await?;
        let nodes: BTreeMap<MachineName, Caught<System>> = parse(nodes)?;
        let mut surveyed = BTreeMap::new();
        for (name, node) in nodes {
            let node = match node.ok {
                Some(system) => Node::Exact(Box::new(system)),
                None => match run.second_look(&name).await {
                    Err(EvaluateError::NoMachine { of, fact, .. }) => {
                        Node::Waits { on: format!("machines.{of}.{fact}") }
                    }
                    node => node?,
                },
            };
            surveyed.insert(name, node);
        }
        Ok(surveyed)
    }

    /// Asks what the specification says about its nodes, without evaluating their systems.
    pub async fn describe(
        &self,
        nix: &Nix,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<BTreeMap<MachineName, Description>, EvaluateError> {
        let run = self.start(nix, request, cancel).await?;
        let [network] = run.values(&["network"]).await?;
        Ok(parse(network)?)
    }

    async fn start<'a>(
        &'a self,
        nix: &'a Nix,
        request: &Request,
        cancel: &'a CancellationToken,
    ) -> Result<Run<'a>, EvaluateError> {
        let request = Request { spec: request.spec.resolve()?, ..request.clone() };
        let tree = self.tree.get_or_try_init(|| add_tree(nix, cancel)).await?;
        let mut input = tempfile::Builder::new().prefix("nixos-eval-").suffix(".json").tempfile()?;
        input.write_all(request.to_input().to_string().as_bytes())?;
        input.flush()?;
        let slot = self.slots.acquire().await.map_err(|_| NixError::Cancelled)?;
        Ok(Run { nix, cancel, expression: format!("{tree}/eval.nix"), input, _slot: slot })
    }
}

/// Puts our Nix code into the store: its path is then the same wherever the same version runs, and so are derivations that
/// mention it (NixOS' option manual does).
async fn add_tree(nix: &Nix, cancel: &CancellationToken) -> Result<StorePath, EvaluateError> {
    let directory = tempfile::tempdir()?;
    let root = directory.path().join("nixos-eval");
    for (name, text) in TREE {
        let path = root.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(path, text)?;
    }
    let root = root.display().to_string();
    let finished = nix.run("nix-store", &["--add", &root], &[], cancel, &|_| {}).await?;
    finished.stdout.trim().parse().map_err(|error: crate::NameError| {
        NixError::Output { program: "nix-store --add".to_owned(), reason: error.to_string() }.into()
    })
}

/// One evaluation: the files and the permission to run.
struct Run<'a> {
    nix: &'a Nix,
    cancel: &'a CancellationToken,
    expression: String,
    input: tempfile::NamedTempFile,
    _slot: tokio::sync::SemaphorePermit<'a>,
}

const PROGRAM: &str = "nix-instantiate --eval";

impl Run<'_> {
    /// Several attributes of `eval.nix`, from one process.
    async fn values<const N: usize>(&self, attributes: &[&str; N]) -> Result<[Json; N], EvaluateError> {
        let selected: Vec<&str> = attributes.iter().flat_map(|name| ["-A", name]).collect();
        let stdout = self.instantiate(&selected).await.map_err(|error| match error {
            NixError::Failed { message, .. } => EvaluateError::Network { trace: message },
            error => error.into(),
        })?;
        // Some versions of Nix put line breaks between results, some nothing at all.
        let values: Result<Vec<Json>, _> = serde_json::Deserializer::from_str(&stdout).into_iter().collect();
        let values = values.map_err(|error| unexpected(&error))?;
        values.try_into().map_err(|values: Vec<Json>| {
            unexpected(&format!("{} results for {N} attributes", values.len())).into()
        })
    }

    /// Evaluates one node alone, where its error is not caught.
    async fn second_look(&self, name: &MachineName) -> Result<Node, EvaluateError> {
        let node = name.clone();
        match self.instantiate(&["-A", "node", "--argstr", "node", name.as_str(), "--show-trace"]).await {
            Ok(stdout) => {
                let system = serde_json::from_str(&stdout).map_err(|error| unexpected(&error))?;
                Ok(Node::Exact(system))
            }
            Err(NixError::Failed { message, .. }) => {
                if let Some([on]) = marker(&message, "nixos-unknown:") {
                    Ok(Node::Waits { on: on.to_owned() })
                } else if let Some([of, fact]) = marker(&message, "nixos-missing:") {
                    Err(EvaluateError::NoMachine { node, of: of.to_owned(), fact: fact.to_owned() })
                } else {
                    Err(EvaluateError::Node { node, trace: message })
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn instantiate(&self, what: &[&str]) -> Result<String, NixError> {
        let input = self.input.path().display().to_string();
        let fixed = [
            "--eval",
            "--strict",
            "--json",
            "--read-write-mode",
            &self.expression,
            "--argstr",
            "input",
            &input,
        ];
        let arguments = [&fixed[..], what].concat();
        Ok(self.nix.run("nix-instantiate", &arguments, &[], self.cancel, &|_| {}).await?.stdout)
    }
}

fn parse<T: serde::de::DeserializeOwned>(json: Json) -> Result<T, NixError> {
    serde_json::from_value(json).map_err(|error| unexpected(&error))
}

fn unexpected(reason: &dyn std::fmt::Display) -> NixError {
    NixError::Output { program: PROGRAM.to_owned(), reason: reason.to_string() }
}

/// Finds `<prefix>a:b:` in an error message and returns its parts.
fn marker<'a, const N: usize>(message: &'a str, prefix: &str) -> Option<[&'a str; N]> {
    // The error itself comes last; traces before it quote the source that throws it.
    let start = message.rfind(prefix)? + prefix.len();
    let parts: Vec<&str> = message.get(start..)?.splitn(N + 1, ':').collect();
    // The last piece is what follows the closing colon.
    (parts.len() > N).then(|| parts.into_iter().take(N).collect::<Vec<_>>().try_into().ok()).flatten()
}

fn list(names: &[MachineName]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_in_traces() {
        let trace = "error:\n  … while evaluating\n error: nixos-unknown:arguments.domain: the value is not known yet";
        assert_eq!(marker(trace, "nixos-unknown:"), Some(["arguments.domain"]));
        let trace = "error: nixos-missing:cache:private_ipv4: node cache is …";
        assert_eq!(marker(trace, "nixos-missing:"), Some(["cache", "private_ipv4"]));
        assert_eq!(marker::<1>("error: no marker", "nixos-unknown:"), None);
    }

    #[test]
    fn every_file_of_the_nix_tree_is_built_in() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../nix");
        let mut pending = vec![root.clone()];
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
                let path = entry.path();
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                if path.is_dir() && name != "tests" {
                    pending.push(path);
                } else if path.extension().is_some_and(|extension| extension == "nix")
                    && !name.starts_with("tests")
                {
                    assert!(TREE.iter().any(|(known, _)| *known == name), "nix/{name} is missing in TREE");
                }
            }
        }
    }
}
