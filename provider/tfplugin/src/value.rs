//! Values as Terraform has them: typed from outside, possibly null, possibly not known yet.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::{Number, Type};

/// A value. Its type is the schema's affair, except inside [`Value::Dynamic`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// No value.
    Null,
    /// A value that is not known yet.
    Unknown,
    /// A bool.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(String),
    /// A list, set or tuple.
    List(Vec<Value>),
    /// A map or object; an object has all of its attributes.
    Map(BTreeMap<String, Value>),
    /// A value that carries its own type, where the schema says `dynamic`.
    Dynamic(Box<(Type, Value)>),
}

impl Value {
    /// Whether it is null, also where it carries its type.
    pub fn is_null(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Dynamic(typed) => typed.1.is_null(),
            _ => false,
        }
    }

    /// Whether it is not known itself, also where it carries its type.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::Unknown => true,
            Self::Dynamic(typed) => typed.1.is_unknown(),
            _ => false,
        }
    }

    /// Whether something in it is not known.
    pub fn contains_unknown(&self) -> bool {
        match self {
            Self::Unknown => true,
            Self::List(items) => items.iter().any(Self::contains_unknown),
            Self::Map(entries) => entries.values().any(Self::contains_unknown),
            Self::Dynamic(typed) => typed.1.contains_unknown(),
            _ => false,
        }
    }

    /// The attribute or element `name` of an object or map.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.get(name),
            _ => None,
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Wraps a wholly known value with the type it has by itself: objects and tuples, not maps and lists.
    #[must_use]
    pub fn into_dynamic(self) -> Self {
        match self {
            Self::Null | Self::Unknown | Self::Dynamic(_) => self,
            value => Self::Dynamic(Box::new((value.natural_type(), value))),
        }
    }

    /// Brings the elements of a set into an order of their own and drops those that are there twice, so that equal sets are
    /// equal values. What is not known may turn out to be different, so it stays.
    pub(crate) fn set(mut items: Vec<Self>) -> Self {
        items.sort_by(Self::order);
        items.dedup_by(|a, b| a == b && !a.contains_unknown());
        Self::List(items)
    }

    /// A total order in which values are equal just where `==` says so.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        let rank = |value: &Self| match value {
            Self::Null => 0,
            Self::Unknown => 1,
            Self::Bool(_) => 2,
            Self::Number(_) => 3,
            Self::String(_) => 4,
            Self::List(_) => 5,
            Self::Map(_) => 6,
            Self::Dynamic(_) => 7,
        };
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Number(a), Self::Number(b)) => a.order(b),
            (Self::String(a), Self::String(b)) => a.cmp(b),
            (Self::List(a), Self::List(b)) => {
                let differ = a.iter().zip(b).map(|(a, b)| a.order(b)).find(|order| order.is_ne());
                differ.unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Self::Map(a), Self::Map(b)) => {
                let pairs = a.iter().zip(b);
                let differ =
                    pairs.map(|(a, b)| a.0.cmp(b.0).then_with(|| a.1.order(b.1))).find(|order| order.is_ne());
                differ.unwrap_or_else(|| a.len().cmp(&b.len()))
            }
            (Self::Dynamic(a), Self::Dynamic(b)) => a.0.cmp(&b.0).then_with(|| a.1.order(&b.1)),
            _ => rank(self).cmp(&rank(other)),
        }
    }

    fn natural_type(&self) -> Type {
        match self {
            Self::Null | Self::Unknown | Self::Dynamic(_) => Type::Dynamic,
            Self::Bool(_) => Type::Bool,
            Self::Number(_) => Type::Number,
            Self::String(_) => Type::String,
            Self::List(items) => Type::Tuple(items.iter().map(Self::natural_type).collect()),
            Self::Map(entries) => Type::Object(
                entries.iter().map(|(name, value)| (name.clone(), value.natural_type())).collect(),
            ),
        }
    }

    /// A known JSON value as a Terraform value.
    pub fn from_json(json: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match json {
            Json::Null => Self::Null,
            Json::Bool(bool) => Self::Bool(*bool),
            Json::Number(number) => Number::parse(&number.to_string()).map_or(Self::Null, Self::Number),
            Json::String(text) => Self::String(text.clone()),
            Json::Array(items) => Self::List(items.iter().map(Self::from_json).collect()),
            Json::Object(entries) => Self::Map(
                entries.iter().map(|(name, value)| (name.clone(), Self::from_json(value))).collect(),
            ),
        }
    }
}

macro_rules! value_from {
    ($($from:ty => |$name:ident| $value:expr),* $(,)?) => {
        $(impl From<$from> for Value {
            fn from($name: $from) -> Self {
                $value
            }
        })*
    };
}
value_from! {
    bool => |bool| Self::Bool(bool),
    i64 => |number| Self::Number(number.into()),
    Number => |number| Self::Number(number),
    String => |text| Self::String(text),
    &str => |text| Self::String(text.to_owned()),
    Vec<Value> => |items| Self::List(items),
    BTreeMap<String, Value> => |entries| Self::Map(entries),
    serde_json::Value => |json| Self::from_json(&json),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_that_carries_its_type_is_null() {
        let typed = |value| Value::Dynamic(Box::new((Type::String, value)));
        assert!(typed(Value::Null).is_null());
        assert!(typed(Value::Unknown).is_unknown());
        assert!(!typed("x".into()).is_null());
    }

    #[test]
    fn equal_sets_are_equal_values() {
        let number = |text: &str| Value::Number(Number::parse(text).unwrap());
        let set = |items: &[&str]| Value::set(items.iter().map(|text| number(text)).collect());
        assert_eq!(set(&["2", "1e1", "0.50"]), set(&["10", "0.5", "2.0", "5e-1"]));
        assert_ne!(set(&["1"]), set(&["1", "2"]));
        let open = Value::set(vec![Value::Unknown, Value::Unknown]);
        assert_eq!(open, Value::List(vec![Value::Unknown, Value::Unknown]));
    }
}
