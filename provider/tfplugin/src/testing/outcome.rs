//! What a test gets from the harness: plans, what an apply has left, and resources as a state keeps them.

use crate::{Diagnostics, Path, Value};

/// What a plan does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    NoOp,
    /// Make it.
    Create,
    /// Change it in place.
    Update,
    /// Destroy it and make another.
    Replace,
    /// Destroy it.
    Delete,
}

/// A plan for one resource.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// What it does.
    pub action: Action,
    /// The state that is planned; null where it is to be destroyed.
    pub planned: Value,
    /// The attributes for which it is replaced.
    pub requires_replace: Vec<Path>,
    /// What the provider has to say.
    pub warnings: Diagnostics,
    /// Whether the provider puts it off.
    pub deferred: bool,
    pub(super) type_name: String,
    pub(super) config: Value,
    pub(super) prior: Option<Stored>,
    pub(super) private: Vec<u8>,
}

/// What an apply has left.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Applied {
    /// What is in Terraform's state now.
    pub state: Option<Stored>,
    /// What the provider has to say.
    pub diagnostics: Diagnostics,
}

/// A resource in Terraform's state.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its type.
    pub type_name: String,
    /// The version of the schema it was written under.
    pub version: i64,
    /// Its attributes.
    pub value: Value,
    /// What the provider remembers beside them.
    pub private: Vec<u8>,
    /// What identifies it, where it has an identity.
    pub identity: Option<Value>,
    /// Whether the next plan replaces it, because creating it failed.
    pub tainted: bool,
    /// Whether the provider has put off looking at it. Something of it may be unknown then, and Terraform stores nothing of it.
    pub deferred: bool,
}

impl Stored {
    /// The attribute `name`.
    #[track_caller]
    pub fn get(&self, name: &str) -> &Value {
        self.value.get(name).unwrap_or_else(|| panic!("{} has no attribute {name}", self.type_name))
    }
}
