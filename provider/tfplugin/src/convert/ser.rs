//! Rust to [`Value`].

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::ser::{
    Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, SerializeTupleStruct,
};
use serde::{Serialize, Serializer};

use super::error::ConvertError;
use super::raw::{HANDOVER, VALUE};
use crate::attr::UNKNOWN;
use crate::path::Step;
use crate::{Number, Value};

/// Builds a value.
pub(super) struct Ser;

type Unsupported = Impossible<Value, ConvertError>;

impl Serializer for Ser {
    type Ok = Value;
    type Error = ConvertError;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = Unsupported;
    type SerializeMap = Entries;
    type SerializeStruct = Entries;
    type SerializeStructVariant = Unsupported;

    fn serialize_bool(self, v: bool) -> Result<Value, ConvertError> {
        Ok(Value::Bool(v))
    }
    fn serialize_i8(self, v: i8) -> Result<Value, ConvertError> {
        self.serialize_i64(v.into())
    }
    fn serialize_i16(self, v: i16) -> Result<Value, ConvertError> {
        self.serialize_i64(v.into())
    }
    fn serialize_i32(self, v: i32) -> Result<Value, ConvertError> {
        self.serialize_i64(v.into())
    }
    fn serialize_i64(self, v: i64) -> Result<Value, ConvertError> {
        Ok(Value::Number(v.into()))
    }
    fn serialize_u8(self, v: u8) -> Result<Value, ConvertError> {
        self.serialize_i64(v.into())
    }
    fn serialize_u16(self, v: u16) -> Result<Value, ConvertError> {
        self.serialize_i64(v.into())
    }
    fn serialize_u32(self, v: u32) -> Result<Value, ConvertError> {
        self.serialize_i64(v.into())
    }
    fn serialize_u64(self, v: u64) -> Result<Value, ConvertError> {
        Ok(Value::Number(v.into()))
    }
    fn serialize_f32(self, v: f32) -> Result<Value, ConvertError> {
        self.serialize_f64(v.into())
    }
    fn serialize_f64(self, v: f64) -> Result<Value, ConvertError> {
        Number::from_f64(v)
            .map(Value::Number)
            .ok_or_else(|| ConvertError::new(format!("{v} is not a number")))
    }
    fn serialize_char(self, v: char) -> Result<Value, ConvertError> {
        Ok(Value::String(v.to_string()))
    }
    fn serialize_str(self, v: &str) -> Result<Value, ConvertError> {
        Ok(Value::String(v.to_owned()))
    }
    fn serialize_bytes(self, _v: &[u8]) -> Result<Value, ConvertError> {
        Err(ConvertError::new("Terraform has no bytes"))
    }
    fn serialize_none(self) -> Result<Value, ConvertError> {
        Ok(Value::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, ConvertError> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<Value, ConvertError> {
        Ok(Value::Null)
    }
    fn serialize_unit_struct(self, name: &'static str) -> Result<Value, ConvertError> {
        match name {
            UNKNOWN => Ok(Value::Unknown),
            VALUE => HANDOVER.take().ok_or_else(|| ConvertError::new("a value was lost on the way")),
            _ => Ok(Value::Null),
        }
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, ConvertError> {
        Ok(Value::String(variant.to_owned()))
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<Value, ConvertError> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Value, ConvertError> {
        Err(no_enums(name))
    }
    fn serialize_seq(self, _len: Option<usize>) -> Result<List, ConvertError> {
        Ok(List(vec![]))
    }
    fn serialize_tuple(self, _len: usize) -> Result<List, ConvertError> {
        Ok(List(vec![]))
    }
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<List, ConvertError> {
        Ok(List(vec![]))
    }
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Unsupported, ConvertError> {
        Err(no_enums(name))
    }
    fn serialize_map(self, _len: Option<usize>) -> Result<Entries, ConvertError> {
        Ok(Entries::default())
    }
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Entries, ConvertError> {
        Ok(Entries::default())
    }
    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Unsupported, ConvertError> {
        Err(no_enums(name))
    }
}

fn no_enums(name: &str) -> ConvertError {
    ConvertError::new(format!("{name} has a variant with content, which Terraform has no type for"))
}

/// A list being built.
pub(super) struct List(Vec<Value>);

impl List {
    fn add<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), ConvertError> {
        let step = Step::Index(self.0.len());
        self.0.push(item.serialize(Ser).map_err(|error| error.inside(step))?);
        Ok(())
    }
}

impl SerializeSeq for List {
    type Ok = Value;
    type Error = ConvertError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        self.add(value)
    }
    fn end(self) -> Result<Value, ConvertError> {
        Ok(Value::List(self.0))
    }
}

impl SerializeTuple for List {
    type Ok = Value;
    type Error = ConvertError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        self.add(value)
    }
    fn end(self) -> Result<Value, ConvertError> {
        Ok(Value::List(self.0))
    }
}

impl SerializeTupleStruct for List {
    type Ok = Value;
    type Error = ConvertError;
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        self.add(value)
    }
    fn end(self) -> Result<Value, ConvertError> {
        Ok(Value::List(self.0))
    }
}

/// A map or object being built.
#[derive(Default)]
pub(super) struct Entries {
    done: BTreeMap<String, Value>,
    key: Option<String>,
}

impl Entries {
    fn add<T: Serialize + ?Sized>(&mut self, key: String, value: &T) -> Result<(), ConvertError> {
        let value = value.serialize(Ser).map_err(|error| error.inside(Step::Attribute(key.clone())))?;
        self.done.insert(key, value);
        Ok(())
    }
}

impl SerializeMap for Entries {
    type Ok = Value;
    type Error = ConvertError;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ConvertError> {
        let wrong = |found: &dyn Display| {
            ConvertError::new(format!("a key of a map must be a string, found {found}"))
        };
        self.key = match key.serialize(Ser)? {
            Value::String(key) => Some(key),
            Value::Number(number) => return Err(wrong(&number)),
            _ => return Err(wrong(&"something else")),
        };
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        let key = self.key.take().unwrap_or_default();
        self.add(key, value)
    }
    fn end(self) -> Result<Value, ConvertError> {
        Ok(Value::Map(self.done))
    }
}

impl SerializeStruct for Entries {
    type Ok = Value;
    type Error = ConvertError;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), ConvertError> {
        self.add(key.to_owned(), value)
    }
    fn end(self) -> Result<Value, ConvertError> {
        Ok(Value::Map(self.done))
    }
}
