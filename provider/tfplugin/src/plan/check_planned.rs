//! Terraform's rules for plans, checked before Terraform does: it would blame the provider without saying where.
//!
//! The rules are those of Terraform's resource instance change lifecycle. A planned value is that of the configuration,
//! or the prior one where both are set, or free where the attribute is computed.

use std::collections::BTreeMap;

use super::breach::Broken;
use super::parts::{NULL, item, part};
use crate::schema::{Kind, Nesting};
use crate::{Attribute, Diagnostics, Schema, Step, Value};

/// Whether a plan agrees with configuration and prior state.
pub(crate) fn check_planned(
    type_name: &str,
    schema: &Schema,
    prior: &Value,
    config: &Value,
    planned: &Value,
) -> Diagnostics {
    let mut broken = Broken::new(type_name, schema, "planned");
    if matches!(planned, Value::Map(_)) {
        planned_object(&schema.attributes, prior, config, planned, &mut broken);
    } else {
        broken.report(config, planned);
    }
    broken.found
}

fn planned_object(
    attributes: &BTreeMap<String, Attribute>,
    prior: &Value,
    config: &Value,
    planned: &Value,
    broken: &mut Broken<'_>,
) {
    for (name, attribute) in attributes {
        let (prior, planned) = (part(prior, name), part(planned, name));
        // The attributes of an unknown object are unknown.
        let config = if config.is_unknown() { config } else { part(config, name) };
        // This is so for nearly every attribute, and saves naming the place.
        if planned == config && !attribute.write_only {
            continue;
        }
        broken.within(Step::Attribute(name.clone()), |broken| {
            planned_attribute(attribute, prior, config, planned, broken);
        });
    }
}

fn planned_attribute(
    attribute: &Attribute,
    prior: &Value,
    config: &Value,
    planned: &Value,
    broken: &mut Broken<'_>,
) {
    if attribute.write_only {
        if !planned.is_null() {
            broken.report(&NULL, planned);
        }
        return;
    }
    let free = attribute.computed && (!attribute.optional || config.is_null());
    // A block must be as configured; only attributes in it may keep their prior value.
    let as_before = attribute.block.is_none() && planned == prior && !prior.is_null() && !config.is_null();
    if free || as_before {
        return;
    }
    let Kind::Nested(nesting, nested) = &attribute.kind else {
        let more = if prior.is_null() {
            String::new()
        } else {
            format!(" by the configuration, or {} as before", broken.show(prior))
        };
        return broken.report_text(config, planned, &more);
    };
    let attributes = &nested.attributes;
    match (nesting, config, planned) {
        (Nesting::Single, Value::Map(_) | Value::Unknown, Value::Map(_)) => {
            planned_object(attributes, prior, config, planned, broken);
        }
        (Nesting::Map, Value::Map(configured), Value::Map(entries))
            if configured.keys().eq(entries.keys()) =>
        {
            for ((key, planned), config) in entries.iter().zip(configured.values()) {
                let prior = part(prior, key);
                element(attributes, prior, config, planned, Step::Key(key.clone()), broken);
            }
        }
        (Nesting::List, Value::List(configured), Value::List(items)) if configured.len() == items.len() => {
            for (index, (config, planned)) in configured.iter().zip(items).enumerate() {
                element(attributes, item(prior, index), config, planned, Step::Index(index), broken);
            }
        }
        // An element may be a mixture of what is configured and what was there before, so nothing tells which is which;
        // blocks that have become equal are one.
        (Nesting::Set, Value::List(configured), Value::List(items))
            if attribute.block.is_some() || may_be_as_many(configured, items) => {}
        _ => broken.report(config, planned),
    }
}

/// Whether two sets may turn out to have the same number of elements: what is not known yet may turn out to be equal.
fn may_be_as_many(one: &[Value], other: &[Value]) -> bool {
    let least = |set: &[Value]| if set.iter().any(Value::contains_unknown) { 1 } else { set.len() };
    least(one) <= other.len() && least(other) <= one.len()
}

