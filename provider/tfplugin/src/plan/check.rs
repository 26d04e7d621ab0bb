//! Terraform's rules for plans and results, checked before Terraform does: it would blame the provider without saying where.
//!
//! The rules are those of Terraform's resource instance change lifecycle. A planned value is that of the configuration, or
//! the prior one where both are set, or free where the attribute is computed. A result is what was planned wherever that
//! was known, and nothing in it is unknown.

use std::collections::BTreeMap;

use super::{NULL, item, part};
use crate::schema::validate::brief;
use crate::schema::{Kind, Nesting};
use crate::{Attribute, Diagnostic, Diagnostics, Path, Schema, Step, Type, Value};

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

/// Whether a result agrees with its plan.
pub(crate) fn check_applied(
    type_name: &str,
    schema: &Schema,
    planned: &Value,
    actual: &Value,
) -> Diagnostics {
    let mut broken = Broken::new(type_name, schema, "returned");
    if matches!(actual, Value::Map(_)) {
        applied_object(&schema.attributes, planned, actual, &mut broken);
    } else {
        broken.report(planned, actual);
    }
    broken.found
}

/// Whether everything in a value is known.
pub(crate) fn check_known(type_name: &str, schema: &Schema, value: &Value) -> Diagnostics {
    let mut broken = Broken::new(type_name, schema, "returned");
    known(value, &mut broken);
    broken.found
}

/// What breaks the rules, and where we are looking.
struct Broken<'a> {
    type_name: &'a str,
    schema: &'a Schema,
    rule: &'a str,
    steps: Vec<Step>,
    found: Diagnostics,
}

impl<'a> Broken<'a> {
    fn new(type_name: &'a str, schema: &'a Schema, rule: &'a str) -> Self {
        Self { type_name, schema, rule, steps: vec![], found: Diagnostics::default() }
    }

    fn within(&mut self, step: Step, look: impl FnOnce(&mut Self)) {
        self.steps.push(step);
        look(self);
        self.steps.pop();
    }

    fn report(&mut self, expected: &Value, found: &Value) {
        self.report_text(expected, found, "");
    }

    fn report_text(&mut self, expected: &Value, found: &Value, more: &str) {
        let expected = format!("{}{more}", self.show(expected));
        self.report_due(&expected, found);
    }

    fn show(&self, value: &Value) -> String {
        let hidden = self.schema.hides(&Path::from_steps(&self.steps));
        if hidden { "a sensitive value".to_owned() } else { brief(value) }
    }

