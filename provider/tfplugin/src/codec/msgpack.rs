//! MessagePack as Terraform writes it: unknown values are extensions, numbers beyond 64 bits are decimal strings, dynamic
//! values carry their type in front.

use std::collections::BTreeMap;

use super::CodecError;
use crate::number::Repr;
use crate::path::Step;
use crate::types::MAX_DEPTH;
use crate::{Number, Type, Value};

/// Reads one value of type `ty`, and nothing after it.
pub(crate) fn decode(bytes: &[u8], ty: &Type) -> Result<Value, CodecError> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(ty, 0)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(CodecError::new("there are bytes after the value")) }
}

/// Writes a value of type `ty`.
pub(crate) fn encode(value: &Value, ty: &Type) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    write(&mut bytes, value, ty)?;
    Ok(bytes)
}

struct Reader<'b> {
    rest: &'b [u8],
}

/// What the next byte announces.
enum Head {
    Nil,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    String(usize),
    Binary(usize),
    Array(usize),
    Map(usize),
    Extension(usize),
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], CodecError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| CodecError::new("the bytes end within a value"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        self.take(N)?.try_into().map_err(|_| CodecError::new("the bytes end within a value"))
    }

    fn length(&mut self, width: usize) -> Result<usize, CodecError> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)))
    }

    fn head(&mut self) -> Result<Head, CodecError> {
        let [byte] = self.array()?;
        Ok(match byte {
            0x00..=0x7f => Head::Unsigned(byte.into()),
            0x80..=0x8f => Head::Map(usize::from(byte & 0x0f)),
            0x90..=0x9f => Head::Array(usize::from(byte & 0x0f)),
            0xa0..=0xbf => Head::String(usize::from(byte & 0x1f)),
            0xc0 => Head::Nil,
            0xc1 => return Err(CodecError::new("0xc1 is not MessagePack")),
            0xc2 => Head::Bool(false),
            0xc3 => Head::Bool(true),
            0xc4..=0xc6 => Head::Binary(self.length(1 << (byte - 0xc4))?),
            0xc7..=0xc9 => Head::Extension(self.length(1 << (byte - 0xc7))?),
            0xca => Head::Float(f32::from_be_bytes(self.array()?).into()),
            0xcb => Head::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Head::Unsigned(u8::from_be_bytes(self.array()?).into()),
            0xcd => Head::Unsigned(u16::from_be_bytes(self.array()?).into()),
            0xce => Head::Unsigned(u32::from_be_bytes(self.array()?).into()),
            0xcf => Head::Unsigned(u64::from_be_bytes(self.array()?)),
            0xd0 => Head::Signed(i8::from_be_bytes(self.array()?).into()),
            0xd1 => Head::Signed(i16::from_be_bytes(self.array()?).into()),
            0xd2 => Head::Signed(i32::from_be_bytes(self.array()?).into()),
            0xd3 => Head::Signed(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => Head::Extension(1 << (byte - 0xd4)),
            0xd9..=0xdb => Head::String(self.length(1 << (byte - 0xd9))?),
            0xdc..=0xdd => Head::Array(self.length(2 << (byte - 0xdc))?),
            0xde..=0xdf => Head::Map(self.length(2 << (byte - 0xde))?),
            0xe0..=0xff => Head::Signed(i64::from(byte.cast_signed())),
        })
    }

    fn text(&mut self, length: usize) -> Result<String, CodecError> {
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| CodecError::new("a string is not UTF-8"))
    }

    fn value(&mut self, ty: &Type, depth: usize) -> Result<Value, CodecError> {
        if depth > MAX_DEPTH {
            return Err(CodecError::new("values are nested too deeply"));
        }
        let head = self.head()?;
        match (head, ty) {
            (Head::Nil, _) => Ok(Value::Null),
            (Head::Extension(length), _) => {
                // Refinements of unknown values may be ignored; the byte in front says which kind it is.
                self.take(length + 1)?;
                Ok(Value::Unknown)
            }
            (Head::Array(2), Type::Dynamic) => self.dynamic(depth),
            (Head::Bool(bool), Type::Bool) => Ok(Value::Bool(bool)),
            (Head::Signed(number), Type::Number) => Ok(Value::Number(number.into())),
            (Head::Unsigned(number), Type::Number) => Ok(Value::Number(number.into())),
            (Head::Float(number), Type::Number) => Number::from_f64(number)
                .map(Value::Number)
                .ok_or_else(|| CodecError::new("a number is infinite or not a number")),
            (Head::String(length), Type::Number) => {
                let text = self.text(length)?;
                Number::parse(&text)
                    .map(Value::Number)
                    .ok_or_else(|| CodecError::new(format!("{text:?} is not a decimal number")))
            }
            (Head::String(length), Type::String) => self.text(length).map(Value::String),
            (Head::Array(length), Type::List(element)) => {
                self.elements((0..length).map(|_| element.as_ref()), depth).map(Value::List)
            }
            (Head::Array(length), Type::Set(element)) => {
                self.elements((0..length).map(|_| element.as_ref()), depth).map(Value::set)
            }
            (Head::Array(length), Type::Tuple(elements)) if length == elements.len() => {
                self.elements(elements.iter(), depth).map(Value::List)
            }
            (Head::Map(length), Type::Map(element)) => {
                self.entries(length, |_| Some(element.as_ref()), depth)
            }
            (Head::Map(length), Type::Object(attributes)) if length == attributes.len() => {
                self.entries(length, |name| attributes.get(name), depth)
            }
            (head, ty) => Err(CodecError::expected(ty, head.name())),
        }
    }

    fn dynamic(&mut self, depth: usize) -> Result<Value, CodecError> {
        let (Head::Binary(length) | Head::String(length)) = self.head()? else {
            return Err(CodecError::new("a dynamic value has no type in front"));
        };
        let json = serde_json::from_slice(self.take(length)?);
        let ty = json.ok().and_then(|json| Type::from_json(&json));
        let ty = ty.ok_or_else(|| CodecError::new("the type of a dynamic value cannot be read"))?;
        let value = self.value(&ty, depth + 1)?;
        Ok(Value::Dynamic(Box::new((ty, value))))
    }

    fn elements<'t>(
        &mut self,
        types: impl Iterator<Item = &'t Type>,
        depth: usize,
    ) -> Result<Vec<Value>, CodecError> {
        let mut items = Vec::new();
        for (index, ty) in types.enumerate() {
            items.push(self.value(ty, depth + 1).map_err(|error| error.inside(Step::Index(index)))?);
        }
        Ok(items)
    }

    fn entries<'t>(
        &mut self,
        length: usize,
        ty: impl Fn(&str) -> Option<&'t Type>,
        depth: usize,
    ) -> Result<Value, CodecError> {
        let mut entries = BTreeMap::new();
        for _ in 0..length {
            let Head::String(length) = self.head()? else {
                return Err(CodecError::new("a key is not a string"));
            };
            let name = self.text(length)?;
            let ty = ty(&name).ok_or_else(|| CodecError::new(format!("there is no attribute {name:?}")))?;
            let value =
                self.value(ty, depth + 1).map_err(|error| error.inside(Step::Attribute(name.clone())))?;
            if entries.insert(name.clone(), value).is_some() {
                return Err(CodecError::new(format!("the key {name:?} is there twice")));
            }
        }
        Ok(Value::Map(entries))
    }
}

