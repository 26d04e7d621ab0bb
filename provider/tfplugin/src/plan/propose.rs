//! The plan that a schema alone leads to, from what Terraform proposes: [`Resource::plan`](crate::Resource::plan)
//! starts with it.
//!
//! Terraform's proposal has the configuration's values, and prior values for computed attributes. On top of that:
//! defaults, no write-only values, and, where anything changes, every computed value without a configuration is
//! unknown.

use std::collections::BTreeMap;

use super::pair::{derives, pairs};
use super::parts::{NULL, item, part};
use super::spelling::keep_spelling;
use crate::schema::{Kind, Nesting};
use crate::{Attribute, Schema, Value};

/// The proposal a resource sees. `prior` is null on create.
pub(crate) fn propose(schema: &Schema, prior: &Value, config: &Value, proposed: &Value) -> Value {
    let with_defaults = object(&schema.attributes, config, proposed, prior, Phase::Defaults);
    let with_defaults = keep_spelling(schema, with_defaults, prior);
    if &with_defaults == prior {
        return with_defaults;
    }
    object(&schema.attributes, config, &with_defaults, prior, Phase::Unknowns)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Defaults,
    Unknowns,
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
    let entries = entries.iter().map(|(name, value)| {
        let value = match attributes.get(name) {
            Some(definition) => attribute(definition, part(config, name), value, part(prior, name), phase),
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
    if config.is_null() {
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
    let attributes = &nested.attributes;
    let inner =
        |config: &Value, proposed: &Value, prior: &Value| object(attributes, config, proposed, prior, phase);
    match (nesting, proposed) {
        (Nesting::Single, Value::Map(_)) => inner(config, proposed, prior),
        (Nesting::Map, Value::Map(entries)) => {
            let entries = entries
                .iter()
                .map(|(key, value)| (key.clone(), inner(part(config, key), value, part(prior, key))));
            Value::Map(entries.collect())
        }
        (Nesting::List, Value::List(items)) => {
            let items = items.iter().enumerate();
            let items = items.map(|(index, value)| inner(item(config, index), value, item(prior, index)));
            Value::List(items.collect())
        }
        (Nesting::Set, Value::List(items)) => {
            let (Value::List(configs), priors) = (config, prior) else {
                return proposed.clone();
            };
            let origins = pairs(attributes, configs, items);
            let items = items.iter().zip(origins).map(|(value, origin)| {
                // An element that derives from no configured one is planned as Terraform proposed it.
                let Some(config) = origin.and_then(|index| configs.get(index)) else {
                    return value.clone();
                };
                let before = match priors {
                    Value::List(priors) => priors.iter().find(|prior| derives(attributes, config, prior)),
                    _ => None,
                };
                inner(config, value, before.unwrap_or(&NULL))
            });
            Value::set(items.collect())
        }
        _ => proposed.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Path;
    use crate::plan::replaced;
    use crate::plan::sample::{self, map};

    fn schema() -> Schema {
        let nested =
            || sample::nested().attribute("kept", Attribute::string().computed().use_state_for_unknown());
        Schema::new(0)
            .attribute("id", Attribute::string().computed().use_state_for_unknown())
            .attribute("name", Attribute::string().required().requires_replace())
            .attribute("mode", Attribute::string().optional().computed().default("soft"))
            .attribute("secret", Attribute::string().optional().write_only())
            .attribute("stamp", Attribute::string().computed())
            .attribute("parts", Attribute::nested_map(nested()).optional())
            .attribute("bag", Attribute::nested_set(nested()).optional())
    }

    fn piece(name: &str, computed: &Value) -> Value {
        map(&[("in", name.into()), ("out", computed.clone()), ("kept", computed.clone())])
    }

    fn value(name: &str, mode: Value, computed: [Value; 2], part: &Value) -> Value {
        let [id, stamp] = computed;
        map(&[
            ("id", id),
            ("name", name.into()),
            ("mode", mode),
            ("secret", Value::Null),
            ("stamp", stamp),
            ("parts", map(&[("a", piece("x", part))])),
            ("bag", Value::set(vec![piece("x", part), piece("y", part)])),
        ])
    }

    #[test]
    fn a_create_knows_defaults_and_nothing_computed() {
        let config = value("n", Value::Null, [Value::Null, Value::Null], &Value::Null);
        let planned = propose(&schema(), &Value::Null, &config, &config);
        assert_eq!(planned, value("n", "soft".into(), [Value::Unknown, Value::Unknown], &Value::Unknown));
    }

    #[test]
    fn without_a_change_nothing_becomes_unknown() {
        let config = value("n", Value::Null, [Value::Null, Value::Null], &Value::Null);
        let prior = value("n", "soft".into(), ["1".into(), "s".into()], &"o".into());
        assert_eq!(propose(&schema(), &prior, &config, &prior), prior);
    }

    #[test]
    fn with_a_change_ids_stay_and_the_rest_is_open() {
        let config = value("m", Value::Null, [Value::Null, Value::Null], &Value::Null);
        let prior = value("n", "soft".into(), ["1".into(), "s".into()], &"o".into());
        let proposed = value("m", "soft".into(), ["1".into(), "s".into()], &"o".into());
        let planned = propose(&schema(), &prior, &config, &proposed);
        let open = map(&[("in", "x".into()), ("out", Value::Unknown), ("kept", "o".into())]);
        assert_eq!(planned.get("id"), Some(&"1".into()));
        assert_eq!(planned.get("stamp"), Some(&Value::Unknown));
        assert_eq!(planned.get("parts").and_then(|parts| parts.get("a")), Some(&open));
        assert_eq!(replaced(&schema(), &prior, &planned), [Path::root().attribute("name")]);
    }

    #[test]
    fn an_element_of_a_set_keeps_what_it_had() {
        let config = value("n", Value::Null, [Value::Null, Value::Null], &Value::Null);
        let prior = value("n", "soft".into(), ["1".into(), "s".into()], &"o".into());
        let mut config = config;
        let Value::Map(entries) = &mut config else { unreachable!() };
        // One element goes, one comes: the one that stays is known by what the user wrote.
        entries.insert("bag".into(), Value::set(vec![piece("y", &Value::Null), piece("z", &Value::Null)]));
        let mut proposed = prior.clone();
        let Value::Map(entries) = &mut proposed else { unreachable!() };
        entries.insert("bag".into(), Value::set(vec![piece("y", &"o".into()), piece("z", &Value::Null)]));
        let planned = propose(&schema(), &prior, &config, &proposed);
        let stays = map(&[("in", "y".into()), ("out", Value::Unknown), ("kept", "o".into())]);
        assert_eq!(planned.get("bag"), Some(&Value::set(vec![stays, piece("z", &Value::Unknown)])));
    }

    #[test]
    fn write_only_values_are_in_no_plan() {
        let with = |secret: Value| {
            let mut value = value("n", Value::Null, [Value::Null, Value::Null], &Value::Null);
            let Value::Map(entries) = &mut value else { unreachable!() };
            entries.insert("secret".into(), secret);
            value
        };
        let planned = propose(&schema(), &Value::Null, &with("hush".into()), &with("hush".into()));
        assert_eq!(planned.get("secret"), Some(&Value::Null));
    }
}
