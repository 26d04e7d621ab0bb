//! [`Value`] to Rust.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeSeed, EnumAccess, IntoDeserializer, VariantAccess, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

use super::error::ConvertError;
use super::raw::{HANDOVER, VALUE};
use crate::attr::ATTR;
use crate::number::Repr;
use crate::path::Step;
use crate::{Number, Value};

/// Reads from a value.
#[derive(Clone, Copy)]
pub(super) struct De<'v>(pub(super) &'v Value);

impl<'de> Deserializer<'de> for De<'_> {
    type Error = ConvertError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Unknown => Err(ConvertError::new("the value is not known yet")),
            Value::Bool(bool) => visitor.visit_bool(*bool),
            Value::Number(number) => visit_number(number, visitor),
            Value::String(text) => visitor.visit_str(text),
            Value::List(items) => {
                let mut index = 0;
                let items = items.iter().map(|item| {
                    index += 1;
                    Placed { value: item, step: Step::Index(index - 1) }
                });
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            Value::Map(entries) => {
                visitor.visit_map(MapDeserializer::new(entries.iter().map(|(name, value)| {
                    (name.as_str(), Placed { value, step: Step::Attribute(name.clone()) })
                })))
            }
            Value::Dynamic(typed) => De(&typed.1).deserialize_any(visitor),
        }
    }

    /// An object without attributes is read as `()`, for configurations that have none.
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        match self.0 {
            Value::Map(entries) if entries.is_empty() => visitor.visit_unit(),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        if name == VALUE {
            HANDOVER.set(Some(self.0.clone()));
            return visitor.visit_unit();
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        if name == ATTR {
            return visitor.visit_enum(self);
        }
        match self.0 {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            _ => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf seq tuple tuple_struct map struct
        identifier ignored_any
    }
}

fn visit_number<'de, V: Visitor<'de>>(number: &Number, visitor: V) -> Result<V::Value, ConvertError> {
    if let Some(integer) = number.as_i64() {
        return visitor.visit_i64(integer);
    }
    match (number.repr(), number.as_f64()) {
        (Repr::Unsigned(natural), _) => visitor.visit_u64(*natural),
        (_, Some(float)) => visitor.visit_f64(float),
        _ => Err(ConvertError::new(format!("the number {number} is too large"))),
    }
}

/// An [`Attr`](crate::Attr): the variant says which of the three it is. What is null or unknown loses the type it may
/// have had.
impl<'de> EnumAccess<'de> for De<'_> {
    type Error = ConvertError;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), ConvertError> {
        let variant = match self.0 {
            value if value.is_null() => "Null",
            value if value.is_unknown() => "Unknown",
            _ => "Known",
        };
        Ok((seed.deserialize(variant.into_deserializer())?, self))
    }
}

impl<'de> VariantAccess<'de> for De<'_> {
    type Error = ConvertError;

    fn unit_variant(self) -> Result<(), ConvertError> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, ConvertError> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, ConvertError> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConvertError> {
        self.deserialize_any(visitor)
    }
}

/// A value inside another. It adds its place to errors that come from within.
struct Placed<'v> {
    value: &'v Value,
    step: Step,
}

impl<'de> IntoDeserializer<'de, ConvertError> for Placed<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! placed {
    ($($method:ident($($arg:ident: $ty:ty),*)),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, $($arg: $ty,)* visitor: V) -> Result<V::Value, ConvertError> {
            De(self.value).$method($($arg,)* visitor).map_err(|error| error.inside(self.step))
        })*
    };
}

impl<'de> Deserializer<'de> for Placed<'_> {
    type Error = ConvertError;

    placed! {
        deserialize_any(),
        deserialize_option(),
        deserialize_unit(),
        deserialize_newtype_struct(name: &'static str),
        deserialize_unit_struct(name: &'static str),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]),
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf seq tuple tuple_struct map struct
        identifier ignored_any
    }
}
