//! What a specification says about itself without being evaluated to systems: `deployment.*`, options, resources.
//!
//! A value that cannot be evaluated is reported as null, with its path. Where a fact about a machine is missing that
//! is as it should be: the machine may not exist yet. Anything else is a mistake. Nix cannot tell them apart when it
//! catches one; its log can (`notes.rs`), in another process where this one has forgotten. Where that does not
//! either, the value is evaluated alone, where nothing catches its error.

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::costs::Asked;
use super::error::EvaluateError;
use super::model::{Caught, Node, NodeDescription};
use super::nix_errors::{ended_by, explained, is_of_a_fact};
use super::notes::{Path, for_want_of_facts};
use super::reads::Until;
use super::run::{Answer, Asking, Looked, Named, Printed, Run, View, completed, parse, sized};
use crate::MachineName;
use crate::nix::{NixError, parts_of};

/// What a node says about itself, or Nix' error where even that cannot be evaluated.
pub(super) type Described = Result<NodeDescription, String>;

impl View for Described {
    const ASKED: Asked = Asked::Descriptions;

    fn of<'a>(
        group: &'a [MachineName],
        run: &'a Run<'_>,
    ) -> BoxFuture<'a, Result<Answer<Self>, EvaluateError>> {
        run.descriptions(group).boxed()
    }

    fn is_remembered(&self) -> bool {
        self.is_ok()
    }
}

/// What a node says about itself as `eval.nix` reports it.
#[derive(Deserialize)]
struct Said {
    #[serde(flatten)]
    description: NodeDescription,
    /// What could not be evaluated.
    unsaid: Vec<Path>,
}

/// What a specification says that is about no node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Network {
    pub(super) names: Vec<MachineName>,
    pub(super) description: Caught<Option<String>>,
    pub(super) resources: Json,
    /// What could not be evaluated.
    #[serde(default)]
    unsaid: Vec<Path>,
}

