//! The one form of a value among all that mean the same. Differences in spelling only are removed here, from whatever a
//! resource answers, so that resources never see them.

use std::collections::BTreeMap;

use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

use crate::schema::{Kind, Nesting};
use crate::{Attribute, Schema, Type, Value};

/// Write-only values are null, strings are in Unicode's normal form C as Terraform has them, elements of sets are in an
/// order of their own and each there once, and blocks that are not there are an empty list.
///
/// An object that is unknown as a whole has an unknown value in each attribute, the write-only ones among them, which
/// Terraform refuses. It becomes an object in which everything else is unknown.
pub(crate) fn normalized(schema: &Schema, value: Value) -> Value {
    object(&schema.attributes, value)
}

fn object(attributes: &BTreeMap<String, Attribute>, value: Value) -> Value {
    let entries = match value {
        Value::Map(entries) => entries,
        Value::Unknown if hide_something(attributes) => {
            attributes.keys().map(|name| (name.clone(), Value::Unknown)).collect()
        }
        value => return value,
    };
    let entries = entries.into_iter().map(|(name, value)| match attributes.get(&name) {
        Some(definition) => (name, attribute(definition, value)),
        None => (name, value),
    });
    Value::Map(entries.collect())
}

fn attribute(definition: &Attribute, value: Value) -> Value {
    if definition.write_only {
        return Value::Null;
    }
    let Kind::Nested(nesting, nested) = &definition.kind else {
        return normalized_type(&definition.ty(), value);
    };
    let inner = |value| object(&nested.attributes, value);
    match (nesting, value) {
        (Nesting::Single, value) => inner(value),
        (Nesting::List | Nesting::Set, Value::Null) if definition.block.is_some() => Value::List(vec![]),
        (Nesting::List, Value::List(items)) => Value::List(items.into_iter().map(inner).collect()),
        (Nesting::Set, Value::List(items)) => Value::set(items.into_iter().map(inner).collect()),
        (Nesting::Map, Value::Map(entries)) => {
            Value::Map(entries.into_iter().map(|(key, value)| (normal_form(key), inner(value))).collect())
        }
        (_, value) => value,
    }
}

/// Whether there are write-only attributes, on any level of single objects.
fn hide_something(attributes: &BTreeMap<String, Attribute>) -> bool {
    attributes.values().any(|attribute| {
        let inner = match &attribute.kind {
            Kind::Nested(Nesting::Single, nested) => hide_something(&nested.attributes),
            _ => false,
        };
        attribute.write_only || inner
    })
}

/// The same for a value of a plain type.
pub(crate) fn normalized_type(ty: &Type, value: Value) -> Value {
    match (ty, value) {
        (_, Value::String(text)) => Value::String(normal_form(text)),
        (Type::List(element), Value::List(items)) => {
            Value::List(items.into_iter().map(|value| normalized_type(element, value)).collect())
        }
        (Type::Set(element), Value::List(items)) => {
            Value::set(items.into_iter().map(|value| normalized_type(element, value)).collect())
        }
        (Type::Tuple(types), Value::List(items)) if types.len() == items.len() => {
            Value::List(items.into_iter().zip(types).map(|(value, ty)| normalized_type(ty, value)).collect())
        }
        (Type::Map(element), Value::Map(entries)) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (normal_form(key), normalized_type(element, value)))
                .collect(),
        ),
        (Type::Object(types), Value::Map(entries)) => {
            let entries = entries.into_iter().map(|(name, value)| match types.get(&name) {
                Some(ty) => (name, normalized_type(ty, value)),
                None => (name, value),
            });
            Value::Map(entries.collect())
        }
        (_, Value::Dynamic(typed)) => {
            let (ty, value) = *typed;
            let value = normalized_type(&ty, value);
            Value::Dynamic(Box::new((ty, value)))
        }
        (_, value) => value,
    }
}

/// A text in Unicode's normal form C. Nearly every one is already, and most can be told at a glance.
pub(crate) fn normal_form(text: String) -> String {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        text
    } else {
        text.nfc().collect()
    }
}

/// The value with the types that `like` has for what is null or unknown in both, where any type may be: a model has no
/// place to keep them ([`Attr`](crate::Attr)), and Terraform sees a difference.
pub(crate) fn retyped(value: Value, like: &Value) -> Value {
    match (value, like) {
        (Value::Null, like) if like.is_null() => like.clone(),
        (Value::Unknown, like) if like.is_unknown() => like.clone(),
        (Value::Map(entries), Value::Map(others)) => {
            let entries = entries.into_iter().map(|(name, value)| match others.get(&name) {
                Some(like) => (name, retyped(value, like)),
                None => (name, value),
            });
            Value::Map(entries.collect())
        }
        (value, _) => value,
    }
}

/// The value with null in place of everything unknown, because no state may hold an unknown value.
pub(crate) fn known_only(value: Value) -> Value {
    match value {
        Value::Unknown => Value::Null,
        Value::List(items) => Value::List(items.into_iter().map(known_only).collect()),
        Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(name, value)| (name, known_only(value))).collect())
        }
        Value::Dynamic(typed) => Value::Dynamic(Box::new((typed.0, known_only(typed.1)))),
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Block, Nested};

    #[test]
    fn what_is_no_difference_is_none() {
        let rule = Nested::new().attribute("on", Attribute::bool().optional());
        let schema = Schema::new(0)
            .attribute("name", Attribute::string().optional())
            .attribute("tags", Attribute::set(Type::String).optional())
            .attribute("secret", Attribute::string().optional().write_only())
            .attribute("any", Attribute::dynamic().optional())
            .block("rule", Block::list(rule));
        let object = |name: &str, tags: [&str; 3], secret: Value, any: &str, rule: Value| {
            Value::Map(
                [
                    ("name".to_owned(), name.into()),
                    ("tags".to_owned(), Value::List(tags.map(Value::from).to_vec())),
                    ("secret".to_owned(), secret),
                    ("any".to_owned(), Value::List(vec![any.into()]).into_dynamic()),
                    ("rule".to_owned(), rule),
                ]
                .into(),
            )
        };
        let normal =
            normalized(&schema, object("e\u{301}", ["b", "a", "b"], "hush".into(), "e\u{301}", Value::Null));
        let mut expected = object("é", ["a", "b", ""], Value::Null, "é", Value::List(vec![]));
        let Value::Map(entries) = &mut expected else { unreachable!() };
        entries.insert("tags".into(), Value::List(vec!["a".into(), "b".into()]));
        assert_eq!(normal, expected);
    }

    #[test]
    fn of_an_unknown_object_what_is_write_only_is_null() {
        let secret = || {
            Nested::new()
                .attribute("value", Attribute::string().optional().write_only())
                .attribute("version", Attribute::string().optional())
        };
        let schema = Schema::new(0)
            .attribute("named", Attribute::nested_map(secret()).optional())
            .attribute("one", Attribute::nested_single(secret()).optional())
            .attribute("all", Attribute::nested_map(secret()).optional());
        let object = |inner: Value| {
            let named = Value::Map([("a".to_owned(), inner.clone())].into());
            let entries = [("named", named), ("one", inner), ("all", Value::Unknown)];
            Value::Map(entries.map(|(name, value)| (name.to_owned(), value)).into())
        };
        let open = [("value".to_owned(), Value::Null), ("version".to_owned(), Value::Unknown)];
        assert_eq!(normalized(&schema, object(Value::Unknown)), object(Value::Map(open.into())));
    }
}
