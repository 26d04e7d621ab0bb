//! Evaluation: a [`Request`] goes in, a derivation per machine comes out, or what that machine still waits for, or what is
//! wrong with it.
//!
//! Values that are not known yet are lazy `throw`s in Nix: a node that does not look at one evaluates exactly, a node that
//! does fails *catchably*. Only nodes that fail get a second, solitary look, whose error says which value it was, or, where
//! none was involved, is the error to show.
//!
//! Nodes are spread over processes by memory and cores, and what was evaluated before is not evaluated again where that can
//! be proved: see `cache.rs`.

mod cache;
mod config;
mod costs;
mod errors;
mod flake;
mod groups;
mod mentions;
mod notes;
mod question;
mod reads;
mod repository;
mod run;
mod said;
pub mod trace;

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::inventory::Inventory;
use crate::network::{Request, Spec, SpecError};
use crate::nix::{Nix, NixError};
use crate::secrets::Content;
use crate::{MachineName, StorePath};

use cache::{Cache, Known};
use costs::{Asked, Costs};
use groups::{Limits, Queue, Slots};
use question::{Question, Tree};
use run::{Answer, Looked, Run, View};
use said::Described;

pub use flake::Warning;

/// How evaluations are run.
#[derive(Clone, Debug, Default)]
pub struct EvaluationSettings {
    /// How many processes at once; `None`: as cores and memory allow.
    pub workers: Option<usize>,
    /// How much memory all of them may take together, in MiB; `None`: half of what is free.
    pub memory_mib: Option<u64>,
    /// What is remembered.
    pub cache: CachePolicy,
}

/// Which evaluations are remembered on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CachePolicy {
    /// None.
    Off,
    /// Those that are pure: locked flakes, whose reference names all that they can read.
    #[default]
    Pure,
    /// Also others, with all the files that were read; see [`trace`].
    ReadSet,
}

/// Runs evaluations, not more at once than memory allows.
#[derive(Debug)]
pub struct Evaluator {
    tree: OnceCell<Tree>,
    limits: Limits,
    slots: Slots,
    policy: CachePolicy,
    cache: Option<Cache>,
}

/// The result for every wanted node.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// All nodes of the specification; `None` when even their names wait for something.
    pub names: Option<Vec<MachineName>>,
    /// One entry per wanted node.
    pub nodes: BTreeMap<MachineName, Node>,
    /// What the user should know of the specification as a whole.
    pub warnings: Vec<Warning>,
}

/// What is known about a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Node {
    /// Its system, exactly.
    Exact(Box<System>),
    /// Its system depends on a value that is not known yet.
    Waits {
        /// Which, e.g. `arguments.domain`.
        on: String,
    },
    /// It needs a fact about a node that has no machine.
    NoMachine {
        /// The node it looks at.
        of: String,
        /// What it wants to know.
        fact: String,
    },
    /// It does not evaluate.
    Broken {
        /// Nix' error with its trace.
        trace: String,
    },
}

/// A NixOS system as evaluation sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Which of the configuration's specialisations it is; `None`: its base system.
    #[serde(default)]
    pub specialisation: Option<String>,
    /// Its `deployment.keys` by name.
    #[serde(default)]
    pub keys: BTreeMap<String, Key>,
    /// What NixOS and Nix warn of: `config.warnings`, `lib.warn`, `builtins.warn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What is in it.
    #[serde(flatten)]
    pub inventory: Inventory,
}

/// One of `deployment.keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Where it goes.
    pub path: String,
    /// Whose it is.
    pub user: String,
    /// Which group's it is.
    pub group: String,
    /// Its mode in octal digits.
    pub permissions: String,
    /// `keyFile`.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// `keyCommand`.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Whether its content is in the specification itself; see [`Evaluator::texts`].
    #[serde(default)]
    pub text: bool,
}

impl Key {
    /// Whether what is sent is the text that the specification has.
    pub fn is_text(&self) -> bool {
        self.text && self.file.is_none() && self.command.is_none()
    }
}