    fn report_due(&mut self, expected: &str, found: &Value) {
        let found = self.show(found);
        let Self { type_name, rule, .. } = self;
        let path = Path::from_steps(&self.steps);
        let place = if path.steps().is_empty() { "itself".to_owned() } else { format!("`{path}`") };
        self.found.push(
            Diagnostic::error("The provider contradicts itself")
                .detail(format!(
                    "{type_name} {rule} {found} for {place} where {expected} was due. This is a mistake in the provider; please report \
                     it."
                ))
                .at(path),
        );
    }
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
        // Everything in an object that is not known yet is not known yet.
        let config = if config.is_unknown() { config } else { part(config, name) };
        // Nearly always, and cheaper than to name the place.
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
    // Blocks are those of the configuration; only what is in them may be as before.
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
        // An element may be a mixture of what is configured and what was there before, so nothing tells which is which; blocks
        // that have become equal are one.
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

fn applied_object(
    attributes: &BTreeMap<String, Attribute>,
    planned: &Value,
    actual: &Value,
    broken: &mut Broken<'_>,
) {
    for (name, attribute) in attributes {
        let (planned, actual) = (part(planned, name), part(actual, name));
        if planned == actual && !planned.contains_unknown() {
            continue;
        }
        broken.within(Step::Attribute(name.clone()), |broken| match &attribute.kind {
            Kind::Plain(ty) => applied(ty, planned, actual, broken),
            Kind::Nested(nesting, nested) => {
                let attributes = &nested.attributes;
                elements(*nesting, planned, actual, broken, &mut |planned, actual, broken| match (
                    planned, actual,
                ) {
                    (Value::Map(_), Value::Map(_)) => applied_object(attributes, planned, actual, broken),
                    (Value::Unknown, _) => known(actual, broken),
                    _ if planned == actual => {}
                    _ => broken.report(planned, actual),
                });
            }
        });
    }
}

/// A value of a plain type.
fn applied(ty: &Type, planned: &Value, actual: &Value, broken: &mut Broken<'_>) {
    let same = |ty| {
        move |planned: &Value, actual: &Value, broken: &mut Broken<'_>| applied(ty, planned, actual, broken)
    };
    match (ty, planned, actual) {
        (_, Value::Dynamic(a), Value::Dynamic(b)) if a.0 == b.0 => applied(&a.0, &a.1, &b.1, broken),
        // A dynamic value of a type that is not known either may become anything.
        (_, planned, actual) if planned.is_unknown() => known(actual, broken),
        (Type::Dynamic, Value::Null, actual) => known(actual, broken),
        (Type::List(element), ..) => elements(Nesting::List, planned, actual, broken, &mut same(element)),
        (Type::Set(element), ..) => elements(Nesting::Set, planned, actual, broken, &mut same(element)),
        (Type::Map(element), ..) => elements(Nesting::Map, planned, actual, broken, &mut same(element)),
        (Type::Tuple(types), Value::List(a), Value::List(b))
            if a.len() == b.len() && a.len() == types.len() =>
        {
            for (index, (ty, (planned, actual))) in types.iter().zip(a.iter().zip(b)).enumerate() {
                broken.within(Step::Index(index), |broken| applied(ty, planned, actual, broken));
            }
        }
        (Type::Object(types), Value::Map(_), Value::Map(_)) => {
            for (name, ty) in types {
                broken.within(Step::Attribute(name.clone()), |broken| {
                    applied(ty, part(planned, name), part(actual, name), broken);
                });
            }
        }
        (_, planned, actual) if planned == actual => {}
        _ => broken.report(planned, actual),
    }
}

/// The elements of a collection, or the one object, each by `check`.
fn elements(
    nesting: Nesting,
    planned: &Value,
    actual: &Value,
    broken: &mut Broken<'_>,
    check: &mut dyn FnMut(&Value, &Value, &mut Broken<'_>),
) {
    match (nesting, planned, actual) {
        (_, planned, actual) if planned.is_unknown() => known(actual, broken),
        (Nesting::Single, ..) => check(planned, actual, broken),
        (Nesting::Map, Value::Map(a), Value::Map(b)) if a.keys().eq(b.keys()) => {
            for ((key, planned), actual) in a.iter().zip(b.values()) {
                broken.within(Step::Key(key.clone()), |broken| check(planned, actual, broken));
            }
        }
        (Nesting::List, Value::List(a), Value::List(b)) if a.len() == b.len() => {
            for (index, (planned, actual)) in a.iter().zip(b).enumerate() {
                broken.within(Step::Index(index), |broken| check(planned, actual, broken));
            }
        }
        // Elements that turned out to be equal have become one; new ones cannot come.
        (Nesting::Set, Value::List(a), Value::List(b)) if a.len() >= b.len() => {
            let mut fits = |planned: &Value, actual: &Value| {
                let mut apart = Broken::new(broken.type_name, broken.schema, broken.rule);
                check(planned, actual, &mut apart);
                apart.found.is_empty()
            };
            // Every planned element has become one, and every one was planned.
            let lost = a.iter().find(|planned| !b.iter().any(|actual| fits(planned, actual))).cloned();
            let new = b.iter().find(|actual| !a.iter().any(|planned| fits(planned, actual))).cloned();
            if lost.is_some() || new.is_some() {
                let (lost, new) = (lost.unwrap_or(Value::Null), new.unwrap_or(Value::Null));
                broken.report_text(&lost, &new, " as one of its elements");
            }
        }
        (_, planned, actual) if planned == actual => {}
        _ => broken.report(planned, actual),
    }
}

/// Reports the first thing in a value that is not known.
fn known(value: &Value, broken: &mut Broken<'_>) {
    match value {
        Value::Unknown => broken.report_due("a known value", value),
        Value::Dynamic(typed) => known(&typed.1, broken),
        Value::List(items) => {
            if let Some(index) = items.iter().position(Value::contains_unknown)
                && let Some(item) = items.get(index)
            {
                broken.within(Step::Index(index), |broken| known(item, broken));
            }
        }
        Value::Map(entries) => {
            if let Some((name, value)) = entries.iter().find(|(_, value)| value.contains_unknown()) {
                broken.within(Step::Attribute(name.clone()), |broken| known(value, broken));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::{map, nested, piece};

    fn schema() -> Schema {
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

    /// The value with nothing in it but these.
    fn value(entries: &[(&str, Value)]) -> Value {
        let mut all: BTreeMap<String, Value> =
            schema().attributes.keys().map(|name| (name.clone(), Value::Null)).collect();
        all.extend(entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Value::Map(all)
    }

    fn set(items: &[Value]) -> Value {
        Value::set(items.to_vec())
    }

    fn paths(found: &Diagnostics) -> Vec<String> {
        found.iter().map(|one| one.path.clone().unwrap_or_default().to_string()).collect()
    }

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

    #[track_caller]
    fn apply(planned: &[(&str, Value)], actual: &[(&str, Value)]) -> Vec<String> {
        paths(&check_applied("t", &schema(), &value(planned), &value(actual)))
    }

    #[test]
    fn a_result_keeps_what_was_planned_and_knows_everything() {
        let planned = [("set", "a".into()), ("out", Value::Unknown), ("both", "x".into())];
        let [set, _, both] = planned.clone();
        assert_eq!(apply(&planned, &[set.clone(), ("out", "o".into()), both.clone()]), FINE);
        assert_eq!(apply(&planned, &[set.clone(), both.clone()]), FINE, "unknown may become null");
        assert_eq!(apply(&planned, &[set.clone(), ("both", "y".into())]), ["both"]);
        assert_eq!(apply(&planned, &[set, ("out", Value::Unknown), both]), ["out"]);
        let open = [("any", Value::Unknown)];
        let typed = Value::List(vec![Value::Unknown]).into_dynamic();
        assert_eq!(apply(&open, &[("any", Value::from("x").into_dynamic())]), FINE);
        assert_eq!(apply(&open, &[("any", typed.clone())]), ["any[0]"]);
        assert_eq!(apply(&[("any", typed)], &[("any", Value::from("x").into_dynamic())]), ["any"]);
    }

    #[test]
    fn sets_may_shrink_when_elements_turn_out_to_be_equal_and_never_grow() {
        let open = [("tags", set(&[Value::Unknown, Value::Unknown, "a".into()]))];
        assert_eq!(apply(&open, &[("tags", set(&["a".into(), "b".into()]))]), FINE);
        assert_eq!(apply(&open, &[("tags", set(&["a".into()]))]), FINE);
        assert_eq!(apply(&open, &[("tags", set(&["b".into()]))]), ["tags"], "what was known is gone");
        let four = ["a", "b", "c", "d"].map(Value::from);
        assert_eq!(apply(&open, &[("tags", set(&four))]), ["tags"]);
        let bag = [("bag", set(&[piece("x", Value::Unknown)]))];
        assert_eq!(apply(&bag, &[("bag", set(&[piece("x", "1")]))]), FINE);
        assert_eq!(apply(&bag, &[("bag", set(&[piece("y", "1")]))]), ["bag"]);
    }

    #[test]
    fn what_is_read_is_known() {
        let found =
            check_known("t", &schema(), &value(&[("parts", map(&[("a", piece("x", Value::Unknown))]))]));
        assert_eq!(paths(&found), ["parts.a.out"]);
    }
}
