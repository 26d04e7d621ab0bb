//! A resource as the server keeps it: values in, values out, without its Rust types.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

use super::MoveRequest;
use crate::{Cx, Diagnostics, Path, Schema, Value};

/// A state without its Rust type.
#[derive(Clone, Debug)]
pub struct RawState {
    /// The state; null where there is none.
    pub value: Value,
    /// The encoded private part.
    pub private: Vec<u8>,
}

/// A plan without its Rust type.
#[derive(Clone, Debug)]
pub struct RawPlan {
    /// The planned state.
    pub planned: Value,
    /// The encoded private part.
    pub private: Vec<u8>,
    /// See [`PlanResponse::requires_replace`](crate::PlanResponse::requires_replace).
    pub requires_replace: Vec<Path>,
}

/// An apply without its Rust types: what there is now, and what went wrong.
#[derive(Clone, Debug)]
pub struct RawApplied {
    /// What there is; `None`: what there was.
    pub state: Option<RawState>,
    /// What went wrong.
    pub diagnostics: Diagnostics,
}

/// A resource without its types, as the server keeps it.
pub trait DynResource<D>: Send + Sync {
    /// See [`Resource::TYPE`](crate::Resource::TYPE).
    fn type_name(&self) -> &'static str;
    /// See [`Resource::schema`](crate::Resource::schema).
    fn schema(&self) -> &Schema;
    /// See [`Resource::validate`](crate::Resource::validate).
    fn validate(&self, config: Value) -> BoxFuture<'_, Result<(), Diagnostics>>;
    /// See [`Resource::plan`](crate::Resource::plan).
    fn plan<'a>(
        &'a self,
        cx: &'a Cx<D>,
        prior: RawState,
        config: Value,
        proposed: Value,
        planned: &'a [u8],
    ) -> BoxFuture<'a, Result<RawPlan, Diagnostics>>;
    /// See [`Resource::plan_destroy`](crate::Resource::plan_destroy).
    fn plan_destroy<'a>(&'a self, cx: &'a Cx<D>, prior: RawState) -> BoxFuture<'a, Result<(), Diagnostics>>;
    /// See [`Resource::read`](crate::Resource::read).
    fn read<'a>(
        &'a self,
        cx: &'a Cx<D>,
        state: RawState,
    ) -> BoxFuture<'a, Result<Option<RawState>, Diagnostics>>;
    /// See [`Resource::create`](crate::Resource::create) and [`Resource::update`](crate::Resource::update).
    fn apply<'a>(
        &'a self,
        cx: &'a Cx<D>,
        prior: Value,
        planned: RawState,
        config: Value,
    ) -> BoxFuture<'a, RawApplied>;
    /// See [`Resource::delete`](crate::Resource::delete).
    fn delete<'a>(&'a self, cx: &'a Cx<D>, state: RawState) -> BoxFuture<'a, Result<(), Diagnostics>>;
    /// The private data of what exists, taken from those of a plan.
    fn prior_private(&self, planned: &[u8]) -> Vec<u8>;
    /// See [`Resource::import`](crate::Resource::import).
    fn import<'a>(&'a self, cx: &'a Cx<D>, id: &'a str) -> BoxFuture<'a, Result<RawState, Diagnostics>>;
    /// See [`Resource::import_identity`](crate::Resource::import_identity).
    fn import_identity<'a>(
        &'a self,
        cx: &'a Cx<D>,
        identity: BTreeMap<String, Value>,
    ) -> BoxFuture<'a, Result<RawState, Diagnostics>>;
    /// See [`Resource::move_state`](crate::Resource::move_state).
    fn move_state(&self, request: MoveRequest) -> BoxFuture<'_, Result<Option<RawState>, Diagnostics>>;
    /// See [`Resource::generate_config`](crate::Resource::generate_config).
    fn generate_config(&self, state: Value) -> BoxFuture<'_, Result<Value, Diagnostics>>;
    /// See [`Resource::upgrade`](crate::Resource::upgrade).
    ///
    /// # Errors
    ///
    /// Those of the resource.
    fn upgrade(&self, version: i64, state: serde_json::Value) -> Result<serde_json::Value, Diagnostics>;
    /// See [`Resource::upgrade_identity`](crate::Resource::upgrade_identity).
    ///
    /// # Errors
    ///
    /// Those of the resource.
    fn upgrade_identity(
        &self,
        version: i64,
        identity: serde_json::Value,
    ) -> Result<serde_json::Value, Diagnostics>;
}
