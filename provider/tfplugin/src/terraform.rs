//! Terraform Core's own part in a resource's life, as pure functions: what it sends, and what it accepts.

use std::collections::BTreeMap;

use crate::plan::{NULL, derives, item, normal_form, normalized_type, part};
use crate::schema::{Kind, Nesting};
use crate::{Attribute, Diagnostic, Diagnostics, Path, Schema, Step, Type, Value};

/// A configuration as Terraform sends it: every attribute is there, in the schema's type. What Terraform itself refuses is an
/// error.
pub(crate) fn conform(schema: &Schema, config: &Value) -> Result<Value, Diagnostics> {
    let mut found = Diagnostics::default();
    let value = object(&schema.attributes, &normal(config), &Path::root(), &mut found);
    if found.has_errors() { Err(found) } else { Ok(value) }
}

/// With all strings in Unicode's normal form C.
fn normal(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(normal_form(text.clone())),
        Value::List(items) => Value::List(items.iter().map(normal).collect()),
        Value::Map(entries) => {
            Value::Map(entries.iter().map(|(key, value)| (normal_form(key.clone()), normal(value))).collect())
        }
        dynamic @ Value::Dynamic(_) => normalized_type(&Type::Dynamic, dynamic.clone()),
        value => value.clone(),
    }
}

fn object(
    attributes: &BTreeMap<String, Attribute>,
    config: &Value,
    path: &Path,
    found: &mut Diagnostics,
) -> Value {
    let Value::Map(entries) = config else {
        return config.clone();
    };
    for name in entries.keys().filter(|name| !attributes.contains_key(*name)) {
        found.push(Diagnostic::error("Unsupported argument").at(path.clone().attribute(name)));
    }
    let entries = attributes.iter().map(|(name, definition)| {
        let path = path.clone().attribute(name);
        // Terraform refuses what is not written; whether it may be null is for the provider to say.
        if definition.required && !entries.contains_key(name) {
            found.push(Diagnostic::error("Missing required argument").at(path.clone()));
        }
        (name.clone(), attribute(definition, part(config, name), &path, found))
    });
    Value::Map(entries.collect())
}

fn attribute(definition: &Attribute, config: &Value, path: &Path, found: &mut Diagnostics) -> Value {
    if definition.computed && !definition.optional && !config.is_null() {
        found.push(Diagnostic::error("Value for unconfigurable attribute").at(path.clone()));
    }
    let Kind::Nested(nesting, nested) = &definition.kind else {
        return convert(&definition.ty(), config, path, found);
    };
    let mut inner = |value: &Value, path: Path| object(&nested.attributes, value, &path, found);
    match (nesting, config) {
        (Nesting::List | Nesting::Set, Value::Null) if definition.block.is_some() => Value::List(vec![]),
        (Nesting::Single, value) => inner(value, path.clone()),
        (Nesting::Map, Value::Map(entries)) => Value::Map(
            entries.iter().map(|(key, value)| (key.clone(), inner(value, path.clone().key(key)))).collect(),
        ),
        (Nesting::List, Value::List(items)) => Value::List(
            items.iter().enumerate().map(|(n, value)| inner(value, path.clone().index(n))).collect(),
        ),
        (Nesting::Set, Value::List(items)) => {
            Value::set(items.iter().map(|value| inner(value, path.clone())).collect())
        }
        (_, value) => value.clone(),
    }
}

/// A value of a plain type, with Terraform's conversions between primitive types.
pub(crate) fn convert(ty: &Type, value: &Value, path: &Path, found: &mut Diagnostics) -> Value {
    match (ty, value) {
        (_, Value::Null | Value::Unknown)
        | (Type::String, Value::String(_))
        | (Type::Number, Value::Number(_))
        | (Type::Bool, Value::Bool(_)) => value.clone(),
        (Type::Dynamic, value) => value.clone().into_dynamic(),
        (Type::String, Value::Number(number)) => number.to_string().into(),
        (Type::String, Value::Bool(bool)) => bool.to_string().into(),
        (Type::List(element), Value::List(items)) => {
            Value::List(items.iter().map(|item| convert(element, item, path, found)).collect())
        }
        (Type::Set(element), Value::List(items)) => {
            Value::set(items.iter().map(|item| convert(element, item, path, found)).collect())
        }
        (Type::Map(element), Value::Map(entries)) => Value::Map(
            entries.iter().map(|(key, item)| (key.clone(), convert(element, item, path, found))).collect(),
        ),
        (Type::Object(types), Value::Map(_)) => Value::Map(
            types
                .iter()
                .map(|(name, ty)| (name.clone(), convert(ty, part(value, name), path, found)))
                .collect(),
        ),
        (Type::Tuple(types), Value::List(items)) if types.len() == items.len() => {
            Value::List(types.iter().zip(items).map(|(ty, item)| convert(ty, item, path, found)).collect())
        }
        _ => {
            found.push(
                Diagnostic::error("Incorrect attribute value type")
                    .detail(format!("Expected {ty}."))
                    .at(path.clone()),
            );
            Value::Null
        }
    }
}

