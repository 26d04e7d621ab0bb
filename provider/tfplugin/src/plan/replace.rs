//! Which changes replace a resource.

use std::collections::BTreeMap;

use super::parts::part;
use crate::diagnostic::mistake;
use crate::schema::{Kind, Nesting};
use crate::{Attribute, Diagnostics, Path, Schema, Step, Value};

/// Attributes that differ and, by the schema, cannot be changed in place.
///
/// An element of a list or map that comes or goes is a change of the list or map, not of the element. A single object
/// that comes or goes is a change of each of its attributes. What is unknown may become anything: a plan that did not
/// replace, and then does when the value is known, is one that Terraform takes for a mistake of the provider.
pub(crate) fn replaced(schema: &Schema, prior: &Value, planned: &Value) -> Vec<Path> {
    let mut paths = vec![];
    if !prior.is_null() && !planned.is_null() {
        object(&schema.attributes, prior, planned, &Path::root(), &mut paths);
    }
    paths
}

fn object(
    attributes: &BTreeMap<String, Attribute>,
    prior: &Value,
    planned: &Value,
    path: &Path,
    found: &mut Vec<Path>,
) {
    for (name, attribute) in attributes {
        let (before, after) = (within(prior, name), within(planned, name));
        if before == after {
            continue;
        }
        let path = path.clone().attribute(name);
        if attribute.requires_replace {
            found.push(path);
            continue;
        }
        let Kind::Nested(nesting, nested) = &attribute.kind else {
            continue;
        };
        let attributes = &nested.attributes;
        match (nesting, before, after) {
            (Nesting::Single, ..) => object(attributes, before, after, &path, found),
            (Nesting::Map, Value::Map(before), after) => {
                for (key, before) in before.iter().filter(|(_, before)| !before.is_null()) {
                    if let Some(after) = element(after, after.get(key)) {
                        object(attributes, before, after, &path.clone().key(key), found);
                    }
                }
            }
            (Nesting::List, Value::List(before), after) => {
                for (index, before) in before.iter().enumerate().filter(|(_, before)| !before.is_null()) {
                    if let Some(after) = element(after, at(after, index)) {
                        object(attributes, before, after, &path.clone().index(index), found);
                    }
                }
            }
            // Elements of sets have no path. So the values of their fixed attributes, all together, must be the same
            // before and after.
            (Nesting::Set, Value::List(before), Value::List(after)) => {
                let fixed = |items: &[Value]| {
                    Value::set(items.iter().filter_map(|item| fixed_part(attributes, item)).collect())
                };
                if fixed(before) != fixed(after) {
                    found.push(path);
                }
            }
            (Nesting::Set, Value::List(_), Value::Unknown) if has_fixed_part(attributes) => found.push(path),
            _ => {}
        }
    }
}

/// The attribute `name` of an object: null where there is none, unknown where the object is.
fn within<'v>(value: &'v Value, name: &str) -> &'v Value {
    if value.is_unknown() { value } else { part(value, name) }
}

/// An element that exists, or one that may exist because the collection is unknown.
fn element<'v>(all: &'v Value, known: Option<&'v Value>) -> Option<&'v Value> {
    if all.is_unknown() { Some(all) } else { known.filter(|element| !element.is_null()) }
}

fn at(value: &Value, index: usize) -> Option<&Value> {
    match value {
        Value::List(items) => items.get(index),
        _ => None,
    }
}

/// Those attributes of an element that cannot be changed in place.
fn fixed_part(attributes: &BTreeMap<String, Attribute>, value: &Value) -> Option<Value> {
    let fixed = attributes.iter().filter(|(_, attribute)| attribute.requires_replace);
    let fixed: BTreeMap<_, _> = fixed.map(|(name, _)| (name.clone(), within(value, name).clone())).collect();
    (!fixed.is_empty()).then_some(Value::Map(fixed))
}

fn has_fixed_part(attributes: &BTreeMap<String, Attribute>) -> bool {
    attributes.values().any(|attribute| attribute.requires_replace)
}

/// Paths that lead nowhere in either value: Terraform refuses them.
pub(crate) fn check_paths(type_name: &str, paths: &[Path], prior: &Value, planned: &Value) -> Diagnostics {
    // Terraform does not look at the paths when it creates a resource.
    if prior.is_null() {
        return Diagnostics::default();
    }
    let lost = paths.iter().filter(|path| !leads(path, prior) && !leads(path, planned));
    lost.map(|path| {
        mistake(
            type_name,
            &format!("it wants to be replaced for `{path}`, which is in neither state nor plan"),
        )
    })
    .collect()
}