/// The contents of `deployment.keys` that a specification has itself, by node and key.
pub type Texts = BTreeMap<MachineName, BTreeMap<String, Content>>;

/// What a specification says besides its systems.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// `network.description`.
    pub description: Option<String>,
    /// `resources.TYPE.NAME`, with what Terraform gave.
    pub resources: serde_json::Value,
    /// What it says about each node.
    pub nodes: BTreeMap<MachineName, NodeDescription>,
}

/// What a specification says about a node without evaluating its system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeDescription {
    /// Values of `deployment.*`; null where not even these can be evaluated.
    pub deployment: serde_json::Value,
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

/// What `eval.nix` reports of what may throw.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Caught<T> {
    ok: Option<T>,
}

impl Evaluator {
    /// With limits that fit this computer where the settings say nothing.
    pub fn new(settings: &EvaluationSettings) -> Self {
        let limits = Limits::new(settings.workers, settings.memory_mib);
        let cache = if settings.cache == CachePolicy::Off { None } else { Cache::of_user() };
        Self { tree: OnceCell::new(), slots: Slots::new(limits), limits, policy: settings.cache, cache }
    }

    /// Evaluates the wanted nodes; the derivations are in the local store afterwards.
    pub async fn evaluate(
        &self,
        nix: &Nix,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<Evaluation, EvaluateError> {
        let question = self.question(nix, request, cancel).await?;
        let run = self.run(nix, &question, cancel);
        let wanted = match &request.nodes {
            Some(nodes) => nodes.clone(),
            None => match run.names().await.map_err(|error| question.explain(error))? {
                Some(names) => names,
                None => {
                    return Ok(Evaluation {
                        names: None,
                        nodes: BTreeMap::new(),
                        warnings: question.warnings,
                    });
                }
            },
        };
        let answer = self.look::<Node>(&run, &wanted).await.map_err(|error| question.explain(error))?;
        let explained = |node| match node {
            Node::Broken { trace } => Node::Broken { trace: question.explained(trace) },
            node => node,
        };
        let nodes = answer.nodes.into_iter().map(|looked| (looked.name, explained(looked.node))).collect();
        Ok(Evaluation { names: answer.names, nodes, warnings: question.warnings })
    }

    /// Asks what the specification says about its nodes, without evaluating their systems.
    pub async fn describe(
        &self,
        nix: &Nix,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<Description, EvaluateError> {
        let question = self.question(nix, request, cancel).await?;
        let run = self.run(nix, &question, cancel);
        let cache = self.cache_of(&question);
        let known = cache.and_then(|cache| cache.network(&question));
        let network = if let Some(network) = known {
            network
        } else {
            let (network, reads) = run.network().await.map_err(|error| question.explain(error))?;
            if let Some(cache) = cache {
                cache.remember_network(&question, &network, reads.as_ref());
            }
            network
        };
        let answer = self.look::<Described>(&run, &network.names).await;
        let answer = answer.map_err(|error| question.explain(error))?;
        let (mut nodes, mut broken) = (BTreeMap::new(), BTreeMap::new());
        for Looked { name, node, .. } in answer.nodes {
            match node {
                Ok(description) => drop(nodes.insert(name, description)),
                Err(trace) => drop(broken.insert(name, question.explained(trace))),
            }
        }
        if !broken.is_empty() {
            return Err(EvaluateError::Nodes { broken });
        }
        let (description, resources) = (network.description.ok.flatten(), network.resources);
        Ok(Description { description, resources, nodes })
    }

    /// Looks at nodes: those that are not remembered, in as many processes as is best.
    async fn look<T: View>(&self, run: &Run<'_>, wanted: &[MachineName]) -> Result<Answer<T>, EvaluateError> {
        let cache = self.cache_of(run.question);
        let Known { mut answer, missing } = match cache {
            Some(cache) => cache.look_up(run.question, wanted),
            None => Known::nothing(wanted),
        };
        let costs = cache.and_then(|cache| cache.costs(run.question, T::ASKED));
        let mut costs = costs.unwrap_or(Costs::assumed(T::ASKED));
        tracing::debug!(
            asked = ?T::ASKED,
            known = answer.nodes.len(),
            missing = missing.len(),
            ?costs,
            "evaluating"
        );
        let mut queue = Queue::new(missing, T::ASKED, run.question.tracer.is_some());
        let mut running = FuturesUnordered::new();
        loop {
            // What the first processes cost decides how the others are made.
            while let Some(group) = queue.next(&self.limits, &costs, running.len()) {
                let run = Run { costs, ..*run };
                running.push(async move { T::of(&group, &run).await });
            }
            let Some(found) = running.try_next().await? else {
                break;
            };
            if let Some(known) = &found.names
                && let Some(name) = wanted.iter().find(|name| !known.contains(name))
            {
                return Err(EvaluateError::NoSuchNode { name: name.clone(), known: known.clone() });
            }
            if let Some(process) = &found.process {
                costs = costs.learned(process);
            }
            if let Some(cache) = cache {
                cache.remember(run.question, &found);
                cache.remember_costs(run.question, T::ASKED, &costs);
            }
            answer.names = found.names;
            answer.nodes.extend(found.nodes);
        }
        Ok(answer)
    }

    fn run<'a>(&'a self, nix: &'a Nix, question: &'a Question, cancel: &'a CancellationToken) -> Run<'a> {
        // Until it is known what is asked and what that costs.
        let costs = Costs::assumed(Asked::Descriptions);
        Run { nix, cancel, question, slots: &self.slots, limits: self.limits, costs }
    }

    fn cache_of(&self, question: &Question) -> Option<&Cache> {
        self.cache.as_ref().filter(|_| question.is_cacheable())
    }

    /// The contents of those `deployment.keys` of the nodes that are asked for which have them in the specification. They are
    /// remembered nowhere. An error of one node is one of all.
    pub async fn texts(
        &self,
        nix: &Nix,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<Texts, EvaluateError> {
        let mut question = self.question(nix, request, cancel).await?;
        // Nobody will ask what was read.
        (question.tracer, question.by_files) = (None, None);
        let run = self.run(nix, &question, cancel);
        let wanted = match &request.nodes {
            Some(nodes) => nodes.clone(),
            None => run.names().await?.unwrap_or_default(),
        };
        let mut queue = Queue::new(wanted, Asked::Descriptions, false);
        // All of them at once: the slots decide how many really run.
        let groups: Vec<_> = std::iter::from_fn(|| queue.next(&self.limits, &run.costs, 0)).collect();
        let groups: Vec<_> = groups.iter().map(|group| run.texts(group).boxed()).collect();
        let answers: Vec<Texts> =
            futures::stream::iter(groups).buffer_unordered(usize::MAX).try_collect().await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// The settings of Nix that a flake asks for and that its user lets flakes set, for building what is in it.
    pub async fn settings_of(
        &self,
        nix: &Nix,
        spec: &Spec,
        cancel: &CancellationToken,
    ) -> Result<Vec<(String, String)>, EvaluateError> {
        let Spec::Flake(reference) = spec.resolve()? else {
            return Ok(vec![]);
        };
        let Some(directory) = flake::lock(nix, &reference, false, cancel).await?.directory else {
            return Ok(vec![]);
        };
        let settings = config::wanted(nix, &directory, cancel).await?;
        let applied = !settings.is_empty() && config::are_accepted(nix, cancel).await?;
        Ok(if applied { settings } else { vec![] })
    }

    async fn question(
        &self,
        nix: &Nix,
        request: &Request,
        cancel: &CancellationToken,
    ) -> Result<Question, EvaluateError> {
        let tree = self.tree.get_or_try_init(|| Tree::add(nix, self.cache.as_ref(), cancel)).await?;
        Question::new(nix, request, tree, self.policy, cancel).await
    }
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