/// What Terraform proposes as the new state: the configuration, with prior values where computed attributes are not set.
///
/// The rules are those of `ProposedNew` in OpenTofu's `internal/plans/objchange`, written anew.
pub(crate) fn proposed_new(schema: &Schema, prior: &Value, config: &Value) -> Value {
    proposed_object(&schema.attributes, prior, config)
}

fn proposed_object(attributes: &BTreeMap<String, Attribute>, prior: &Value, config: &Value) -> Value {
    if !matches!(config, Value::Map(_)) {
        return config.clone();
    }
    let entries = attributes.iter().map(|(name, attribute)| {
        (name.clone(), proposed_attribute(attribute, part(prior, name), part(config, name)))
    });
    Value::Map(entries.collect())
}

fn proposed_attribute(attribute: &Attribute, prior: &Value, config: &Value) -> Value {
    if attribute.computed && config.is_null() {
        // What the user had set, and has not any more, is not kept.
        return if attribute.optional && was_configured(attribute, prior) {
            Value::Null
        } else {
            prior.clone()
        };
    }
    let Kind::Nested(nesting, nested) = &attribute.kind else {
        return config.clone();
    };
    let attributes = &nested.attributes;
    let inner = |prior: &Value, config: &Value| {
        if prior.is_null() { config.clone() } else { proposed_object(attributes, prior, config) }
    };
    match (nesting, config) {
        (Nesting::Single, Value::Map(_)) => proposed_object(attributes, prior, config),
        (Nesting::Map, Value::Map(entries)) => Value::Map(
            entries.iter().map(|(key, config)| (key.clone(), inner(part(prior, key), config))).collect(),
        ),
        (Nesting::List, Value::List(items)) => Value::List(
            items.iter().enumerate().map(|(index, config)| inner(item(prior, index), config)).collect(),
        ),
        (Nesting::Set, Value::List(items)) => {
            let mut free = match prior {
                Value::List(priors) => as_visited(priors),
                _ => vec![],
            };
            let mut paired = |config: &Value| {
                let place = free.iter().position(|prior| derives(attributes, config, prior));
                inner(place.map_or(&NULL, |place| free.remove(place)), config)
            };
            Value::set(as_visited(items).into_iter().map(&mut paired).collect())
        }
        (_, config) => config.clone(),
    }
}

/// Elements of a set in the order in which Terraform visits them: where two derive from the same prior element, the first gets it.
fn as_visited(items: &[Value]) -> Vec<&Value> {
    let mut sorted: Vec<&Value> = items.iter().collect();
    sorted.sort_by_cached_key(|item| written(item));
    sorted
}

/// The text by which Terraform's library `cty` orders objects (`makeSetHashBytes`).
fn written(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Unknown => "?".to_owned(),
        Value::Bool(bool) => if *bool { "T" } else { "F" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::List(items) => {
            format!("[{}]", items.iter().map(|item| written(item) + ";").collect::<String>())
        }
        Value::Map(entries) => {
            format!("<{}>", entries.values().map(|value| written(value) + ";").collect::<String>())
        }
        Value::Dynamic(typed) => written(&typed.1),
    }
}

/// Whether a nested value has something in it that only a user can have set.
fn was_configured(attribute: &Attribute, value: &Value) -> bool {
    let Kind::Nested(nesting, nested) = &attribute.kind else {
        return false;
    };
    let inner = |value: &Value| {
        nested.attributes.iter().any(|(name, attribute)| {
            let value = part(value, name);
            !value.is_null() && (!attribute.computed || was_configured(attribute, value))
        })
    };
    match (nesting, value) {
        (Nesting::Single, value) => inner(value),
        (_, Value::Map(entries)) => entries.values().any(inner),
        (_, Value::List(items)) => items.iter().any(inner),
        _ => false,
    }
}

/// Write-only attributes that have a value, where none may be.
pub(crate) fn write_only(schema: &Schema, value: &Value) -> Vec<String> {
    let mut found = vec![];
    hidden(&schema.attributes, value, &Path::root(), &mut found);
    found
}

fn hidden(attributes: &BTreeMap<String, Attribute>, value: &Value, path: &Path, found: &mut Vec<String>) {
    for (name, attribute) in attributes {
        // Whatever is in an object that is unknown is unknown.
        let value = if value.is_unknown() { value } else { part(value, name) };
        let path = path.clone().attribute(name);
        if attribute.write_only && !value.is_null() {
            found.push(path.to_string());
        }
        let Kind::Nested(nesting, nested) = &attribute.kind else {
            continue;
        };
        match (nesting, value) {
            (Nesting::Single, value) => hidden(&nested.attributes, value, &path, found),
            (_, Value::Map(entries)) => {
                entries.values().for_each(|value| hidden(&nested.attributes, value, &path, found));
            }
            (_, Value::List(items)) => {
                items.iter().for_each(|value| hidden(&nested.attributes, value, &path, found));
            }
            _ => {}
        }
    }
}

