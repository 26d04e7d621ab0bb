//! Values for the tests of planning, ours and Terraform's.

use crate::{Attribute, Nested, Value};

/// An object.
pub(crate) fn map(entries: &[(&str, Value)]) -> Value {
    Value::Map(entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

/// What a [`piece`] is.
pub(crate) fn nested() -> Nested {
    Nested::new()
        .attribute("in", Attribute::string().optional())
        .attribute("out", Attribute::string().computed())
}

/// Something nested: what the user wrote, and what came of it.
pub(crate) fn piece(name: &str, out: impl Into<Value>) -> Value {
    map(&[("in", name.into()), ("out", out.into())])
}
