//! Conversion between [`Value`] and Rust types, through serde.
//!
//! A struct's fields may be plain types (must be known), [`Option`] (known or null), [`Attr`](crate::Attr) (known, null
//! or unknown) and [`Value`] (whatever it is, as it is).
//!
//! Where the schema says `dynamic`, a value has a type of its own, and null and unknown ones may have one, too.
//! `Attr<Value>` keeps it with a known value only: `Attr::Null` is a null of no type, as is `None`. To Terraform that
//! is a difference, so the server gives such a value the type that it had in the configuration, the plan or the state.
//! A model to which the type matters has a plain `Value` there.

mod de;
mod error;
mod raw;
mod ser;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Value;
pub use error::ConvertError;

/// Converts a value to a Rust type.
///
/// # Errors
///
/// For a value of another shape: another type, null or unknown where the Rust type takes neither, a number out of
/// range, a field that is missing.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, ConvertError> {
    T::deserialize(de::De(value))
}

/// Converts a Rust type to a value.
///
/// # Errors
///
/// For what Terraform has no type for: bytes, enum variants with content, maps with other keys than strings, infinite
/// floats.
pub fn to_value<T: Serialize + ?Sized>(value: &T) -> Result<Value, ConvertError> {
    value.serialize(ser::Ser)
}

/// A model in which every unknown value is taken from another one, which makes a result of a plan. Known values stay. A
/// value stays unknown that is missing or unknown in the other model, too.
///
/// # Errors
///
/// For a model that does not survive the way to a value and back.
pub fn completed<M: Serialize + DeserializeOwned>(planned: &M, actual: &M) -> Result<M, ConvertError> {
    from_value(&fill(to_value(planned)?, &to_value(actual)?))
}

fn fill(planned: Value, actual: &Value) -> Value {
    match (planned, actual) {
        (Value::Unknown, actual) => actual.clone(),
        (Value::Map(entries), Value::Map(others)) => {
            let filled = entries.into_iter().map(|(key, value)| match others.get(&key) {
                Some(other) => (key, fill(value, other)),
                None => (key, value),
            });
            Value::Map(filled.collect())
        }
        (Value::List(items), Value::List(others)) if items.len() == others.len() => {
            Value::List(items.into_iter().zip(others).map(|(item, other)| fill(item, other)).collect())
        }
        (planned, _) => planned,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;
    use crate::{Attr, Number};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Model {
        name: String,
        port: Attr<u16>,
        note: Option<String>,
        tags: Attr<BTreeMap<String, Attr<Inner>>>,
        any: Value,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        on: Attr<bool>,
        list: Vec<i64>,
    }

    fn map(entries: &[(&str, Value)]) -> Value {
        Value::Map(entries.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    fn sample() -> Value {
        let list = Value::List(vec![Value::Number(1i64.into()), Value::Number(2i64.into())]);
        map(&[
            ("name", "x".into()),
            ("port", Value::Unknown),
            ("note", Value::Null),
            ("tags", map(&[("a", map(&[("on", true.into()), ("list", list)])), ("b", Value::Unknown)])),
            (
                "any",
                Value::List(vec![Value::Unknown, Value::Number(Number::parse("0.1").unwrap())])
                    .into_dynamic(),
            ),
        ])
    }

    #[test]
    fn models_go_there_and_back() {
        let model: Model = from_value(&sample()).unwrap();
        assert_eq!(model.port, Attr::Unknown);
        assert_eq!(model.note, None);
        assert_eq!(to_value(&model).unwrap(), sample());
    }

    #[test]
    fn an_object_without_attributes_is_nothing() {
        from_value::<()>(&map(&[])).unwrap();
        assert!(from_value::<()>(&map(&[("x", true.into())])).is_err());
    }

    #[test]
    fn errors_name_the_place_and_both_sides() {
        let mut value = sample();
        let Value::Map(entries) = &mut value else { unreachable!() };
        entries.insert(
            "tags".into(),
            map(&[("a", map(&[("on", "yes".into()), ("list", Value::List(vec![]))]))]),
        );
        let error = from_value::<Model>(&value).unwrap_err();
        assert_eq!(error.path.to_string(), "tags.a.on");
        assert!(error.message.contains("bool"), "{error}");
    }

    #[test]
    fn a_port_out_of_range_is_an_error() {
        let mut value = sample();
        let Value::Map(entries) = &mut value else { unreachable!() };
        entries.insert("port".into(), Value::Number(70_000i64.into()));
        assert!(from_value::<Model>(&value).is_err());
    }
}