/// The first place in which a later plan does not keep what an earlier one promised: what was known is the same.
pub(crate) fn broken_promise(earlier: &Value, later: &Value, path: &Path) -> Option<Path> {
    match (earlier, later) {
        (earlier, _) if earlier.is_unknown() => None,
        (Value::Map(a), Value::Map(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            names.into_iter().find_map(|name| match (a.get(name), b.get(name)) {
                (Some(a), Some(b)) => broken_promise(a, b, &path.clone().attribute(name)),
                _ => Some(path.clone().attribute(name)),
            })
        }
        (Value::List(a), Value::List(b)) if a.iter().any(Value::contains_unknown) => {
            // Elements of a set may have become equal, and stand in another order.
            let kept = b.len() <= a.len()
                && a.iter().all(|a| b.iter().any(|b| broken_promise(a, b, path).is_none()));
            (!kept).then(|| path.clone())
        }
        (Value::Dynamic(a), Value::Dynamic(b)) if a.0 == b.0 => broken_promise(&a.1, &b.1, path),
        // What has an unknown value in it has a type in which that value has none yet.
        (Value::Dynamic(a), Value::Dynamic(b)) if a.1.contains_unknown() => broken_promise(&a.1, &b.1, path),
        (earlier, later) => (earlier != later).then(|| path.clone()),
    }
}

/// What a path leads to. Below what is unknown everything is.
pub(crate) fn at<'v>(path: &Path, value: &'v Value) -> Option<&'v Value> {
    path.steps().iter().try_fold(value, |here, step| {
        let here = match here {
            Value::Dynamic(typed) => &typed.1,
            here => here,
        };
        match (step, here) {
            (_, here) if here.is_unknown() => Some(here),
            (Step::Attribute(name) | Step::Key(name), here) => here.get(name),
            (Step::Index(index), Value::List(items)) => items.get(*index),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::{map, nested, piece};

    fn schema() -> Schema {
        Schema::new(0)
            .attribute("name", Attribute::string().required())
            .attribute("id", Attribute::string().computed())
            .attribute("size", Attribute::string().optional())
            .attribute("both", Attribute::nested_single(nested()).optional().computed())
            .attribute("bag", Attribute::nested_set(nested()).optional())
    }

    #[test]
    fn a_configuration_is_completed_and_converted() {
        let config = conform(&schema(), &map(&[("name", "x".into()), ("size", 3i64.into())])).unwrap();
        assert_eq!(config.get("size"), Some(&"3".into()));
        assert_eq!(config.get("id"), Some(&Value::Null));
        let wrong = map(&[("id", "1".into()), ("else", true.into()), ("size", Value::List(vec![]))]);
        let found: Vec<_> =
            conform(&schema(), &wrong).unwrap_err().into_iter().map(|one| one.summary).collect();
        let expected = [
            "Unsupported argument",
            "Value for unconfigurable attribute",
            "Missing required argument",
            "Incorrect attribute value type",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_dynamic_value_is_normal_too() {
        let schema = Schema::new(0).attribute("any", Attribute::dynamic().optional());
        let any = |items: &[&str]| {
            let items = items.iter().map(|item| (*item).into()).collect();
            let typed = (Type::Set(Box::new(Type::String)), Value::List(items));
            map(&[("any", Value::Dynamic(Box::new(typed)))])
        };
        assert_eq!(conform(&schema, &any(&["f", "e\u{301}"])).unwrap(), any(&["f", "\u{e9}"]));
    }

    #[test]
    fn a_proposal_keeps_what_is_computed_and_drops_what_was_configured() {
        let prior = map(&[
            ("name", "x".into()),
            ("id", "1".into()),
            ("size", "3".into()),
            ("both", piece("a", "o")),
            ("bag", Value::set(vec![piece("a", "1"), piece("b", "2")])),
        ]);
        let bag = vec![piece("b", Value::Null), piece("c", Value::Null)];
        let config = conform(&schema(), &map(&[("name", "y".into()), ("bag", Value::List(bag))])).unwrap();
        let proposed = proposed_new(&schema(), &prior, &config);
        assert_eq!(proposed.get("name"), Some(&"y".into()));
        assert_eq!(proposed.get("id"), Some(&"1".into()));
        assert_eq!(proposed.get("size"), Some(&Value::Null));
        assert_eq!(proposed.get("both"), Some(&Value::Null), "the user had set it");
        let bag = Value::set(vec![piece("b", "2"), piece("c", Value::Null)]);
        assert_eq!(proposed.get("bag"), Some(&bag));
    }

    #[test]
    fn what_was_promised_is_kept() {
        let set = |items: &[Value]| Value::set(items.to_vec());
        let keeps = |a: &Value, b: &Value| broken_promise(a, b, &Path::root()).is_none();
        assert!(keeps(&Value::Unknown, &"x".into()));
        assert!(keeps(&set(&["a".into(), Value::Unknown]), &set(&["a".into()])));
        assert!(!keeps(&set(&["a".into(), Value::Unknown]), &set(&["b".into()])));
        assert!(!keeps(&map(&[("a", "x".into())]), &map(&[("a", Value::Unknown)])));
    }
}
