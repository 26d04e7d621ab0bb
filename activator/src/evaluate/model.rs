//! What an evaluation is asked, and what it answers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::inventory::Inventory;
use crate::secrets::Content;
use crate::{MachineName, StorePath};

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
    /// Also others, with all the files that were read; see [`trace`](super::trace).
    ReadSet,
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
    /// Whether its content is in the specification itself; see [`Evaluator::texts`](super::Evaluator::texts).
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

/// Something about a specification as a whole that its user should know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A flake with inputs that its lock file does not have.
    #[error(
        "Not all inputs of the flake {reference} are in its lock file. So they are fetched as they are \
         today, the evaluation is not pure, and nothing of it is remembered. Run `nix flake lock` in the \
         flake's directory, and commit `flake.lock`."
    )]
    Unlocked {
        /// The flake.
        reference: String,
    },
    /// A flake that asks for settings of Nix which its user has not accepted.
    #[error(
        "The flake {reference} has a `nixConfig` with {names}, which is not applied: what is in its binary \
         cache may have to be built. If you trust it, set nix = {{ options = {{ accept-flake-config = \
         \"true\" }} }} in the provider block, or `extra-substituters` and `extra-trusted-public-keys` \
         there."
    )]
    NotAccepted {
        /// The flake.
        reference: String,
        /// What it asks for.
        names: String,
    },
    /// Files with secrets in the directory of a flake, all of which Nix copies to the store.
    #[error(
        "The flake in {} is not in a git repository, or git ignores it, so Nix copies all of the directory \
         to its store, where every user of this computer can read it. Among its files: {names}. Put the \
         flake into a directory of its own, or into a git repository that ignores these files.",
        .directory.display()
    )]
    Exposed {
        /// The flake's directory.
        directory: PathBuf,
        /// The names of the files.
        names: String,
    },
    /// A flake whose tree this Nix does not name.
    #[error(
        "This Nix does not say where the tree of the flake {reference} is, and does not copy it to the \
         store. So the evaluation is not pure, and nothing of it is remembered. Use another version of \
         Nix, or turn its `lazy-trees` off: nix = {{ options = {{ lazy-trees = \"false\" }} }} in the \
         provider block."
    )]
    NotFetched {
        /// The flake.
        reference: String,
    },
}

/// What `eval.nix` reports of what may throw.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Caught<T> {
    pub(super) ok: Option<T>,
}
