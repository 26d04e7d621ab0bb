//! Terraform's rules for results, checked before Terraform does.
//!
//! A result is what was planned wherever that was known, and nothing in it is unknown.

use std::collections::BTreeMap;

use super::breach::Broken;
use super::parts::part;
use crate::schema::{Kind, Nesting};
use crate::{Attribute, Diagnostics, Schema, Step, Type, Value};

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
        // Elements that turned out to be equal have become one, so there may be fewer than planned, but not more.
        (Nesting::Set, Value::List(a), Value::List(b)) if a.len() >= b.len() => {
            let mut fits = |planned: &Value, actual: &Value| {
                let mut apart = Broken::new(broken.type_name, broken.schema, broken.rule);
                check(planned, actual, &mut apart);
                apart.found.is_empty()
            };
            // Every planned element must have become an actual one, and every actual one must have been planned.
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
    use crate::plan::sample::{everything as schema, map, paths, piece, set, value};

    const FINE: [String; 0] = [];

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
