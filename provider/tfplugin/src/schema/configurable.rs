//! From a state to the configuration that a user would have written for it.

use std::collections::BTreeMap;

use super::group::{Group, GroupRule};
use super::{Attribute, Kind, Nesting, Schema};
use crate::Value;

impl Schema {
    /// Those values of a state that a user can have written: none that only the provider sets, none that is as by default, and
    /// of attributes that exclude each other the first.
    pub(crate) fn configurable(&self, state: Value) -> Value {
        object(&self.attributes, &self.groups, state)
    }
}

fn object(attributes: &BTreeMap<String, Attribute>, groups: &[Group], value: Value) -> Value {
    let Value::Map(entries) = value else {
        return value;
    };
    let mut entries: BTreeMap<String, Value> = entries
        .into_iter()
        .map(|(name, value)| match attributes.get(&name) {
            Some(definition) => (name, attribute(definition, value)),
            None => (name, value),
        })
        .collect();
    for group in groups {
        if matches!(group.rule, GroupRule::ExactlyOne | GroupRule::AtMostOne) {
            let set = |name: &&String| entries.get(*name).is_some_and(|value| !value.is_null());
            let surplus: Vec<String> = group.names.iter().filter(set).skip(1).cloned().collect();
            entries.extend(surplus.into_iter().map(|name| (name, Value::Null)));
        }
    }
    Value::Map(entries)
}

fn attribute(definition: &Attribute, value: Value) -> Value {
    let fixed = definition.computed && !definition.optional;
    if fixed || definition.write_only || definition.default.as_ref() == Some(&value) {
        return Value::Null;
    }
    let Kind::Nested(nesting, nested) = &definition.kind else {
        return value;
    };
    let inner = |value| object(&nested.attributes, &nested.groups, value);
    match (nesting, value) {
        (Nesting::Single, value) => inner(value),
        (Nesting::Map, Value::Map(entries)) => {
            Value::Map(entries.into_iter().map(|(key, value)| (key, inner(value))).collect())
        }
        (_, Value::List(items)) => Value::List(items.into_iter().map(inner).collect()),
        (_, value) => value,
    }
}