impl Run<'_> {
    /// What the specification says that is about no node, and what was read to know it.
    pub(super) async fn network(&self) -> Result<(Network, Option<Until>), EvaluateError> {
        let (values, printed) = self.values(Asked::Descriptions, &["network"], &[]).await?;
        let [network] = sized(values)?;
        let mut network: Network = parse(network)?;
        let unsaid = self.unexplained(std::mem::take(&mut network.unsaid), &printed).await?;
        if let Some(trace) = self.mistake(&unsaid).await? {
            return Err(EvaluateError::Network { trace });
        }
        Ok((network, printed.reads.and_then(|reads| reads.all())))
    }

    async fn descriptions(&self, group: &[MachineName]) -> Result<Answer<Described>, EvaluateError> {
        let Asking { values, broken } = self.ask(Asked::Descriptions, &["descriptions"], group).await?;
        let mut answer = if let Some((values, printed, together)) = values {
            let [nodes] = sized(values)?;
            let mut nodes: Vec<_> = parse::<Vec<Named<Said>>>(nodes)?;
            let unsaid = nodes.iter_mut().flat_map(|node| std::mem::take(&mut node.value.unsaid)).collect();
            let unsaid = self.unexplained(unsaid, &printed).await?;
            for path in unsaid {
                let is_its =
                    |node: &&mut Named<Said>| path.first().is_some_and(|first| first == node.name.as_str());
                if let Some(node) = nodes.iter_mut().find(is_its) {
                    node.value.unsaid.push(path);
                }
            }
            let nodes: Vec<_> = nodes.into_iter().map(|node| self.described(node)).collect();
            // All of them at once: the slots decide how many really run.
            let nodes: Vec<_> =
                futures::stream::iter(nodes).buffer_unordered(usize::MAX).try_collect().await?;
            printed.answer(None, nodes.into_iter(), together)
        } else {
            Answer { names: None, nodes: vec![], process: None }
        };
        answer.nodes.extend(broken.into_iter().map(|(name, trace)| Looked {
            name,
            node: Err(trace),
            reads: None,
        }));
        completed(answer, group, |name| self.description(name).boxed()).await
    }

    /// Asks one node about itself where others do not share its error.
    async fn description(&self, name: &MachineName) -> Result<Looked<Described>, EvaluateError> {
        let looked = |node, reads| Looked { name: name.clone(), node, reads };
        match self.values(Asked::Descriptions, &["descriptions"], std::slice::from_ref(name)).await {
            Ok((values, printed)) => {
                let [nodes] = sized(values)?;
                let [mut node] = sized(parse::<Vec<Named<Said>>>(nodes)?)?;
                node.value.unsaid = self.unexplained(node.value.unsaid, &printed).await?;
                let (_, node) = self.described(node).await?;
                Ok(looked(node, printed.reads.and_then(|reads| reads.all())))
            }
            Err(EvaluateError::Network { trace }) => {
                let its_own = ended_by(&trace, std::slice::from_ref(name)).map(|(_, trace)| trace);
                Ok(looked(Err(its_own.unwrap_or(trace)), None))
            }
            Err(error) => Err(error),
        }
    }

    /// What a node says, if nothing in it is a mistake.
    async fn described(
        &self,
        Named { name, value }: Named<Said>,
    ) -> Result<(MachineName, Described), EvaluateError> {
        let mistake = self.mistake(&value.unsaid).await?;
        Ok((name, mistake.map_or(Ok(value.description), Err)))
    }

    /// Those paths of which the log does not say that a fact is missing.
    async fn unexplained(
        &self,
        mut unsaid: Vec<Path>,
        printed: &Printed,
    ) -> Result<Vec<Path>, EvaluateError> {
        let known = for_want_of_facts(&printed.notes);
        unsaid.retain(|path| !known.contains(path));
        if unsaid.len() < 2 {
            return Ok(unsaid);
        }
        match self.instantiate_at(Asked::Descriptions, &["-A", "probes"], &[], &unsaid).await {
            Ok(again) => {
                let known = for_want_of_facts(&again.notes);
                unsaid.retain(|path| !known.contains(path));
            }
            // A mistake that cannot be caught: which one, each of them alone will say.
            Err(NixError::Failed { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(unsaid)
    }

    /// The first mistake among values that could not be evaluated.
    async fn mistake(&self, unsaid: &[Path]) -> Result<Option<String>, EvaluateError> {
        for path in unsaid {
            if let Some(trace) = self.reason(path).await? {
                return Ok(Some(trace));
            }
        }
        Ok(None)
    }

    /// Why a value cannot be evaluated, by an error that nothing catches; `None` where that is no mistake.
    async fn reason(&self, path: &Path) -> Result<Option<String>, EvaluateError> {
        let paths = std::slice::from_ref(path);
        match self.instantiate_at(Asked::Descriptions, &["-A", "reason", "--show-trace"], &[], paths).await {
            Err(NixError::Failed { message, .. }) => Ok(match explained(message) {
                Node::Broken { trace } if !is_of_a_fact(&trace) && !is_unset(&trace, path) => Some(trace),
                _ => None,
            }),
            Err(error) => Err(error.into()),
            // Nothing is wrong with it now: it may have been a file that has come since.
            Ok(_) => Ok(None),
        }
    }
}

/// Whether an error is that the option at this very path has no value. Of options in the middle of others
/// (`fileSystems."/".device`) only Nix' message tells.
fn is_unset(trace: &str, path: &Path) -> bool {
    let says = ["is used but not defined", "was accessed but has no value defined"];
    let option = match path.as_slice() {
        [_, kind, rest @ ..] if kind == "options" => rest.join("."),
        [_, rest @ ..] => rest.join("."),
        [] => return false,
    };
    let option = option.replace('"', "");
    parts_of(trace).0.lines().any(|line| {
        let names = |part: &str| {
            part.replace(['"', '`', '\'', '\u{2018}', '\u{2019}'], "")
                .trim_end()
                .ends_with(&format!("option {option}"))
        };
        says.iter().any(|says| line.split_once(says).is_some_and(|(before, _)| names(before)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_without_a_value_is_told_from_one_that_asks_for_it() {
        let path = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Path>();
        let old = "error: The option `deployment.owner' is used but not defined.";
        let new = "error: The option `fileSystems.\"/data\".device' was accessed but has no value defined. \
                   Try setting it.";
        assert!(is_unset(old, &path(&["a", "deployment", "owner"])));
        assert!(!is_unset(old, &path(&["a", "deployment", "targetHost"])));
        assert!(is_unset(new, &path(&["a", "options", "fileSystems", "/data", "device"])));
        assert!(!is_unset("error: on purpose", &path(&["a", "deployment", "owner"])));
        assert!(!is_unset(old, &vec![]));
    }
}
