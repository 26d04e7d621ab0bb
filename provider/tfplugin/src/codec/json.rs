//! JSON as it stands in state files: shapes by type, dynamic values as `{"value":…,"type":…}`, no unknown values.
//!
//! Numbers are read from the text itself: `serde_json` would round them, unless it was told not to for the whole program.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::CodecError;
use crate::path::Step;
use crate::types::MAX_DEPTH;
use crate::{Number, Type, Value};

/// Reads a value of type `ty`.
pub(crate) fn decode(text: &[u8], ty: &Type) -> Result<Value, CodecError> {
    read(text, ty, Shape::Exact)
}

/// The same for state of an object type that may have lost or gained attributes since it was written.
pub(crate) fn decode_state(text: &[u8], ty: &Type) -> Result<Value, CodecError> {
    read(text, ty, Shape::State)
}

/// Reads a configuration of an object type as `jsonencode` writes it: an attribute that is not there is null, and a dynamic
/// value is just the value.
pub(crate) fn decode_configuration(text: &[u8], ty: &Type) -> Result<Value, CodecError> {
    read(text, ty, Shape::Configuration)
}

/// Where values come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// From Terraform: all attributes are there, and no other ones.
    Exact,
    /// From an older state: some may be missing, and others there.
    State,
    /// From a user: some may be missing, and others are mistakes.
    Configuration,
}

fn read(text: &[u8], ty: &Type, shape: Shape) -> Result<Value, CodecError> {
    from_json(parse(std::str::from_utf8(text).map_err(not_json)?)?, ty, shape, 0)
}

