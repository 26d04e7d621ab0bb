//! Values for the tests of planning, ours and Terraform's.

use std::collections::BTreeMap;

use crate::{Attribute, Diagnostics, Nested, Schema, Type, Value};

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

/// A schema with an attribute of every kind.
pub(crate) fn everything() -> Schema {
    Schema::new(0)
        .attribute("set", Attribute::string().optional())
        .attribute("out", Attribute::string().computed())
        .attribute("both", Attribute::string().optional().computed())
        .attribute("secret", Attribute::string().optional().sensitive())
        .attribute("hidden", Attribute::string().optional().write_only())
        .attribute("tags", Attribute::set(Type::String).optional())
        .attribute("parts", Attribute::nested_map(nested()).optional())
        .attribute("rows", Attribute::nested_list(nested()).optional())
        .attribute("bag", Attribute::nested_set(nested()).optional())
        .attribute("any", Attribute::dynamic().optional().computed())
}

/// A value of [`everything`] with nothing in it but these.
pub(crate) fn value(entries: &[(&str, Value)]) -> Value {
    let mut all: BTreeMap<String, Value> =
        everything().attributes.keys().map(|name| (name.clone(), Value::Null)).collect();
    all.extend(entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    Value::Map(all)
}

/// A set.
pub(crate) fn set(items: &[Value]) -> Value {
    Value::set(items.to_vec())
}

/// The places that were found.
pub(crate) fn paths(found: &Diagnostics) -> Vec<String> {
    found.iter().map(|one| one.path.clone().unwrap_or_default().to_string()).collect()
}