impl Head {
    fn name(&self) -> &'static str {
        match self {
            Self::Nil => "null",
            Self::Bool(_) => "a bool",
            Self::Signed(_) | Self::Unsigned(_) | Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::Binary(_) => "bytes",
            Self::Array(_) => "a list of another length or kind",
            Self::Map(_) => "an object with other attributes",
            Self::Extension(_) => "an extension",
        }
    }
}

fn write(out: &mut Vec<u8>, value: &Value, ty: &Type) -> Result<(), CodecError> {
    match (value, ty) {
        (Value::Null, _) => out.push(0xc0),
        (Value::Unknown, _) => out.extend([0xd4, 0, 0]),
        (Value::Dynamic(typed), Type::Dynamic) => {
            let json = typed.0.to_json().to_string();
            out.push(0x92);
            write_length(out, json.len(), &[0xc4, 0xc5, 0xc6], 0)?;
            out.extend(json.as_bytes());
            write(out, &typed.1, &typed.0)?;
        }
        (Value::Dynamic(typed), ty) => write(out, &typed.1, ty)?,
        (Value::Bool(bool), Type::Bool) => out.push(if *bool { 0xc3 } else { 0xc2 }),
        (Value::Number(number), Type::Number) => write_number(out, number)?,
        (Value::String(text), Type::String) => write_text(out, text)?,
        (Value::List(items), Type::List(element) | Type::Set(element)) => {
            write_length(out, items.len(), &[0xdc, 0xdd], 1)?;
            for (index, item) in items.iter().enumerate() {
                write(out, item, element).map_err(|error| error.inside(Step::Index(index)))?;
            }
        }
        (Value::List(items), Type::Tuple(types)) if items.len() == types.len() => {
            write_length(out, items.len(), &[0xdc, 0xdd], 1)?;
            for (index, (item, ty)) in items.iter().zip(types).enumerate() {
                write(out, item, ty).map_err(|error| error.inside(Step::Index(index)))?;
            }
        }
        (Value::Map(entries), Type::Map(element)) => {
            write_length(out, entries.len(), &[0xde, 0xdf], 1)?;
            for (name, value) in entries {
                write_text(out, name)?;
                write(out, value, element).map_err(|error| error.inside(Step::Key(name.clone())))?;
            }
        }
        (Value::Map(entries), Type::Object(attributes)) => {
            if let Some(name) = entries.keys().find(|name| !attributes.contains_key(*name)) {
                return Err(CodecError::new(format!("there is no attribute {name:?}")));
            }
            write_length(out, attributes.len(), &[0xde, 0xdf], 1)?;
            for (name, ty) in attributes {
                write_text(out, name)?;
                let value = entries.get(name).unwrap_or(&Value::Null);
                write(out, value, ty).map_err(|error| error.inside(Step::Attribute(name.clone())))?;
            }
        }
        // A value that does not say what type it has is of the one it looks like.
        (value, Type::Dynamic) => write(out, &value.clone().into_dynamic(), ty)?,
        (value, ty) => return Err(CodecError::expected(ty, kind(value))),
    }
    Ok(())
}

pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Unknown => "an unknown value",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::List(_) => "a list of another length or kind",
        Value::Map(_) => "an object or map",
        Value::Dynamic(_) => "a dynamic value",
    }
}

/// Writes a length with the narrowest of `markers`, which stand for widths `1 << first`, and twice that, and so on.
fn write_length(out: &mut Vec<u8>, length: usize, markers: &[u8], first: u32) -> Result<(), CodecError> {
    for (n, marker) in (first..).zip(markers) {
        let width = 1usize << n;
        if length < 1usize << (8 * width) {
            out.push(*marker);
            out.extend(&length.to_be_bytes()[size_of::<usize>() - width..]);
            return Ok(());
        }
    }
    Err(CodecError::new("a value is too large"))
}

fn write_text(out: &mut Vec<u8>, text: &str) -> Result<(), CodecError> {
    match u8::try_from(text.len()) {
        Ok(length @ 0..=31) => out.push(0xa0 | length),
        _ => write_length(out, text.len(), &[0xd9, 0xda, 0xdb], 0)?,
    }
    out.extend(text.as_bytes());
    Ok(())
}

fn write_number(out: &mut Vec<u8>, number: &Number) -> Result<(), CodecError> {
    if let Some(integer) = number.as_i64() {
        if let Ok(small) = i8::try_from(integer)
            && small >= -32
        {
            out.push(small.cast_unsigned());
        } else {
            out.push(0xd3);
            out.extend(integer.to_be_bytes());
        }
        return Ok(());
    }
    if let Some(natural) = number.as_u64() {
        out.push(0xcf);
        out.extend(natural.to_be_bytes());
    } else if let Repr::Float(float) = number.repr() {
        out.push(0xcb);
        out.extend(float.to_be_bytes());
    } else {
        write_text(out, &number.to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Types with values of them.
    fn typed() -> impl Strategy<Value = (Type, Value)> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(|bool| (Type::Bool, Value::Bool(bool))),
            any::<i64>().prop_map(|number| (Type::Number, Value::Number(number.into()))),
            any::<u64>().prop_map(|number| (Type::Number, Value::Number(number.into()))),
            "[1-9][0-9]{0,40}\\.[0-9]{1,40}"
                .prop_map(|text| (Type::Number, Value::Number(Number::parse(&text).unwrap()))),
            ".{0,40}".prop_map(|text| (Type::String, Value::String(text))),
            Just((Type::String, Value::Null)),
            Just((Type::Number, Value::Unknown)),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(|items| {
                    let (types, values) = items.into_iter().unzip();
                    (Type::Tuple(types), Value::List(values))
                }),
                prop::collection::btree_map("[a-z]{1,40}", inner.clone(), 0..20).prop_map(|entries| {
                    let types = entries.iter().map(|(name, (ty, _))| (name.clone(), ty.clone())).collect();
                    let values = entries.into_iter().map(|(name, (_, value))| (name, value)).collect();
                    (Type::Object(types), Value::Map(values))
                }),
                (inner.clone(), 0usize..20).prop_map(|((ty, value), count)| {
                    (Type::List(Box::new(ty)), Value::List(vec![value; count]))
                }),
                inner.prop_map(|typed| match typed {
                    (_, value @ (Value::Null | Value::Unknown | Value::Dynamic(_))) => (Type::Dynamic, value),
                    typed => (Type::Dynamic, Value::Dynamic(Box::new(typed))),
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read((ty, value) in typed()) {
            let bytes = encode(&value, &ty).unwrap();
            prop_assert_eq!(decode(&bytes, &ty).unwrap(), value);
        }

        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), (ty, _) in typed()) {
            let _ = decode(&bytes, &ty);
        }
    }

    #[test]
    fn the_forms_terraform_sends_are_understood() {
        let number = |bytes: &[u8]| decode(bytes, &Type::Number);
        assert_eq!(number(b"\xa30.1").unwrap(), Value::Number(Number::parse("0.1").unwrap()));
        assert_eq!(number(b"\xd4\x00\x00").unwrap(), Value::Unknown);
        // Refined: not null.
        assert_eq!(number(b"\xc7\x03\x0c\x81\x01\xc2").unwrap(), Value::Unknown);
        assert_eq!(
            number(b"\xcb\x7f\xf8\0\0\0\0\0\0").unwrap_err().message,
            "a number is infinite or not a number"
        );
        assert!(number(b"\x01\x01").is_err(), "trailing bytes");
        assert!(
            decode(b"\xdd\xff\xff\xff\xff", &Type::List(Box::new(Type::Bool))).is_err(),
            "a length that lies"
        );
    }
}