/// An element of a list or map.
fn element(
    attributes: &BTreeMap<String, Attribute>,
    prior: &Value,
    config: &Value,
    planned: &Value,
    step: Step,
    broken: &mut Broken<'_>,
) {
    if planned == config {
        return;
    }
    broken.within(step, |broken| match (config, planned) {
        (Value::Map(_) | Value::Unknown, Value::Map(_)) => {
            planned_object(attributes, prior, config, planned, broken);
        }
        _ => broken.report(config, planned),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::{everything as schema, map, paths, piece, set, value};

    #[track_caller]
    fn plan(prior: &Value, config: &[(&str, Value)], planned: &[(&str, Value)]) -> Vec<String> {
        paths(&check_planned("t", &schema(), prior, &value(config), &value(planned)))
    }

    const FINE: [String; 0] = [];

    #[test]
    fn a_configured_value_cannot_be_planned_otherwise() {
        let (none, a, b) = (Value::Null, [("set", "a".into())], [("set", "b".into())]);
        assert_eq!(plan(&none, &a, &[a[0].clone(), ("out", Value::Unknown), ("both", "x".into())]), FINE);
        assert_eq!(plan(&none, &a, &b), ["set"]);
        // The one licence: a spelling that means the same as before.
        assert_eq!(plan(&value(&b), &a, &b), FINE);
        assert_eq!(plan(&value(&[("set", "c".into())]), &a, &b), ["set"]);
        assert_eq!(plan(&none, &[], &a), ["set"], "not computed, so null stays null");
        assert_eq!(plan(&none, &a, &[("set", Value::Unknown)]), ["set"], "known stays known");
        assert_eq!(plan(&none, &[("set", Value::Unknown)], &a), ["set"], "unknown stays unknown");
        assert_eq!(plan(&value(&a), &a, &[]), ["set"], "set stays set");
    }

    #[test]
    fn a_breach_names_type_place_and_both_values() {
        let found = check_planned(
            "t",
            &schema(),
            &Value::Null,
            &value(&[("set", "a".into()), ("secret", "hush".into())]),
            &value(&[("set", "b".into()), ("secret", "else".into())]),
        );
        let text = found.iter().map(|one| one.detail.clone()).collect::<String>();
        assert!(text.contains("t planned \"b\" for `set` where \"a\" was due"), "{text}");
        assert!(text.contains("`secret`") && !text.contains("hush") && !text.contains("else"), "{text}");
    }

    #[test]
    fn nested_elements_keep_their_keys_and_what_the_user_wrote() {
        let parts = |entries: &[(&str, Value)]| [("parts", map(entries))];
        let config = parts(&[("a", piece("x", Value::Null))]);
        let none = Value::Null;
        assert_eq!(plan(&none, &config, &parts(&[("a", piece("x", Value::Unknown))])), FINE);
        assert_eq!(plan(&none, &config, &parts(&[("a", piece("y", "o"))])), [r#"parts["a"].in"#]);
        assert_eq!(plan(&none, &config, &parts(&[("b", piece("x", "o"))])), ["parts"]);
        assert_eq!(plan(&none, &config, &[("parts", Value::Unknown)]), ["parts"]);
        assert_eq!(plan(&none, &config, &parts(&[("a", Value::Unknown)])), [r#"parts["a"]"#]);
        let rows = |items: &[Value]| [("rows", Value::List(items.to_vec()))];
        let config = rows(&[piece("x", Value::Null)]);
        assert_eq!(plan(&none, &config, &rows(&[piece("x", "o")])), FINE);
        assert_eq!(plan(&none, &config, &rows(&[])), ["rows"]);
        assert_eq!(plan(&none, &config, &rows(&[piece("y", "o")])), ["rows[0].in"]);
    }

    #[test]
    fn elements_of_sets_are_as_many_as_are_configured() {
        let bag = |items: &[Value]| [("bag", set(items))];
        let config = bag(&[piece("x", Value::Null), piece("y", Value::Null)]);
        let none = Value::Null;
        assert_eq!(plan(&none, &config, &bag(&[piece("y", "1"), piece("x", Value::Unknown)])), FINE);
        // Part of what was there before may stay beside part of what is configured.
        assert_eq!(plan(&none, &config, &bag(&[piece("old x", "1"), piece("y", "2")])), FINE);
        assert_eq!(plan(&none, &config, &bag(&[piece("x", "1")])), ["bag"]);
        let open = bag(&[piece("x", Value::Null), Value::Unknown]);
        assert_eq!(plan(&none, &open, &bag(&[piece("x", "1")])), FINE, "two may turn out to be one");
        let tags = |items: &[&str]| [("tags", set(&items.iter().map(|t| (*t).into()).collect::<Vec<_>>()))];
        assert_eq!(plan(&none, &tags(&["a", "b"]), &tags(&["b", "a"])), FINE);
        assert_eq!(plan(&none, &tags(&["a"]), &tags(&["b"])), ["tags"]);
    }

    #[test]
    fn write_only_values_are_never_planned() {
        assert_eq!(plan(&Value::Null, &[("hidden", "x".into())], &[("hidden", "x".into())]), ["hidden"]);
        assert_eq!(plan(&Value::Null, &[("hidden", "x".into())], &[]), FINE);
    }
}