fn leads(path: &Path, value: &Value) -> bool {
    let mut here = value;
    for step in path.steps() {
        while let Value::Dynamic(typed) = here {
            here = &typed.1;
        }
        let next = match step {
            Step::Attribute(name) | Step::Key(name) => here.get(name),
            Step::Index(index) => match here {
                Value::List(items) => items.get(*index),
                _ => None,
            },
        };
        match next {
            Some(next) => here = next,
            // A path may lead anywhere below an unknown value.
            None => return here.is_unknown(),
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nested;

    fn disk(zone: &str, size: i64) -> Value {
        Value::Map([("zone".to_owned(), zone.into()), ("size".to_owned(), size.into())].into())
    }

    fn schema(attribute: fn(Nested) -> Attribute) -> Schema {
        let nested = Nested::new()
            .attribute("zone", Attribute::string().required().requires_replace())
            .attribute("size", Attribute::number().required());
        Schema::new(0).attribute("disks", attribute(nested).optional())
    }

    fn paths(attribute: fn(Nested) -> Attribute, before: Value, after: Value) -> Vec<String> {
        let state = |disks| Value::Map([("disks".to_owned(), disks)].into());
        let found = replaced(&schema(attribute), &state(before), &state(after));
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_change_below_a_map_list_or_set_is_found() {
        let map = |disk: Value| Value::Map([("a".to_owned(), disk)].into());
        let list = |disk: Value| Value::List(vec![disk]);
        let (old, grown, moved) = (disk("1", 1), disk("1", 2), disk("2", 1));
        assert_eq!(paths(Attribute::nested_map, map(old.clone()), map(grown.clone())), [""; 0]);
        assert_eq!(
            paths(Attribute::nested_map, map(old.clone()), map(moved.clone())),
            [r#"disks["a"].zone"#]
        );
        assert_eq!(paths(Attribute::nested_list, list(old.clone()), list(moved.clone())), ["disks[0].zone"]);
        assert_eq!(paths(Attribute::nested_set, list(old.clone()), list(grown)), [""; 0]);
        assert_eq!(paths(Attribute::nested_set, list(old.clone()), list(moved)), ["disks"]);
        assert_eq!(paths(Attribute::nested_map, map(old), Value::Map(BTreeMap::new())), [""; 0]);
    }

    #[test]
    fn what_is_unknown_may_become_what_cannot_be_changed_in_place() {
        let map = |disk: Value| Value::Map([("a".to_owned(), disk)].into());
        let list = |disk: Value| Value::List(vec![disk]);
        let (old, none) = (disk("1", 1), || Value::Map(BTreeMap::new()));
        let unknown = || Value::Unknown;
        assert_eq!(paths(Attribute::nested_single, old.clone(), unknown()), ["disks.zone"]);
        assert_eq!(paths(Attribute::nested_single, Value::Null, unknown()), ["disks.zone"]);
        for after in [unknown(), map(unknown())] {
            assert_eq!(paths(Attribute::nested_map, map(old.clone()), after), [r#"disks["a"].zone"#]);
        }
        for after in [unknown(), list(unknown())] {
            assert_eq!(paths(Attribute::nested_list, list(old.clone()), after), ["disks[0].zone"]);
        }
        for after in [unknown(), list(unknown())] {
            assert_eq!(paths(Attribute::nested_set, list(old.clone()), after), ["disks"]);
        }
        // There were no elements before, so whatever comes replaces nothing.
        for before in [Value::Null, none()] {
            assert_eq!(paths(Attribute::nested_map, before, unknown()), [""; 0]);
        }
    }

    #[test]
    fn an_object_that_comes_or_goes_changes_what_is_in_it() {
        assert_eq!(paths(Attribute::nested_single, Value::Null, disk("1", 1)), ["disks.zone"]);
        assert_eq!(paths(Attribute::nested_single, disk("1", 1), Value::Null), ["disks.zone"]);
        let without = Value::Map([("zone".to_owned(), Value::Null), ("size".to_owned(), 1i64.into())].into());
        assert_eq!(paths(Attribute::nested_single, Value::Null, without), [""; 0]);
    }

    #[test]
    fn a_path_that_leads_nowhere_is_a_mistake() {
        let state = Value::Map([("disks".to_owned(), Value::List(vec![disk("1", 1)]))].into());
        let good = Path::root().attribute("disks").index(0).attribute("zone");
        let bad = Path::root().attribute("disks").index(1).attribute("zone");
        let found = check_paths("t", &[good, bad], &state, &Value::Null);
        assert_eq!(found.iter().count(), 1);
        assert!(found.iter().next().unwrap().detail.contains("`disks[1].zone`"));
    }
}
