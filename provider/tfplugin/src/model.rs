//! Between values and the models of a provider: what does not fit is an error that the user sees.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::diagnostic::mistake;
use crate::{Diagnostic, Diagnostics, Value, from_value, to_value};

/// A value as a model; that it fits is the schema's promise.
pub(crate) fn read_model<M: DeserializeOwned>(type_name: &str, value: &Value) -> Result<M, Diagnostics> {
    from_value(value).map_err(|error| {
        Diagnostic::error(format!("A value of {type_name} cannot be used"))
            .detail(error.message)
            .at(error.path)
            .into()
    })
}

/// A model as a value.
pub(crate) fn write_model<M: Serialize>(type_name: &str, model: &M) -> Result<Value, Diagnostics> {
    to_value(model).map_err(|error| mistake(type_name, &error.to_string()).into())
}
