//! The processes of one question.

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::groups::{BASE, Limits, Slots};
use super::question::Question;
use super::reads::{ReadSet, Reads};
use super::{Caught, Description, EvaluateError, Node, NodeDescription, System, Texts};
use crate::MachineName;
use crate::nix::{Call, Nix, NixError};

const PROGRAM: &str = "nix-instantiate --eval";

/// With how many bytes Nix' collector begins: <https://github.com/ivmai/bdwgc/blob/master/docs/README.environment>.
const HEAP: &str = "GC_INITIAL_HEAP_SIZE";
const LARGEST_HEAP: &str = "GC_MAXIMUM_HEAP_SIZE";

/// Everything the processes need.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) nix: &'a Nix,
    pub(super) cancel: &'a CancellationToken,
    pub(super) question: &'a Question,
    pub(super) slots: &'a Slots,
    pub(super) limits: Limits,
}

/// What a group of nodes was found to be.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) names: Option<Vec<MachineName>>,
    pub(super) nodes: Vec<Looked>,
    /// What the process took for each of its nodes, in MiB, besides what it takes anyway.
    pub(super) mib_per_node: Option<u64>,
}

/// A node and what was read to know it.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) name: MachineName,
    pub(super) node: Node,
    /// `None`: not everything is known that was read.
    pub(super) reads: Option<Vec<ReadSet>>,
    /// How many nodes had been evaluated in the same process then, itself included.
    pub(super) together: usize,
}

/// What one process printed.
struct Printed {
    stdout: String,
    reads: Option<Reads>,
    peak_mib: Option<u64>,
}

