//! Runs a schema's checks over a configuration. What is not known yet passes: Terraform asks again when it is.
//!
//! Terraform itself refuses a required attribute that is not written, but not one that is null, as in `name = var.name`, and it
//! lets elements of every collection be null. Both are errors here, with the place, so that no model has to expect them.

use std::collections::BTreeMap;

use super::choice;
use super::group::Group;
use super::{Attribute, Kind, Nesting, Schema};
use crate::{Diagnostic, Diagnostics, Path, Type, Value};

impl Schema {
    /// Everything that is wrong with `config`. `write_only` tells whether the client keeps write-only values out of state.
    pub(crate) fn validate(&self, config: &Value, write_only: bool) -> Diagnostics {
        let mut found = Diagnostics::default();
        let context = Context { write_only, hidden: false };
        validate_object(&self.attributes, &self.groups, config, &Path::root(), context, &mut found);
        found
    }
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Context {
    /// The client keeps write-only values out of state.
    write_only: bool,
    /// Nothing in here may be shown.
    hidden: bool,
}

fn validate_object(
    attributes: &BTreeMap<String, Attribute>,
    groups: &[Group],
    config: &Value,
    path: &Path,
    context: Context,
    found: &mut Diagnostics,
) {
    // Of an object that is null or not known yet no attribute can be missing.
    if matches!(config, Value::Map(_)) {
        found.extend(groups.iter().filter_map(|group| choice::problem(group, attributes, config, path)));
    }
    for (name, attribute) in attributes {
        let Some(value) = config.get(name) else { continue };
        if value.is_unknown() {
            continue;
        }
        let path = path.clone().attribute(name);
        if value.is_null() {
            if attribute.required {
                let kind = attribute.ty();
                found.push(
                    Diagnostic::error(format!("`{path}` is missing"))
                        .detail(format!("Found null, expected {kind}."))
                        .at(path),
                );
            }
            continue;
        }
        let hidden = context.hidden || attribute.sensitive || attribute.write_only;
        if attribute.write_only && !context.write_only {
            found.push(
                Diagnostic::error("This version of Terraform would store a secret")
                    .detail(format!(
                        "`{path}` is write-only, which needs Terraform 1.11 or OpenTofu 1.11. Older ones keep it in state in clear."
                    ))
                    .at(path.clone()),
            );
        }
        for validator in &attribute.validators {
            if let Err(expected) = validator.check(value) {
                let shown = if hidden { "(sensitive)".to_owned() } else { brief(value) };
                found.push(
                    Diagnostic::error(format!("Invalid value for `{path}`"))
                        .detail(format!("Found {shown}, expected {expected}."))
                        .at(path.clone()),
                );
            }
        }
        if !attribute.null_elements {
            check_elements(&attribute.ty(), value, &path, found);
        }
        if let Kind::Nested(nesting, nested) = &attribute.kind {
            let mut inner = |value: &Value, path: &Path| {
                let context = Context { hidden, ..context };
                validate_object(&nested.attributes, &nested.groups, value, path, context, found);
            };
            match (nesting, value) {
                (Nesting::Single, value) => inner(value, &path),
                (_, Value::List(items)) => {
                    items.iter().enumerate().for_each(|(n, item)| inner(item, &path.clone().index(n)));
                }
                (_, Value::Map(entries)) => {
                    entries.iter().for_each(|(key, item)| inner(item, &path.clone().key(key)));
                }
                _ => {}
            }
        }
    }
}

/// Refuses null elements. Attributes of objects are no elements.
fn check_elements(ty: &Type, value: &Value, path: &Path, found: &mut Diagnostics) {
    let mut check = |element: &Type, value: &Value, path: Path| {
        if value.is_null() {
            found.push(
                Diagnostic::error(format!("`{path}` is null"))
                    .detail(format!(
                        "Found null, expected {element}. Leave it out where there is nothing, for example with `if` in a `for` expression."
                    ))
                    .at(path),
            );
        } else {
            check_elements(element, value, &path, found);
        }
    };
    match (ty, value) {
        (Type::List(element) | Type::Set(element), Value::List(items)) => {
            items.iter().enumerate().for_each(|(n, item)| check(element, item, path.clone().index(n)));
        }
        (Type::Map(element), Value::Map(entries)) => {
            entries.iter().for_each(|(key, item)| check(element, item, path.clone().key(key)));
        }
        _ => {}
    }
}

/// A value in few characters, for messages.
pub(crate) fn brief(value: &Value) -> String {
    let text = match value {
        Value::Null => "null".to_owned(),
        Value::Unknown => "a value known only after apply".to_owned(),
        Value::Bool(bool) => bool.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::List(items) => format!("a list of {}", items.len()),
        Value::Map(entries) => format!("an object of {}", entries.len()),
        Value::Dynamic(typed) => brief(&typed.1),
    };
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(schema: &Schema, values: [Value; 2]) -> Vec<String> {
        let [a, b] = values;
        let config = Value::Map([("a".to_owned(), a), ("b".to_owned(), b)].into());
        schema.validate(&config, true).into_iter().map(|found| found.summary).collect()
    }

    #[test]
    fn groups_say_what_is_missing_and_what_is_too_much() {
        let schema = Schema::new(0)
            .attribute("a", Attribute::string().optional())
            .attribute("b", Attribute::string().optional());
        let both = || ["x".into(), "y".into()];
        let none = || [Value::Null, Value::Null];
        let one = || [Value::Null, "y".into()];
        let open = || ["x".into(), Value::Unknown];

        let exactly = schema.clone().exactly_one_of(&["a", "b"]);
        assert_eq!(problems(&exactly, none()), ["One of `a`, `b` is missing"]);
        assert_eq!(problems(&exactly, both()), ["Only one of `a`, `b` can be set"]);
        let at_most = schema.clone().at_most_one_of(&["a", "b"]);
        assert_eq!(problems(&at_most, both()), ["Only one of `a`, `b` can be set"]);
        let at_least = schema.clone().at_least_one_of(&["a", "b"]);
        assert_eq!(problems(&at_least, none()), ["One of `a`, `b` is missing"]);
        let together = schema.all_or_none_of(&["a", "b"]);
        assert_eq!(problems(&together, one()), ["`a`, `b` belong together"]);

        for (schema, fine) in [
            (&exactly, one()),
            (&exactly, open()),
            (&at_most, none()),
            (&at_least, both()),
            (&together, open()),
        ] {
            assert_eq!(problems(schema, fine), Vec::<String>::new());
        }
    }

    #[test]
    fn groups_of_a_nested_object_are_told_with_its_place() {
        let nested = crate::Nested::new()
            .attribute("x", Attribute::string().optional())
            .attribute("y", Attribute::string().optional())
            .exactly_one_of(&["x", "y"]);
        let schema = Schema::new(0).attribute("a", Attribute::nested_map(nested).optional());
        let object = |x: Value, y: Value| Value::Map([("x".to_owned(), x), ("y".to_owned(), y)].into());
        let found = |value: Value| {
            let map = Value::Map([("k".to_owned(), value)].into());
            problems(&schema, [map, Value::Null])
        };
        assert_eq!(found(object(Value::Null, Value::Null)), [r#"One of `x`, `y` is missing in `a["k"]`"#]);
        assert_eq!(found(object("1".into(), "2".into())), [r#"Only one of `x`, `y` can be set in `a["k"]`"#]);
        for fine in [object("1".into(), Value::Null), object("1".into(), Value::Unknown), Value::Unknown] {
            assert_eq!(found(fine), [""; 0]);
        }
    }

    #[test]
    fn what_is_within_something_sensitive_is_not_shown() {
        let picky = Attribute::string().optional().validate(super::super::validators::one_of(&["good"]));
        let nested = crate::Nested::new().attribute("word", picky);
        let schema = Schema::new(0).attribute("a", Attribute::nested_single(nested).optional().sensitive());
        let word = Value::Map([("word".to_owned(), "hunter2".into())].into());
        let found = schema.validate(&Value::Map([("a".to_owned(), word)].into()), true);
        let text: String = found.into_iter().map(|one| one.detail).collect();
        assert!(text.contains("(sensitive)") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn blocks_that_are_not_there_are_not_set() {
        let block = || crate::Block::list(crate::Nested::new());
        let schema = Schema::new(0).block("a", block()).block("b", block()).exactly_one_of(&["a", "b"]);
        let blocks = |count| Value::List(vec![Value::Map(BTreeMap::new()); count]);
        assert_eq!(problems(&schema, [blocks(1), blocks(0)]), Vec::<String>::new());
        assert_eq!(problems(&schema, [blocks(0), blocks(0)]), ["One of `a`, `b` is missing"]);
        assert_eq!(problems(&schema, [blocks(1), blocks(2)]), ["Only one of `a`, `b` can be set"]);
    }
}
