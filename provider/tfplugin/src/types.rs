//! Terraform's types and their JSON form: `"string"`, `["map","number"]`, `["object",{…}]`.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

/// The type of a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Type {
    /// Unicode text.
    String,
    /// A decimal number of any size.
    Number,
    /// True or false.
    Bool,
    /// Any type; the value carries its own.
    Dynamic,
    /// Elements of one type, in order.
    List(Box<Type>),
    /// Elements of one type, each once.
    Set(Box<Type>),
    /// Elements of one type by name.
    Map(Box<Type>),
    /// Elements each of its own type.
    Tuple(Vec<Type>),
    /// Attributes each of its own type.
    Object(BTreeMap<String, Type>),
}

/// How deep types and values may nest before they are refused.
pub(crate) const MAX_DEPTH: usize = 128;

impl Type {
    /// The JSON form that the wire uses.
    pub(crate) fn to_json(&self) -> Json {
        match self {
            Self::String => json!("string"),
            Self::Number => json!("number"),
            Self::Bool => json!("bool"),
            Self::Dynamic => json!("dynamic"),
            Self::List(element) => json!(["list", element.to_json()]),
            Self::Set(element) => json!(["set", element.to_json()]),
            Self::Map(element) => json!(["map", element.to_json()]),
            Self::Tuple(elements) => json!(["tuple", elements.iter().map(Self::to_json).collect::<Vec<_>>()]),
            Self::Object(attributes) => {
                let attributes: serde_json::Map<_, _> =
                    attributes.iter().map(|(name, ty)| (name.clone(), ty.to_json())).collect();
                json!(["object", attributes])
            }
        }
    }

    /// Reads the JSON form; `None` when it is not one.
    pub(crate) fn from_json(json: &Json) -> Option<Self> {
        Self::parse(json, 0)
    }

    fn parse(json: &Json, depth: usize) -> Option<Self> {
        if depth > MAX_DEPTH {
            return None;
        }
        let inner = |json| Self::parse(json, depth + 1);
        if let Some(name) = json.as_str() {
            return match name {
                "string" => Some(Self::String),
                "number" => Some(Self::Number),
                "bool" => Some(Self::Bool),
                "dynamic" => Some(Self::Dynamic),
                _ => None,
            };
        }
        let [kind, of, ..] = json.as_array()?.as_slice() else {
            return None;
        };
        match kind.as_str()? {
            "list" => Some(Self::List(Box::new(inner(of)?))),
            "set" => Some(Self::Set(Box::new(inner(of)?))),
            "map" => Some(Self::Map(Box::new(inner(of)?))),
            "tuple" => of.as_array()?.iter().map(inner).collect::<Option<_>>().map(Self::Tuple),
            "object" => {
                let attributes = of.as_object()?.iter();
                attributes
                    .map(|(name, ty)| Some((name.clone(), inner(ty)?)))
                    .collect::<Option<_>>()
                    .map(Self::Object)
            }
            _ => None,
        }
    }
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::String => f.write_str("a string"),
            Self::Number => f.write_str("a number"),
            Self::Bool => f.write_str("a bool"),
            Self::Dynamic => f.write_str("any value"),
            Self::List(_) => f.write_str("a list"),
            Self::Set(_) => f.write_str("a set"),
            Self::Map(_) => f.write_str("a map"),
            Self::Tuple(_) => f.write_str("a tuple"),
            Self::Object(_) => f.write_str("an object"),
        }
    }
}
