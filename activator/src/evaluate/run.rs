//! The processes of one question.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::costs::{Asked, Costs, Process};
use super::error::EvaluateError;
use super::groups::{Limits, Slots};
use super::model::{Caught, Node, System, Texts};
use super::nix_errors::{ended_by, explained};
use super::notes::{Path, add_all_warnings, add_warnings};
use super::question::{Question, STORE, in_cache};
use super::reads::{Reads, Until};
use crate::nix::{Call, Nix, NixError, Note};
use crate::{MachineName, StorePath};

const PROGRAM: &str = "nix-instantiate --eval";

/// With how many bytes Nix' collector begins: <https://github.com/ivmai/bdwgc/blob/master/docs/README.environment>.
const HEAP: &str = "GC_INITIAL_HEAP_SIZE";
const LARGEST_HEAP: &str = "GC_MAXIMUM_HEAP_SIZE";

/// Everything the processes need.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run<'a> {
    pub(super) nix: &'a Nix,
    pub(super) cancel: &'a CancellationToken,
    pub(super) question: &'a Question,
    pub(super) slots: &'a Slots,
    pub(super) limits: Limits,
    /// What a process is taken to cost.
    pub(super) costs: Costs,
}

/// Something that can be known about a node.
pub(super) trait View: Serialize + DeserializeOwned + Send + Sync {
    /// What is asked to know it.
    const ASKED: Asked;

    /// Asks it about some nodes in one process; those that fail there get one of their own.
    fn of<'a>(
        group: &'a [MachineName],
        run: &'a Run<'_>,
    ) -> BoxFuture<'a, Result<Answer<Self>, EvaluateError>>
    where
        Self: Sized;

    /// Whether it is to be remembered. An error is worth a second look: its cause may not be in any file.
    fn is_remembered(&self) -> bool;

    /// A derivation without which it is worth nothing.
    fn derivation(&self) -> Option<&StorePath> {
        None
    }
}

impl View for Node {
    const ASKED: Asked = Asked::Systems;

    fn of<'a>(
        group: &'a [MachineName],
        run: &'a Run<'_>,
    ) -> BoxFuture<'a, Result<Answer<Self>, EvaluateError>> {
        run.systems(group).boxed()
    }

    fn is_remembered(&self) -> bool {
        matches!(self, Self::Exact(_) | Self::Waits { .. })
    }

    fn derivation(&self) -> Option<&StorePath> {
        match self {
            Self::Exact(system) => Some(&system.drv),
            _ => None,
        }
    }
}

/// What a group of nodes was found to be.
#[derive(Debug)]
pub(super) struct Answer<T> {
    /// All nodes of the specification, where that was asked and is known.
    pub(super) names: Option<Vec<MachineName>>,
    pub(super) nodes: Vec<Looked<T>>,
    /// What that took; `None` where it is not known, or not what it takes when all is well.
    pub(super) process: Option<Process>,
}

/// A node and what was read to know it.
#[derive(Debug)]
pub(super) struct Looked<T> {
    pub(super) name: MachineName,
    pub(super) node: T,
    /// `None`: not everything is known that was read.
    pub(super) reads: Option<Until>,
}

/// One of a list of nodes, as `eval.nix` reports them.
#[derive(Deserialize)]
pub(super) struct Named<T> {
    pub(super) name: MachineName,
    pub(super) value: T,
}

/// What came of asking about a group.
#[derive(Default)]
pub(super) struct Asking {
    /// The values of the process that came to its end, if one did, and of how many nodes they are.
    pub(super) values: Option<(Vec<Json>, Printed, usize)>,
    /// Nodes with an error that nothing catches.
    pub(super) broken: Vec<(MachineName, String)>,
}

/// What one process printed.
pub(super) struct Printed {
    pub(super) stdout: String,
    pub(super) notes: Vec<Note>,
    pub(super) reads: Option<Arc<Reads>>,
    peak_mib: Option<u64>,
}

impl Printed {
    /// What it says about nodes, of which it held so many.
    pub(super) fn answer<T>(
        &self,
        names: Option<Vec<MachineName>>,
        nodes: impl Iterator<Item = (MachineName, T)>,
        together: usize,
    ) -> Answer<T> {
        let looked = |(name, node): (MachineName, T)| {
            let reads = self.reads.as_ref().and_then(|reads| reads.until(name.as_str()));
            Looked { name, node, reads }
        };
        let nodes: Vec<_> = nodes.map(looked).collect();
        let done = self.reads.as_ref().map(|reads| reads.done.clone()).unwrap_or_default();
        // Nodes that wait for something or are broken cost less than they will.
        let is_typical = nodes.len() == together;
        let process = is_typical.then_some(Process { nodes: together, peak_mib: self.peak_mib, done });
        Answer { names, nodes, process }
    }
}

