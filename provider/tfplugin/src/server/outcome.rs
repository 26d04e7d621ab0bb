//! What became of a part of a call: a configuration that was checked, an operation that failed, and the warnings of
//! either.

use super::wire::{decode, to_wire};
use crate::plan::check_known;
use crate::protocol::proto;
use crate::{Cx, Diagnostics, Schema, Value};

/// A configuration that keeps the schema's rules.
pub(super) fn checked(schema: &Schema, config: Option<&proto::DynamicValue>) -> Result<Value, Diagnostics> {
    let config = decode(schema, config)?;
    let found = schema.validate(&config, true);
    if found.has_errors() { Err(found) } else { Ok(config) }
}

/// The diagnostics of a check. A check that found warnings alone has not failed.
pub(super) fn outcome(result: Result<(), Diagnostics>) -> Result<Vec<proto::Diagnostic>, Diagnostics> {
    match result {
        Ok(()) => Ok(vec![]),
        Err(found) if found.has_errors() => Err(found),
        Err(warnings) => Ok(to_wire(warnings)),
    }
}

/// The result of an operation; its errors come with the warnings that were given before.
pub(super) fn with_warnings<D, T>(cx: &Cx<D>, result: Result<T, Diagnostics>) -> Result<T, Diagnostics> {
    result.map_err(|errors| {
        let mut all = cx.take_warnings();
        all.extend(errors);
        all
    })
}

/// An error where something in a value is unknown.
pub(super) fn must_be_known(type_name: &str, schema: &Schema, value: &Value) -> Result<(), Diagnostics> {
    let broken = check_known(type_name, schema, value);
    if broken.has_errors() { Err(broken) } else { Ok(()) }
}
