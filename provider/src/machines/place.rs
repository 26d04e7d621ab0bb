//! What a place for machines has to do.

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tfplugin::{Attribute, Cx, Diagnostics, Path, Schema};

use super::ec2::Found;
use super::machine::Machine;
use crate::context::Context;

/// A place where machines run: the owner of one block of `nixos_machine`.
///
/// A place that makes machines pins the host key with which it made them, and lets
/// [`first_login`](super::visit::first_login) do the rest. What a machine says about itself at a refresh is not its
/// place's business.
pub(crate) trait Place: Sync {
    /// The name of its block. Machines in state are told by it.
    fn block(&self) -> &'static str;

    /// The schema of its block.
    fn attribute(&self) -> Attribute;

    /// Checks a configuration for what the schema cannot express.
    fn validate(&self, config: &Machine) -> Result<(), Diagnostics>;

    /// Completes a proposed state by what the configuration and the prior state tell.
    fn plan<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        request: Planning<'a>,
    ) -> BoxFuture<'a, Result<Planned, Diagnostics>>;

    /// Takes over what the place says about the machine. No login: the machine itself is asked afterwards.
    fn read<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        machine: &'a mut Machine,
    ) -> BoxFuture<'a, Result<Presence, Diagnostics>>;

    /// Makes the machine, and waits until a login works. `machine` follows each step, also where it fails.
    fn create<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        machine: &'a mut Machine,
    ) -> BoxFuture<'a, Result<(), Diagnostics>>;

    /// Whether a create that failed has left something behind, or may have: then the state must know of it.
    fn may_exist(&self, machine: &Machine) -> bool;

    /// Brings the machine to what is planned. `there` follows each step, also where it fails.
    fn update<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        there: &'a mut Machine,
        planned: Machine,
        private: &'a Private,
    ) -> BoxFuture<'a, Result<Machine, Diagnostics>>;

    /// Ends the machine and what goes with it. A place that has not made it leaves it as it is.
    fn delete<'a>(&'a self, cx: &'a Cx<Context>, machine: Machine) -> BoxFuture<'a, Result<(), Diagnostics>>;

    /// Whether an import with this id means a machine of this place.
    fn is_id(&self, id: &str) -> bool;

    /// The machine with an id.
    fn import<'a>(
        &'a self,
        cx: &'a Cx<Context>,
        schema: &'a Schema,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(Machine, Private), Diagnostics>>;
}

/// What a plan is made of.
pub(crate) struct Planning<'a> {
    /// The state; `None`: there is no machine yet.
    pub(crate) prior: Option<&'a Machine>,
    /// What the user wrote.
    pub(crate) config: &'a Machine,
    /// Terraform's merger of both.
    pub(crate) proposed: Machine,
    /// What the place remembers.
    pub(crate) private: Private,
}

/// What is planned.
pub(crate) struct Planned {
    pub(crate) machine: Machine,
    pub(crate) private: Private,
    /// The attributes that only another machine can have otherwise.
    pub(crate) requires_replace: Vec<Path>,
}

/// Whether a machine is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    There,
    Gone,
}

/// What places remember of a machine beside its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Private {
    #[serde(flatten)]
    pub(crate) ec2: Found,
}
