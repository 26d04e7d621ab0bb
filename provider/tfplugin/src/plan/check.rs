//! Terraform's rules for plans and results, checked before Terraform does: it would blame the provider without saying where.
//!
//! The rules are those of Terraform's resource instance change lifecycle. A planned value is that of the configuration, or
//! the prior one where both are set, or free where the attribute is computed. A result is what was planned wherever that
//! was known, and nothing in it is unknown.

use std::collections::BTreeMap;

use crate::schema::validate::brief;
use crate::schema::{Kind, Nesting};
use crate::{Attribute, Diagnostic, Diagnostics, Path, Schema, Value};

/// Whether a plan agrees with configuration and prior state.
pub(crate) fn check_planned(
    type_name: &str,
    schema: &Schema,
    prior: &Value,
    config: &Value,
    planned: &Value,
) -> Diagnostics {
    let mut broken = Broken { type_name, schema, rule: "planned", found: Diagnostics::default() };
    planned_object(&schema.attributes, prior, config, planned, &Path::root(), &mut broken);
    broken.found
}

/// Whether a result agrees with its plan.
pub(crate) fn check_applied(
    type_name: &str,
    schema: &Schema,
    planned: &Value,
    actual: &Value,
) -> Diagnostics {
    let mut broken = Broken { type_name, schema, rule: "returned", found: Diagnostics::default() };
    applied(planned, actual, &Path::root(), &mut broken);
    broken.found
}

struct Broken<'a> {
    type_name: &'a str,
    schema: &'a Schema,
    rule: &'a str,
    found: Diagnostics,
}

impl Broken<'_> {
    fn report(&mut self, path: &Path, expected: &Value, found: &Value) {
        let Self { type_name, schema, rule, .. } = self;
        let show = |value: &Value| {
            if schema.hides(path) { "a sensitive value".to_owned() } else { brief(value) }
        };
        self.found.push(
            Diagnostic::error("The provider contradicts itself")
                .detail(format!(
                    "{type_name} {rule} {} for `{path}` where {} was due. This is a mistake in the provider; please report it.",
                    show(found),
                    show(expected)
                ))
                .at(path.clone()),
        );
    }
}

fn planned_object(
    attributes: &BTreeMap<String, Attribute>,
    prior: &Value,
    config: &Value,
    planned: &Value,
    path: &Path,
    broken: &mut Broken<'_>,
) {
    let part = |value: &Value, name: &str| value.get(name).cloned().unwrap_or(Value::Null);
    for (name, attribute) in attributes {
        let (prior, config, planned) = (part(prior, name), part(config, name), part(planned, name));
        planned_attribute(attribute, &prior, &config, &planned, &path.clone().attribute(name), broken);
    }
}

fn planned_attribute(
    attribute: &Attribute,
    prior: &Value,
    config: &Value,
    planned: &Value,
    path: &Path,
    broken: &mut Broken<'_>,
) {
    if attribute.write_only {
        if !planned.is_null() {
            broken.report(path, &Value::Null, &Value::String("(sensitive)".to_owned()));
        }
        return;
    }
    let free = attribute.computed && (!attribute.optional || config.is_null());
    let as_before = planned == prior && !prior.is_null() && !config.is_null();
    if free || planned == config || as_before {
        return;
    }
    let Kind::Nested(nesting, nested) = &attribute.kind else {
        return broken.report(path, config, planned);
    };
    let inner = |prior: &Value, config: &Value, planned: &Value, path: &Path, broken: &mut Broken<'_>| {
        planned_object(&nested.attributes, prior, config, planned, path, broken);
    };
    match (nesting, config, planned) {
        (Nesting::Single, Value::Map(_), Value::Map(_)) => inner(prior, config, planned, path, broken),
        (Nesting::Map, Value::Map(configured), Value::Map(entries))
            if configured.keys().eq(entries.keys()) =>
        {
            for (key, planned) in entries {
                let part = |value: &Value| value.get(key).cloned().unwrap_or(Value::Null);
                inner(&part(prior), &part(config), planned, &path.clone().key(key), broken);
            }
        }
        (Nesting::List, Value::List(configured), Value::List(items)) if configured.len() == items.len() => {
            for (index, (config, planned)) in configured.iter().zip(items).enumerate() {
                let prior = match prior {
                    Value::List(items) => items.get(index).cloned().unwrap_or(Value::Null),
                    _ => Value::Null,
                };
                inner(&prior, config, planned, &path.clone().index(index), broken);
            }
        }
        // Elements of sets cannot be paired; their number is all that can be compared.
        (Nesting::Set, Value::List(configured), Value::List(items)) if configured.len() == items.len() => {}
        _ => broken.report(path, config, planned),
    }
}

fn applied(planned: &Value, actual: &Value, path: &Path, broken: &mut Broken<'_>) {
    match (planned, actual) {
        (_, Value::Unknown) => broken.report(path, planned, actual),
        (Value::Unknown, actual) if actual.contains_unknown() => broken.report(path, planned, actual),
        (Value::Unknown, _) => {}
        (Value::Map(a), Value::Map(b)) if a.keys().eq(b.keys()) => {
            for ((name, planned), actual) in a.iter().zip(b.values()) {
                applied(planned, actual, &path.clone().attribute(name), broken);
            }
        }
        (Value::List(a), Value::List(b)) if a.len() == b.len() => {
            for (index, (planned, actual)) in a.iter().zip(b).enumerate() {
                applied(planned, actual, &path.clone().index(index), broken);
            }
        }
        (Value::Dynamic(a), Value::Dynamic(b)) if a.0 == b.0 => applied(&a.1, &b.1, path, broken),
        (planned, actual) if planned == actual => {}
        (planned, actual) => broken.report(path, planned, actual),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        Schema::new(0)
            .attribute("set", Attribute::string().optional())
            .attribute("out", Attribute::string().computed())
            .attribute("both", Attribute::string().optional().computed())
    }

    fn value(set: &str, out: Value, both: Value) -> Value {
        Value::Map([("set".into(), set.into()), ("out".into(), out), ("both".into(), both)].into())
    }

    #[test]
    fn a_configured_value_cannot_be_planned_otherwise() {
        let config = value("a", Value::Null, Value::Null);
        let check = |planned: &Value| check_planned("t", &schema(), &Value::Null, &config, planned);
        assert!(check(&value("a", Value::Unknown, "x".into())).is_empty());
        let found = check(&value("b", Value::Unknown, "x".into()));
        let detail = &found.iter().next().unwrap().detail;
        assert!(detail.contains("t planned \"b\" for `set` where \"a\" was due"), "{detail}");
    }

    #[test]
    fn a_result_keeps_what_was_planned_and_knows_everything() {
        let planned = value("a", Value::Unknown, "x".into());
        assert!(check_applied("t", &schema(), &planned, &value("a", "o".into(), "x".into())).is_empty());
        assert!(check_applied("t", &schema(), &planned, &value("a", "o".into(), "y".into())).has_errors());
        assert!(
            check_applied("t", &schema(), &planned, &value("a", Value::Unknown, "x".into())).has_errors()
        );
    }
}
