//! Values that mean the same as before keep the spelling that they had: another one would be a change that nobody has
//! made.

use std::collections::BTreeMap;

use super::parts::{item, part};
use crate::schema::{Kind, Nesting};
use crate::{Attribute, Schema, Value};

/// `value`, in which every attribute that means the same as in `before` is as there, by what the schema says of it
/// ([`Attribute::same_if`]).
///
/// Elements of sets have no place, so nothing tells which element was which before.
pub(crate) fn keep_spelling(schema: &Schema, value: Value, before: &Value) -> Value {
    object(&schema.attributes, value, before)
}

fn object(attributes: &BTreeMap<String, Attribute>, value: Value, before: &Value) -> Value {
    let Value::Map(mut entries) = value else {
        return value;
    };
    for (name, definition) in attributes {
        if let Some(value) = entries.get_mut(name) {
            let old = std::mem::replace(value, Value::Null);
            *value = attribute(definition, old, part(before, name));
        }
    }
    Value::Map(entries)
}

fn attribute(definition: &Attribute, value: Value, before: &Value) -> Value {
    if definition.same.as_ref().is_some_and(|same| same.holds(&value, before)) {
        return before.clone();
    }
    let Kind::Nested(nesting, nested) = &definition.kind else {
        return value;
    };
    let inner = |value: Value, before: &Value| object(&nested.attributes, value, before);
    match (nesting, value) {
        (Nesting::Single, value) => inner(value, before),
        (Nesting::Map, Value::Map(entries)) => {
            let entries = entries.into_iter().map(|(key, value)| {
                let value = inner(value, part(before, &key));
                (key, value)
            });
            Value::Map(entries.collect())
        }
        (Nesting::List, Value::List(items)) => {
            let items = items.into_iter().enumerate();
            Value::List(items.map(|(index, value)| inner(value, item(before, index))).collect())
        }
        (_, value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nested;
    use crate::plan::propose;
    use crate::plan::sample::map;

    fn word() -> Attribute {
        Attribute::string().optional().same_if(|a: &String, b: &String| a.eq_ignore_ascii_case(b))
    }

    fn schema() -> Schema {
        Schema::new(0)
            .attribute("word", word())
            .attribute("words", Attribute::nested_map(Nested::new().attribute("word", word())).optional())
            .attribute("stamp", Attribute::string().computed())
    }

    fn value(word: Value, inner: &str, stamp: impl Into<Value>) -> Value {
        let words = map(&[("k", map(&[("word", inner.into())]))]);
        map(&[("word", word), ("words", words), ("stamp", stamp.into())])
    }

    #[test]
    fn another_spelling_is_no_change() {
        let before = value("Tea".into(), "Pot", "s");
        let read = keep_spelling(&schema(), value("TEA".into(), "pot", "s"), &before);
        assert_eq!(read, before);
        for other in [Value::Null, Value::Unknown, "coffee".into()] {
            let read = keep_spelling(&schema(), value(other.clone(), "pot", "s"), &before);
            assert_eq!(read, value(other, "Pot", "s"));
        }
    }

    #[test]
    fn another_spelling_in_the_configuration_plans_nothing() {
        let before = value("Tea".into(), "Pot", "s");
        let config = value("TEA".into(), "pot", Value::Null);
        let proposed = value("TEA".into(), "pot", "s");
        assert_eq!(propose(&schema(), &before, &config, &proposed), before);
        let broken = crate::plan::check_planned("t", &schema(), &before, &config, &before);
        assert!(broken.is_empty(), "Terraform lets a plan keep what is in the state: {broken:?}");
    }
}
