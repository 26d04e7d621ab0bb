//! Terraform's plugin protocol, version 6, for providers written in Rust.
//!
//! A provider implements [`Provider`] and, for each thing it manages, [`Resource`] or [`DataSource`]; [`serve`] is its whole
//! `main`. A resource sees typed models ([`Attr`] where a value may be unknown), never the wire. What Terraform demands of
//! every resource is done or checked here once: defaults, computed values, write-only values, plans that agree with the
//! configuration and results that agree with the plan.
//!
//! Layers, each knowing only those before it: values and types ([`Value`], [`Type`]), their encodings, conversion to Rust
//! types, [`Schema`], planning, resources, server.

mod action;
mod attr;
mod codec;
mod context;
mod convert;
mod data_source;
mod diagnostic;
mod ephemeral;
mod function;
mod list;
mod model;
mod number;
mod path;
mod plan;
mod private;
mod protocol;
mod provider;
mod resource;
mod schema;
mod server;
#[cfg(feature = "testing")]
mod terraform;
mod types;
mod value;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "testing")]
pub mod testing;

pub use action::{Action, DynAction, Progress, action};
pub use attr::Attr;
pub use context::{Client, Cx, Deferral};
pub use convert::{ConvertError, completed, from_value, to_value};
pub use data_source::{DataSource, DynDataSource, data_source};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use ephemeral::{DynEphemeralResource, EphemeralResource, Opened, Renewed, ephemeral_resource};
pub use function::{DynFunction, Function, FunctionError, Parameter, Signature, function};
pub use list::{DynListResource, Found, ListRequest, ListResource, Listed, list_resource};
pub use number::Number;
pub use path::{Path, Step};
pub use private::StoredPrivate;
pub use provider::{ConfigureCx, Provider, problems};
pub use resource::{
    Applied, ApplyRequest, DynResource, Failed, MoveRequest, PlanRequest, PlanResponse, Resource, State,
    resource,
};
pub use schema::{
    Attribute, Block, IdentityAttribute, IdentitySchema, Nested, Schema, Validator, validators,
};
pub use server::serve;
pub use types::Type;
pub use value::Value;