/// Asks alone about those nodes of a group that an answer says nothing about.
pub(super) async fn completed<'a, T: Send>(
    mut answer: Answer<T>,
    group: &'a [MachineName],
    alone: impl Fn(&'a MachineName) -> BoxFuture<'a, Result<Looked<T>, EvaluateError>>,
) -> Result<Answer<T>, EvaluateError> {
    let is_known = |name: &MachineName| answer.nodes.iter().any(|looked| looked.name == *name);
    let rest: Vec<_> = group.iter().filter(|name| !is_known(name)).map(alone).collect();
    // All of them at once: the slots decide how many really run.
    let rest: Vec<_> = futures::stream::iter(rest).buffer_unordered(usize::MAX).try_collect().await?;
    answer.nodes.extend(rest);
    Ok(answer)
}

impl Run<'_> {
    /// The names of all nodes; `None` when they wait for a value that is not known yet.
    pub(super) async fn names(&self) -> Result<Option<Vec<MachineName>>, EvaluateError> {
        match self.instantiate(Asked::Descriptions, &["-A", "outline", "--show-trace"], &[]).await {
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

    async fn systems(&self, group: &[MachineName]) -> Result<Answer<Node>, EvaluateError> {
        let start = std::time::Instant::now();
        let Asking { values, broken } = self.ask(Asked::Systems, &["names", "nodes"], group).await?;
        let mut answer = if let Some((values, printed, together)) = values {
            let [names, nodes] = sized(values)?;
            let names = match parse::<Caught<_>>(names)?.ok {
                Some(names) => Some(names),
                // Why not? What is wrong with all is said once.
                None => self.names().await?,
            };
            let nodes: Vec<Named<Caught<System>>> = parse(nodes)?;
            let exact =
                |Named { name, value }: Named<Caught<_>>| Some((name, Node::Exact(Box::new(value.ok?))));
            let mut nodes: Vec<_> = nodes.into_iter().filter_map(exact).collect();
            add_warnings(&printed.notes, nodes.iter_mut().map(|(name, node)| (&*name, node)));
            printed.answer(names, nodes.into_iter(), together)
        } else {
            let names = self.names().await?;
            if let Some(known) = &names
                && let Some(name) = group.iter().find(|name| !known.contains(name))
            {
                return Err(EvaluateError::NoSuchNode { name: name.clone(), known: known.clone() });
            }
            Answer { names, nodes: vec![], process: None }
        };
        let broken = broken.into_iter().map(|(name, trace)| (name, explained(trace)));
        answer.nodes.extend(broken.map(|(name, node)| Looked { name, node, reads: None }));
        let mut answer = completed(answer, group, |name| self.system(name).boxed()).await?;
        self.forget_what_is_of_this_tree(&mut answer.nodes).await;
        let (seconds, together) = (start.elapsed().as_secs_f64(), group.len());
        for looked in &answer.nodes {
            tracing::info!(machine = %looked.name, seconds, together, "evaluated");
        }
        Ok(answer)
    }

    /// What the name of a flake's tree got into holds for that tree alone, whichever files were read.
    async fn forget_what_is_of_this_tree(&self, nodes: &mut [Looked<Node>]) {
        let Some(by_files) = &self.question.by_files else {
            return;
        };
        for looked in nodes.iter_mut().filter(|looked| looked.reads.is_some()) {
            let Node::Exact(system) = &looked.node else {
                continue;
            };
            // Commands that bring secrets are no part of the system.
            let names_others = serde_json::to_string(&system.keys).is_ok_and(|keys| keys.contains(STORE));
            let (search, drv) = (Arc::clone(&by_files.search), PathBuf::from(system.drv.as_str()));
            let finds = move || search.lock().unwrap_or_else(PoisonError::into_inner).finds(&drv);
            if names_others || tokio::task::spawn_blocking(finds).await.unwrap_or(true) {
                tracing::debug!(machine = %looked.name, "depends on where the flake's tree is");
                looked.reads = None;
            }
        }
    }

    /// Evaluates one node where its error is not caught.
    async fn system(&self, name: &MachineName) -> Result<Looked<Node>, EvaluateError> {
        let looked = |node, reads| Looked { name: name.clone(), node, reads };
        let wanted = std::slice::from_ref(name);
        match self.instantiate(Asked::Systems, &["-A", "node", "--show-trace"], wanted).await {
            Ok(printed) => {
                let mut system: Box<System> =
                    serde_json::from_str(&printed.stdout).map_err(|error| unexpected(&error))?;
                add_all_warnings(&printed.notes, &mut system);
                Ok(looked(Node::Exact(system), printed.reads.and_then(|reads| reads.all())))
            }
            Err(NixError::Failed { message, .. }) => Ok(looked(explained(message), None)),
            Err(error) => Err(error.into()),
        }
    }

    /// The contents of keys that the specification has itself.
    pub(super) async fn texts(&self, nodes: &[MachineName]) -> Result<Texts, EvaluateError> {
        match self.instantiate(Asked::Descriptions, &["-A", "texts", "--show-trace"], nodes).await {
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

    /// Asks about a group, again and again without the node whose error has ended the process: the others share what
    /// they have in common all the same.
    pub(super) async fn ask(
        &self,
        asked: Asked,
        attributes: &[&str],
        group: &[MachineName],
    ) -> Result<Asking, EvaluateError> {
        let mut left = group.to_vec();
        let mut broken = vec![];
        while !left.is_empty() {
            match self.values(asked, attributes, &left).await {
                Ok((values, printed)) => {
                    return Ok(Asking { values: Some((values, printed, left.len())), broken });
                }
                Err(EvaluateError::Network { trace }) => {
                    let Some((at, trace)) = ended_by(&trace, &left) else {
                        break;
                    };
                    // Those before it are well. Who comes after them may not be, and then all that is done by then is
                    // in vain.
                    left.rotate_left(at);
                    broken.push((left.remove(0), trace));
                }
                // Fewer at once may fit.
                Err(EvaluateError::Nix(NixError::Killed { .. })) if group.len() > 1 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Asking { values: None, broken })
    }

    /// Several attributes of `eval.nix`, from one process.
    pub(super) async fn values(
        &self,
        asked: Asked,
        attributes: &[&str],
        nodes: &[MachineName],
    ) -> Result<(Vec<Json>, Printed), EvaluateError> {
        let selected = attributes.iter().flat_map(|name| ["-A", name]);
        let selected: Vec<&str> = selected.chain(["--show-trace"]).collect();
        let printed = self.instantiate(asked, &selected, nodes).await.map_err(|error| match error {
            NixError::Failed { message, .. } => EvaluateError::Network { trace: message },
            error => error.into(),
        })?;
        // Some versions of Nix put line breaks between results, some nothing at all.
        let values: Result<Vec<Json>, _> =
            serde_json::Deserializer::from_str(&printed.stdout).into_iter().collect();
        Ok((values.map_err(|error| unexpected(&error))?, printed))
    }

    async fn instantiate(
        &self,
        asked: Asked,
        what: &[&str],
        nodes: &[MachineName],
    ) -> Result<Printed, NixError> {
        self.instantiate_at(asked, what, nodes, &[]).await
    }

    /// The same about what is at some paths.
    pub(super) async fn instantiate_at(
        &self,
        asked: Asked,
        what: &[&str],
        nodes: &[MachineName],
        paths: &[Path],
    ) -> Result<Printed, NixError> {
        let setting = |on: bool| if on { "true" } else { "false" };
        let (pure, builds) = (setting(self.question.pure), setting(self.question.builds));
        let fixed =
            ["--eval", "--strict", "--json", "--read-write-mode", "--option", "pure-eval", pure, "--option"];
        let fixed = [&fixed[..], &["allow-import-from-derivation", builds, "-"]].concat();
        let arguments = [&fixed[..], what].concat();
        let input = self.question.expression(nodes, paths);
        // Without nodes it may still look at one.
        let slot = self.slots.take(self.costs.mib(nodes.len().max(1))).await;
        let watch = self.question.tracer.as_ref().map(|tracer| tracer.watch(slot.number())).transpose();
        let watch = watch.map_err(|source| NixError::Run { program: PROGRAM.to_owned(), source })?;
        let heap = (self.limits.heap(asked, &self.costs, nodes.len()) << 20).to_string();
        let cache = match &self.question.by_files {
            Some(by_files) => Some(by_files.cache(self.nix, self.cancel).await?),
            None => None,
        };
        let variables = cache.as_ref().map(|cache| in_cache(cache.path()));
        let variables = variables.iter().flatten().map(|(name, value)| (*name, value.as_str()));
        // Who has set one of them knows better.
        let is_set = [HEAP, LARGEST_HEAP].iter().any(|name| std::env::var_os(name).is_some());
        let heap = (!is_set).then_some((HEAP, heap.as_str()));
        let environment: Vec<_> = variables.chain(heap).collect();
        let call = Call {
            program: "nix-instantiate",
            arguments: &arguments,
            environment: &environment,
            hidden: &self.question.hidden,
            input: &input,
            through: watch.as_ref().map_or(&[], |watch| watch.command()),
            is_measured: true,
            silence: None,
        };
        let finished = self.nix.call(call, self.cancel, &|_| {}).await?;
        let reads = watch.and_then(super::trace::Watch::finish).map(Arc::new);
        Ok(Printed {
            notes: finished.log.notes().to_vec(),
            stdout: finished.stdout,
            reads,
            peak_mib: finished.peak_mib,
        })
    }
}

pub(super) fn sized<T, const N: usize>(values: Vec<T>) -> Result<[T; N], NixError> {
    values
        .try_into()
        .map_err(|values: Vec<T>| unexpected(&format!("{} results where {N} were asked for", values.len())))
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(json: Json) -> Result<T, NixError> {
    serde_json::from_value(json).map_err(|error| unexpected(&error))
}

fn unexpected(reason: &dyn std::fmt::Display) -> NixError {
    NixError::Output { program: PROGRAM.to_owned(), reason: reason.to_string() }
}
