//! From a state to the configuration that a user would have written for it.

use std::collections::BTreeMap;

use super::group::GroupRule;
use super::{Attribute, Kind, Nesting, Schema};
use crate::Value;

impl Schema {
    /// What of a state a user can have written: nothing that only the provider sets, nothing that is as by default, and of
    /// attributes that exclude each other the first.
    pub(crate) fn configurable(&self, state: Value) -> Value {
        let mut config = configurable(&self.attributes, state);
        if let Value::Map(entries) = &mut config {
            for group in &self.groups {
                if matches!(group.rule, GroupRule::ExactlyOne | GroupRule::AtMostOne) {
                    let set = |name: &&String| entries.get(*name).is_some_and(|value| !value.is_null());
                    let surplus: Vec<String> = group.names.iter().filter(set).skip(1).cloned().collect();
                    entries.extend(surplus.into_iter().map(|name| (name, Value::Null)));
                }
            }
        }
        config
    }
}

fn configurable(attributes: &BTreeMap<String, Attribute>, value: Value) -> Value {
    let Value::Map(entries) = value else {
        return value;
    };
    let entries = entries.into_iter().map(|(name, value)| {
        let Some(attribute) = attributes.get(&name) else {
            return (name, value);
        };
        let fixed = attribute.computed && !attribute.optional;
        if fixed || attribute.write_only || attribute.default.as_ref() == Some(&value) {
            return (name, Value::Null);
        }
        let Kind::Nested(nesting, nested) = &attribute.kind else {
            return (name, value);
        };
        let inner = |value| configurable(&nested.attributes, value);
        let value = match (nesting, value) {
            (Nesting::Single, value) => inner(value),
            (Nesting::Map, Value::Map(entries)) => {
                Value::Map(entries.into_iter().map(|(key, value)| (key, inner(value))).collect())
            }
            (_, Value::List(items)) => Value::List(items.into_iter().map(inner).collect()),
            (_, value) => value,
        };
        (name, value)
    });
    Value::Map(entries.collect())
}