impl Run<'_> {
    /// The names of all nodes; `None` when they wait for a value that is not known yet.
    pub(super) async fn names(&self) -> Result<Option<Vec<MachineName>>, EvaluateError> {
        match self.instantiate(&["-A", "outline", "--show-trace"], Some(&[])).await {
            Ok(printed) => {
                let names = serde_json::from_str(&printed.stdout).map_err(|error| unexpected(&error))?;
                Ok(Some(names))
            }
            Err(NixError::Failed { message, .. }) => match explained(message) {
                Node::Broken { trace } => Err(EvaluateError::Network { trace }),
                _ => Ok(None),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Evaluates some nodes in one process; those that fail get one of their own.
    pub(super) async fn group(&self, group: &[MachineName]) -> Result<Answer, EvaluateError> {
        let together = group.len();
        let start = std::time::Instant::now();
        let (names, found, printed) = match self.values(&["names", "nodes"], Some(group)).await {
            Ok((values, printed)) => {
                let [names, nodes] = sized(values)?;
                let mut nodes: std::collections::BTreeMap<MachineName, Caught<System>> = parse(nodes)?;
                let found = group
                    .iter()
                    .map(|name| (name, nodes.remove(name).and_then(|caught| caught.ok)))
                    .collect::<Vec<_>>();
                let names = match parse::<Caught<_>>(names)?.ok {
                    Some(names) => Some(names),
                    // Why not? What is wrong with all is said once.
                    None => self.names().await?,
                };
                (names, found, Some(printed))
            }
            // Something that cannot be caught, in one of the nodes or before all of them.
            Err(EvaluateError::Network { .. }) => {
                let names = self.names().await?;
                if let Some(known) = &names
                    && let Some(name) = group.iter().find(|name| !known.contains(name))
                {
                    return Err(EvaluateError::NoSuchNode { name: name.clone(), known: known.clone() });
                }
                (names, group.iter().map(|name| (name, None)).collect(), None)
            }
            Err(error) => return Err(error),
        };
        let nodes: Vec<_> = found
            .into_iter()
            .map(|(name, system)| {
                let printed = &printed;
                async move {
                    match (system, printed) {
                        (Some(system), Some(printed)) => {
                            let reads = printed.reads.as_ref().and_then(|reads| reads.until(name.as_str()));
                            // A piece for each node.
                            let together =
                                reads.as_ref().map_or(together, |pieces| pieces.len().min(together));
                            let node = Node::Exact(Box::new(system));
                            Ok(Looked { name: name.clone(), node, reads, together })
                        }
                        _ => self.alone(name).await,
                    }
                }
                .boxed()
            })
            .collect();
        let nodes: Vec<Looked> =
            futures::stream::iter(nodes).buffer_unordered(usize::MAX).try_collect().await?;
        let seconds = start.elapsed().as_secs_f64();
        for looked in &nodes {
            tracing::info!(machine = %looked.name, seconds, together, "evaluated");
        }
        let peak = printed.as_ref().and_then(|printed| printed.peak_mib);
        let mib_per_node =
            peak.map(|peak| peak.saturating_sub(BASE) / u64::try_from(together).unwrap_or(1).max(1));
        Ok(Answer { names, nodes, mib_per_node })
    }

    /// Evaluates one node where its error is not caught.
    async fn alone(&self, name: &MachineName) -> Result<Looked, EvaluateError> {
        let looked = |node, reads| Looked { name: name.clone(), node, reads, together: 1 };
        match self.instantiate(&["-A", "node", "--show-trace"], Some(std::slice::from_ref(name))).await {
            Ok(printed) => {
                let system = serde_json::from_str(&printed.stdout).map_err(|error| unexpected(&error))?;
                Ok(looked(Node::Exact(system), printed.reads.and_then(|reads| reads.all())))
            }
            Err(NixError::Failed { message, .. }) => Ok(looked(explained(message), None)),
            Err(error) => Err(error.into()),
        }
    }

    /// What the specification says besides its systems.
    pub(super) async fn description(&self) -> Result<(Description, Option<Vec<ReadSet>>), EvaluateError> {
        #[derive(serde::Deserialize)]
        struct Network {
            description: Caught<Option<String>>,
            resources: Json,
            nodes: std::collections::BTreeMap<MachineName, NodeDescription>,
        }
        let (values, printed) = self.values(&["network"], None).await?;
        let [network] = sized(values)?;
        let network: Network = parse(network)?;
        let description = Description {
            description: network.description.ok.flatten(),
            resources: network.resources,
            nodes: network.nodes,
        };
        Ok((description, printed.reads.and_then(|reads| reads.all())))
    }

    /// The contents of keys that the specification has itself.
    pub(super) async fn texts(&self, nodes: &[MachineName]) -> Result<Texts, EvaluateError> {
        match self.instantiate(&["-A", "texts", "--show-trace"], Some(nodes)).await {
            Ok(printed) => {
                let stdout = Zeroizing::new(printed.stdout);
                // serde's messages quote what they do not like.
                let parsed = serde_json::from_str(&stdout).map_err(|error| {
                    unexpected(&format!("no texts at line {}, column {}", error.line(), error.column()))
                });
                Ok(parsed?)
            }
            Err(NixError::Failed { message, .. }) => Err(EvaluateError::Network { trace: message }),
            Err(error) => Err(error.into()),
        }
    }

    /// Several attributes of `eval.nix`, from one process.
    async fn values(
        &self,
        attributes: &[&str],
        nodes: Option<&[MachineName]>,
    ) -> Result<(Vec<Json>, Printed), EvaluateError> {
        let selected: Vec<&str> = attributes.iter().flat_map(|name| ["-A", name]).collect();
        let printed = self.instantiate(&selected, nodes).await.map_err(|error| match error {
            NixError::Failed { message, .. } => EvaluateError::Network { trace: message },
            error => error.into(),
        })?;
        // Some versions of Nix put line breaks between results, some nothing at all.
        let values: Result<Vec<Json>, _> =
            serde_json::Deserializer::from_str(&printed.stdout).into_iter().collect();
        Ok((values.map_err(|error| unexpected(&error))?, printed))
    }

    async fn instantiate(&self, what: &[&str], nodes: Option<&[MachineName]>) -> Result<Printed, NixError> {
        let setting = |on: bool| if on { "true" } else { "false" };
        let (pure, builds) = (setting(self.question.pure), setting(self.question.builds));
        let fixed =
            ["--eval", "--strict", "--json", "--read-write-mode", "--option", "pure-eval", pure, "--option"];
        let fixed = [&fixed[..], &["allow-import-from-derivation", builds, "-"]].concat();
        let arguments = [&fixed[..], what].concat();
        let input = self.question.expression(nodes);
        let slot = self.slots.take().await;
        let watch = self.question.tracer.as_ref().map(|tracer| tracer.watch(slot.number())).transpose();
        let watch = watch.map_err(|source| NixError::Run { program: PROGRAM.to_owned(), source })?;
        let heap = (self.limits.heap(nodes.map_or(1, <[_]>::len)) << 20).to_string();
        let environment = [(HEAP, heap.as_str())];
        // Who has set one of them knows better.
        let is_set = [HEAP, LARGEST_HEAP].iter().any(|name| std::env::var_os(name).is_some());
        let environment = if is_set { &[][..] } else { &environment };
        let call = Call {
            program: "nix-instantiate",
            arguments: &arguments,
            environment,
            hidden: &self.question.hidden,
            input: &input,
            through: watch.as_ref().map_or(&[], |watch| watch.command()),
            is_measured: true,
        };
        let finished = self.nix.call(call, self.cancel, &|_| {}).await?;
        let reads = watch.and_then(super::trace::Watch::finish);
        Ok(Printed { stdout: finished.stdout, reads, peak_mib: finished.peak_mib })
    }
}

/// What an error of a single node means.
fn explained(message: String) -> Node {
    if let Some([on]) = marker(&message, "nixos-unknown:") {
        Node::Waits { on: on.to_owned() }
    } else if let Some([of, fact]) = marker(&message, "nixos-missing:") {
        Node::NoMachine { of: of.to_owned(), fact: fact.to_owned() }
    } else {
        Node::Broken { trace: message }
    }
}

fn sized<const N: usize>(values: Vec<Json>) -> Result<[Json; N], NixError> {
    values
        .try_into()
        .map_err(|values: Vec<Json>| unexpected(&format!("{} results for {N} attributes", values.len())))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_found_in_traces() {
        let trace = "error:\n  … while evaluating\n error: nixos-unknown:arguments.domain: the value is not known yet";
        assert_eq!(explained(trace.to_owned()), Node::Waits { on: "arguments.domain".to_owned() });
        let trace = "error: nixos-missing:cache:private_ipv4: node cache is …";
        let expected = Node::NoMachine { of: "cache".to_owned(), fact: "private_ipv4".to_owned() };
        assert_eq!(explained(trace.to_owned()), expected);
        assert!(matches!(explained("error: no marker".to_owned()), Node::Broken { .. }));
    }
}
