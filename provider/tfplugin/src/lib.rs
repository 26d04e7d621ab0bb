//! An SDK for Terraform and OpenTofu providers: plugin protocol 6.
//!
//! A provider implements [`Provider`] and, for each thing it offers, one trait: [`Resource`], [`DataSource`],
//! [`Function`], [`EphemeralResource`], [`ListResource`] or [`Action`]. [`serve`] is its whole `main`. A resource sees
//! typed models, with [`Attr`] where a value may be null or not known yet, and never the wire. The rules that Terraform
//! has for every resource are kept by the server: defaults, computed values, write-only values, plans that agree with
//! the configuration, and results that agree with their plan.
//!
//! The README of the crate has a whole provider in less than a hundred lines.
//!
//! # Errors
//!
//! Whatever a user has to know is a [`Diagnostic`]; operations fail with [`Diagnostics`]. Operations that may leave
//! something behind, create and update, fail with [`Failed`], which says what exists now. A mistake of the provider,
//! such as a plan that breaks a rule, is a diagnostic too; it asks the user to report it.
//!
//! # Features
//!
//! - `testing`: the module `testing`, a harness that drives a provider as Terraform does.
//! - `fuzzing`: for the fuzz targets of this crate.
//!
//! # Layers
//!
//! Each module needs only modules of its own line and of those above it, and no two files need each other:
//!
//! 1. `protocol`: the generated messages and services.
//! 2. `path`, `types`, `number`, `value`, `attr`, `diagnostic`: what values are, and what is told about them.
//! 3. `codec`, `convert`, `model`: values as MessagePack and JSON, and as Rust types.
//! 4. `schema`, `duration`, `timeouts`: what users can write.
//! 5. `plan`: the rules for plans and results; `terraform`, for tests: what Terraform itself computes.
//! 6. `private`, `context`: what an operation works with beside its values.
//! 7. `resource`, `data_source`, `ephemeral`, `list`, `action`, `function`: a trait each, and the same without its
//!    types.
//! 8. `provider`: all of them together.
//! 9. `server`: the calls of the protocol.
//! 10. `testing`, `fuzzing`.

mod action;
mod attr;
mod codec;
mod context;
mod convert;
mod data_source;
mod diagnostic;
mod duration;
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
mod timeouts;
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
pub use duration::{DurationText, NotADuration};
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
pub use timeouts::Timeouts;
pub use tokio_util::sync::CancellationToken;
pub use types::Type;
pub use value::Value;
