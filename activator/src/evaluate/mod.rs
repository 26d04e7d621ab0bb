//! Evaluation: a [`Request`] goes in, a derivation per machine comes out, or what that machine still waits for, or
//! what is wrong with it.
//!
//! Values that are not known yet are lazy `throw`s in Nix: a node that does not look at one evaluates exactly, a node
//! that does fails *catchably*. Only nodes that fail get a second, solitary look, whose error says which value it
//! was, or, where none was involved, is the error to show.
//!
//! Nodes are spread over processes by memory and cores, and what was evaluated before is not evaluated again where
//! that can be proved: see `cache.rs`.

mod cache;
mod code;
mod config;
mod costs;
mod disk;
mod error;
mod flake;
mod groups;
mod mentions;
mod model;
mod nix_errors;
mod notes;
mod question;
mod reads;
mod repository;
mod run;
mod said;
mod store_tree;
pub mod trace;

use std::collections::BTreeMap;

use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::MachineName;
use crate::network::{Request, Spec};
use crate::nix::Nix;

use cache::Known;
use code::Tree;
use costs::{Asked, Costs};
use disk::Cache;
use groups::{Limits, Queue, Slots};
use question::Question;
use run::{Answer, Looked, Run, View};
use said::Described;

pub use error::EvaluateError;
pub use model::{
    CachePolicy, Description, Evaluation, EvaluationSettings, Key, Node, NodeDescription, System, Texts,
    Warning,
};

/// Runs evaluations, not more at once than memory allows.
#[derive(Debug)]
pub struct Evaluator {
    tree: OnceCell<Tree>,
    limits: Limits,
    slots: Slots,
    policy: CachePolicy,
    cache: Option<Cache>,
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

    /// The contents of those `deployment.keys` of the nodes that are asked for which have them in the specification.
    /// They are remembered nowhere. An error of one node is one of all.
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
