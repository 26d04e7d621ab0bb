//! Terraform's plugin protocol, version 6, for providers written in Rust.
//!
//! A provider implements [`Provider`] and, for each thing it manages, [`Resource`] or [`DataSource`]; [`serve`] is its whole
//! `main`. A resource sees typed models ([`Attr`] where a value may be unknown), never the wire. What Terraform demands of
//! every resource is done or checked here once: defaults, computed values, write-only values, plans that agree with the
//! configuration and results that agree with the plan.
//!
//! Layers, each knowing only those before it: values and types ([`Value`], [`Type`]), their encodings, conversion to Rust
//! types, [`Schema`], planning, resources, server.

mod attr;
mod codec;
mod convert;
mod data_source;
mod diagnostic;
mod path;
mod plan;
mod provider;
mod resource;
mod schema;
mod server;
mod types;
mod value;

pub use attr::Attr;
pub use convert::{ConvertError, completed, from_value, to_value};
pub use data_source::{DataSource, DynDataSource, data_source};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use path::{Path, Step};
pub use provider::{ConfigureCx, Cx, Provider};
pub use resource::{ApplyRequest, DynResource, Failed, PlanRequest, PlanResponse, Resource, State, resource};
pub use schema::{Attribute, Nested, Schema, Validator, validators};
pub use server::serve;
pub use types::Type;
pub use value::{Number, Value};
