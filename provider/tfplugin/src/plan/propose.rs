//! From what Terraform proposes to what a resource starts its own planning with.
//!
//! Terraform's proposal has the configuration's values, and prior values for computed attributes. On top of that: defaults,
//! no write-only values, and, where anything changes, every computed value without a configuration is unknown.

use std::collections::BTreeMap;

use crate::schema::{Kind, Nesting};
use crate::{Attribute, Path, Schema, Value};

/// The proposal a resource sees. `prior` is null on create.
pub(crate) fn propose(schema: &Schema, prior: &Value, config: &Value, proposed: &Value) -> Value {
    let settled = object(&schema.attributes, config, proposed, prior, Phase::Defaults);
    if &settled == prior {
        return settled;
    }
    object(&schema.attributes, config, &settled, prior, Phase::Unknowns)
}

/// Removes what only the configuration may have.
pub(crate) fn null_write_only(schema: &Schema, value: &Value) -> Value {
    object(&schema.attributes, &Value::Null, value, &Value::Null, Phase::WriteOnly)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Defaults,
    Unknowns,
    WriteOnly,
}

fn object(
    attributes: &BTreeMap<String, Attribute>,
    config: &Value,
    proposed: &Value,
    prior: &Value,
    phase: Phase,
) -> Value {
    let Value::Map(entries) = proposed else {
        return proposed.clone();
    };
    let part = |value: &Value, name: &str| value.get(name).cloned().unwrap_or(Value::Null);
    let entries = entries.iter().map(|(name, value)| {
        let value = match attributes.get(name) {
            Some(definition) => attribute(definition, &part(config, name), value, &part(prior, name), phase),
            None => value.clone(),
        };
        (name.clone(), value)
    });
    Value::Map(entries.collect())
}

fn attribute(definition: &Attribute, config: &Value, proposed: &Value, prior: &Value, phase: Phase) -> Value {
    if definition.write_only {
        return Value::Null;
    }
    if config.is_null() && phase != Phase::WriteOnly {
        match (&definition.default, phase) {
            (Some(default), _) => return default.clone(),
            (None, Phase::Unknowns) if definition.computed => {
                let keep = definition.use_state_for_unknown && !prior.is_null();
                return if keep { prior.clone() } else { Value::Unknown };
            }
            _ => return proposed.clone(),
        }
    }
    let Kind::Nested(nesting, nested) = &definition.kind else {
        return proposed.clone();
    };
    let inner = |config: &Value, proposed: &Value, prior: &Value| {
        object(&nested.attributes, config, proposed, prior, phase)
    };
    match (nesting, proposed) {
        (Nesting::Single, Value::Map(_)) => inner(config, proposed, prior),
        (Nesting::Map, Value::Map(entries)) => {
            let part = |value: &Value, key: &str| value.get(key).cloned().unwrap_or(Value::Null);
            let entries = entries
                .iter()
                .map(|(key, value)| (key.clone(), inner(&part(config, key), value, &part(prior, key))));
            Value::Map(entries.collect())
        }
        (Nesting::List | Nesting::Set, Value::List(items)) => {
            let part = |value: &Value, index: usize| match value {
                Value::List(items) => items.get(index).cloned().unwrap_or(Value::Null),
                _ => Value::Null,
            };
            // Elements of a set have no place; nothing of the prior state belongs to one.
            let prior = if *nesting == Nesting::List { prior.clone() } else { Value::Null };
            let items = items
                .iter()
                .enumerate()
                .map(|(index, item)| inner(&part(config, index), item, &part(&prior, index)));
            Value::List(items.collect())
        }
        _ => proposed.clone(),
    }
}

/// Attributes that differ and, by the schema, cannot be changed in place.
pub(crate) fn replaced(schema: &Schema, prior: &Value, planned: &Value) -> Vec<Path> {
    if prior.is_null() || planned.is_null() {
        return vec![];
    }
    let mut paths = vec![];
    collect_replaced(&schema.attributes, prior, planned, &Path::root(), &mut paths);
    paths
}

fn collect_replaced(
    attributes: &BTreeMap<String, Attribute>,
    prior: &Value,
    planned: &Value,
    path: &Path,
    found: &mut Vec<Path>,
) {
    for (name, attribute) in attributes {
        let (Some(before), Some(after)) = (prior.get(name), planned.get(name)) else {
            continue;
        };
        if before == after {
            continue;
        }
        let path = path.clone().attribute(name);
        if attribute.requires_replace {
            found.push(path);
        } else if let Kind::Nested(Nesting::Single, nested) = &attribute.kind {
            collect_replaced(&nested.attributes, before, after, &path, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nested;

    fn schema() -> Schema {
        let nested = Nested::new()
            .attribute("in", Attribute::string().optional())
            .attribute("out", Attribute::string().computed());
        Schema::new(0)
            .attribute("id", Attribute::string().computed().use_state_for_unknown())
            .attribute("name", Attribute::string().required().requires_replace())
            .attribute("mode", Attribute::string().optional().computed().default("soft"))
            .attribute("secret", Attribute::string().optional().write_only())
            .attribute("stamp", Attribute::string().computed())
            .attribute("parts", Attribute::nested_map(nested).optional())
    }

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    fn value(name: &str, mode: Value, computed: [Value; 2], part: Value) -> Value {
        let [id, stamp] = computed;
        map(&[
            ("id", id),
            ("name", name.into()),
            ("mode", mode),
            ("secret", Value::Null),
            ("stamp", stamp),
            ("parts", map(&[("a", map(&[("in", "x".into()), ("out", part)]))])),
        ])
    }

    #[test]
    fn a_create_knows_defaults_and_nothing_computed() {
        let config = value("n", Value::Null, [Value::Null, Value::Null], Value::Null);
        let planned = propose(&schema(), &Value::Null, &config, &config);
        assert_eq!(planned, value("n", "soft".into(), [Value::Unknown, Value::Unknown], Value::Unknown));
    }

    #[test]
    fn without_a_change_nothing_becomes_unknown() {
        let config = value("n", Value::Null, [Value::Null, Value::Null], Value::Null);
        let prior = value("n", "soft".into(), ["1".into(), "s".into()], "o".into());
        assert_eq!(propose(&schema(), &prior, &config, &prior), prior);
    }

    #[test]
    fn with_a_change_ids_stay_and_the_rest_is_open() {
        let config = value("m", Value::Null, [Value::Null, Value::Null], Value::Null);
        let prior = value("n", "soft".into(), ["1".into(), "s".into()], "o".into());
        let proposed = value("m", "soft".into(), ["1".into(), "s".into()], "o".into());
        let planned = propose(&schema(), &prior, &config, &proposed);
        assert_eq!(planned, value("m", "soft".into(), ["1".into(), Value::Unknown], Value::Unknown));
        assert_eq!(replaced(&schema(), &prior, &planned), [Path::root().attribute("name")]);
    }

    #[test]
    fn write_only_values_are_in_no_plan() {
        let with = |secret: Value| {
            let Value::Map(mut entries) = value("n", Value::Null, [Value::Null, Value::Null], Value::Null)
            else {
                unreachable!()
            };
            entries.insert("secret".into(), secret);
            Value::Map(entries)
        };
        let planned = propose(&schema(), &Value::Null, &with("hush".into()), &with("hush".into()));
        assert_eq!(planned.get("secret"), Some(&Value::Null));
    }
}