/// One level of a JSON text.
enum Json<'t> {
    Null,
    Bool(bool),
    /// As it is written.
    Number(&'t str),
    String(String),
    Array(Vec<&'t RawValue>),
    Object(BTreeMap<String, &'t RawValue>),
}

impl<'t> Json<'t> {
    /// The level at the top of a value.
    fn of(value: &'t RawValue) -> Result<Self, CodecError> {
        let text = value.get();
        Ok(match text.bytes().next() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'"') => Self::String(parse(text)?),
            Some(b'[') => Self::Array(parse(text)?),
            Some(b'{') => Self::Object(parse(text)?),
            _ => Self::Number(text),
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

fn parse<'t, T: Deserialize<'t>>(text: &'t str) -> Result<T, CodecError> {
    serde_json::from_str(text).map_err(not_json)
}

fn not_json(error: impl std::fmt::Display) -> CodecError {
    CodecError::new(format!("not JSON: {error}"))
}

fn number(text: &str) -> Result<Value, CodecError> {
    let number = Number::parse(text).map(Value::Number);
    number.ok_or_else(|| CodecError::new(format!("{text} is not a decimal number")))
}

fn from_json(json: &RawValue, ty: &Type, shape: Shape, depth: usize) -> Result<Value, CodecError> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    let inside = |json: &RawValue, ty: &Type, step| {
        from_json(json, ty, shape, depth + 1).map_err(|error| error.inside(step))
    };
    match (Json::of(json)?, ty) {
        (Json::Null, _) => Ok(Value::Null),
        (Json::Bool(bool), Type::Bool) => Ok(Value::Bool(bool)),
        (Json::Number(text), Type::Number) => number(text),
        (Json::String(text), Type::String) => Ok(Value::String(text)),
        (Json::Array(items), Type::List(element) | Type::Set(element)) => items
            .iter()
            .enumerate()
            .map(|(index, item)| inside(item, element.as_ref(), Step::Index(index)))
            .collect::<Result<_, _>>()
            .map(if matches!(ty, Type::Set(_)) { Value::set } else { Value::List }),
        (Json::Array(items), Type::Tuple(types)) if items.len() == types.len() => items
            .iter()
            .zip(types)
            .enumerate()
            .map(|(index, (item, ty))| inside(item, ty, Step::Index(index)))
            .collect::<Result<_, _>>()
            .map(Value::List),
        (Json::Object(entries), Type::Map(element)) => entries
            .iter()
            .map(|(name, value)| {
                Ok((name.clone(), inside(value, element.as_ref(), Step::Key(name.clone()))?))
            })
            .collect::<Result<_, _>>()
            .map(Value::Map),
        (Json::Object(entries), Type::Object(attributes)) => {
            if shape != Shape::State
                && let Some(name) = entries.keys().find(|name| !attributes.contains_key(*name))
            {
                let known: Vec<&str> = attributes.keys().map(String::as_str).collect();
                return Err(CodecError::new(format!(
                    "there is no attribute {name:?}, only {}",
                    known.join(", ")
                )));
            }
            let value = |name: &String, ty: &Type| match entries.get(name) {
                Some(value) => inside(value, ty, Step::Attribute(name.clone())),
                None if shape != Shape::Exact => Ok(Value::Null),
                None => Err(CodecError::new(format!("the attribute {name:?} is missing"))),
            };
            attributes
                .iter()
                .map(|(name, ty)| Ok((name.clone(), value(name, ty)?)))
                .collect::<Result<_, _>>()
                .map(Value::Map)
        }
        (_, Type::Dynamic) if shape == Shape::Configuration => Ok(untyped(json, depth)?.into_dynamic()),
        (Json::Object(entries), Type::Dynamic) => {
            let ty = entries.get("type").and_then(|ty| Type::from_json(&parse(ty.get()).ok()?));
            let (Some(ty), Some(value)) = (ty, entries.get("value")) else {
                return Err(CodecError::new("a dynamic value needs `type` and `value`"));
            };
            let value = from_json(value, &ty, shape, depth + 1)?;
            Ok(Value::Dynamic(Box::new((ty, value))))
        }
        (json, ty) => Err(CodecError::expected(ty, json.kind())),
    }
}

/// A value that says by its form alone what it is.
fn untyped(json: &RawValue, depth: usize) -> Result<Value, CodecError> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    Ok(match Json::of(json)? {
        Json::Null => Value::Null,
        Json::Bool(bool) => Value::Bool(bool),
        Json::Number(text) => number(text)?,
        Json::String(text) => Value::String(text),
        Json::Array(items) => {
            Value::List(items.into_iter().map(|item| untyped(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Json::Object(entries) => {
            let entries = entries.into_iter().map(|(name, value)| Ok((name, untyped(value, depth + 1)?)));
            Value::Map(entries.collect::<Result<_, _>>()?)
        }
    })
}

fn too_deep() -> CodecError {
    CodecError::new("values are nested too deeply")
}

/// A value as it stands in state files.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn encode(value: &Value, ty: &Type) -> String {
    match (value, ty) {
        (Value::Dynamic(typed), Type::Dynamic) => {
            format!("{{\"value\":{},\"type\":{}}}", encode(&typed.1, &typed.0), typed.0.to_json())
        }
        (Value::Bool(bool), _) => bool.to_string(),
        (Value::Number(number), _) => number.to_string(),
        (Value::String(text), _) => quoted(text),
        (Value::List(items), Type::Tuple(types)) => {
            array(items.iter().zip(types).map(|(item, ty)| encode(item, ty)))
        }
        (Value::List(items), Type::List(ty) | Type::Set(ty)) => {
            array(items.iter().map(|item| encode(item, ty)))
        }
        (Value::Map(entries), Type::Map(ty)) => {
            object(entries.iter().map(|(name, value)| (name, encode(value, ty))))
        }
        (Value::Map(entries), Type::Object(types)) => {
            let value = |name: &String, ty| encode(entries.get(name).unwrap_or(&Value::Null), ty);
            object(types.iter().map(|(name, ty)| (name, value(name, ty))))
        }
        (Value::Dynamic(typed), ty) => encode(&typed.1, ty),
        (Value::Null | Value::Unknown | Value::List(_) | Value::Map(_), _) => "null".to_owned(),
    }
}

#[cfg(any(test, feature = "testing"))]
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(any(test, feature = "testing"))]
fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(","))
}

#[cfg(any(test, feature = "testing"))]
fn object<'v>(entries: impl Iterator<Item = (&'v String, String)>) -> String {
    let entries = entries.map(|(name, value)| format!("{}:{value}", quoted(name)));
    format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_may_be_of_another_shape_and_keeps_numbers_exact() {
        let ty = Type::Object(
            [("n".to_owned(), Type::Number), ("d".to_owned(), Type::Dynamic), ("new".to_owned(), Type::Bool)]
                .into(),
        );
        let text = r#"{"n":3.14159265358979323846,"d":{"value":["a"],"type":["list","string"]},"gone":1}"#;
        let state = decode_state(text.as_bytes(), &ty).unwrap();
        assert_eq!(state.get("n").unwrap(), &Value::Number(Number::parse("3.14159265358979323846").unwrap()));
        assert_eq!(state.get("new").unwrap(), &Value::Null);
        assert!(decode(text.as_bytes(), &ty).is_err());
    }
}
