//! JSON as it stands in state files: shapes by type, dynamic values as `{"value":…,"type":…}`, no unknown values.

use serde_json::Value as Json;

use super::CodecError;
use crate::path::Step;
use crate::types::MAX_DEPTH;
use crate::{Number, Type, Value};

/// Reads a value of type `ty`.
pub(crate) fn decode(bytes: &[u8], ty: &Type) -> Result<Value, CodecError> {
    let json =
        serde_json::from_slice(bytes).map_err(|error| CodecError::new(format!("not JSON: {error}")))?;
    from_json(&json, ty, Shape::Exact, 0)
}

/// The same for state of an object type that may have lost or gained attributes since it was written.
pub(crate) fn decode_state(json: &Json, ty: &Type) -> Result<Value, CodecError> {
    from_json(json, ty, Shape::State, 0)
}

/// Reads a configuration of an object type as `jsonencode` writes it: what is not there is null, and a dynamic value is just the value.
pub(crate) fn decode_configuration(json: &Json, ty: &Type) -> Result<Value, CodecError> {
    from_json(json, ty, Shape::Configuration, 0)
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

fn from_json(json: &Json, ty: &Type, shape: Shape, depth: usize) -> Result<Value, CodecError> {
    if depth > MAX_DEPTH {
        return Err(CodecError::new("values are nested too deeply"));
    }
    let inside = |json: &Json, ty: &Type, step| {
        from_json(json, ty, shape, depth + 1).map_err(|error| error.inside(step))
    };
    match (json, ty) {
        (Json::Null, _) => Ok(Value::Null),
        (Json::Bool(bool), Type::Bool) => Ok(Value::Bool(*bool)),
        (Json::Number(number), Type::Number) => Number::parse(&number.to_string())
            .map(Value::Number)
            .ok_or_else(|| CodecError::new(format!("{number} is not a decimal number"))),
        (Json::String(text), Type::String) => Ok(Value::String(text.clone())),
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
        (json, Type::Dynamic) if shape == Shape::Configuration => Ok(Value::from_json(json).into_dynamic()),
        (Json::Object(entries), Type::Dynamic) => {
            let ty = entries.get("type").and_then(Type::from_json);
            let (Some(ty), Some(value)) = (ty, entries.get("value")) else {
                return Err(CodecError::new("a dynamic value needs `type` and `value`"));
            };
            let value = from_json(value, &ty, shape, depth + 1)?;
            Ok(Value::Dynamic(Box::new((ty, value))))
        }
        (json, ty) => Err(CodecError::expected(ty, kind(json))),
    }
}

/// A value as it stands in state files.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn encode(value: &Value, ty: &Type) -> Json {
    match (value, ty) {
        (Value::Dynamic(typed), Type::Dynamic) => {
            serde_json::json!({ "value": encode(&typed.1, &typed.0), "type": typed.0.to_json() })
        }
        (Value::Bool(bool), _) => Json::Bool(*bool),
        (Value::Number(number), _) => {
            serde_json::from_str(&number.to_string()).map_or(Json::Null, Json::Number)
        }
        (Value::String(text), _) => Json::String(text.clone()),
        (Value::List(items), Type::Tuple(types)) => {
            items.iter().zip(types).map(|(item, ty)| encode(item, ty)).collect()
        }
        (Value::List(items), Type::List(ty) | Type::Set(ty)) => {
            items.iter().map(|item| encode(item, ty)).collect()
        }
        (Value::Map(entries), Type::Map(ty)) => {
            Json::Object(entries.iter().map(|(name, value)| (name.clone(), encode(value, ty))).collect())
        }
        (Value::Map(entries), Type::Object(types)) => {
            let value = |name: &String, ty| encode(entries.get(name).unwrap_or(&Value::Null), ty);
            Json::Object(types.iter().map(|(name, ty)| (name.clone(), value(name, ty))).collect())
        }
        (Value::Dynamic(typed), ty) => encode(&typed.1, ty),
        (Value::Null | Value::Unknown | Value::List(_) | Value::Map(_), _) => Json::Null,
    }
}

fn kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a bool",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
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
        let state = decode_state(&serde_json::from_str(text).unwrap(), &ty).unwrap();
        assert_eq!(state.get("n").unwrap(), &Value::Number(Number::parse("3.14159265358979323846").unwrap()));
        assert_eq!(state.get("new").unwrap(), &Value::Null);
        assert!(decode(text.as_bytes(), &ty).is_err());
    }
}
