//! What must hold for any bytes whatever, a function for each target of `fuzz/`.
//!
//! Each takes the bytes of one case and panics where a rule is broken. That bytes are refused is no breach.

mod plan;

pub use plan::plan;

use std::cmp::Ordering;

use rustls::pki_types::CertificateDer;

use crate::codec::{json, msgpack};
use crate::server::tls;
use crate::{Number, Type, Value};

/// A target by name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 6] = [
    ("handshake", handshake),
    ("json_state", json_state),
    ("msgpack", msgpack),
    ("numbers", numbers),
    ("plan", plan),
    ("types", types),
];

/// A line with the JSON of a type, then MessagePack: what can be read can be written, and is then read as the same.
pub fn msgpack(bytes: &[u8]) {
    if let Some((ty, bytes)) = typed(bytes)
        && let Ok(value) = msgpack::decode(bytes, &ty)
    {
        survives(&value, &ty);
        if !value.contains_unknown() {
            let text = json::encode(&value, &ty);
            assert_eq!(json::decode(text.as_bytes(), &ty), Ok(value), "by way of {text}");
        }
    }
}

/// A line with the JSON of a type, then the JSON of a state: the same by way of MessagePack. What is read strictly is read as
/// the same leniently.
pub fn json_state(bytes: &[u8]) {
    let Some((ty, bytes)) = typed(bytes) else { return };
    let lenient = json::decode_state(bytes, &ty);
    if let Ok(value) = &lenient {
        survives(value, &ty);
    }
    if let Ok(value) = json::decode(bytes, &ty) {
        assert_eq!(lenient.as_ref(), Ok(&value));
        let again = json::encode(&value, &ty);
        assert_eq!(json::decode(again.as_bytes(), &ty), Ok(value), "by way of {again}");
    }
}

/// The JSON of a type: written and read it is the same.
pub fn types(bytes: &[u8]) {
    if let Some(ty) = type_of(bytes) {
        let text = ty.to_json().to_string();
        assert_eq!(type_of(text.as_bytes()), Some(ty), "by way of {text}");
    }
}

/// `PLUGIN_CLIENT_CERT`, or what a client proves its key with: a message and a certificate, each after a byte or two with its
/// length, and the signature.
pub fn handshake(bytes: &[u8]) {
    if let Ok(pem) = std::str::from_utf8(bytes) {
        let _ = tls::prepare(pem);
    }
    let mut rest = bytes;
    let mut part = |width: usize| {
        let (length, after) = rest.split_at_checked(width)?;
        let length = length.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
        let (part, after) = after.split_at_checked(length)?;
        rest = after;
        Some(part)
    };
    if let (Some(message), Some(certificate)) = (part(1), part(2)) {
        let _ = tls::verify_p521(message, &CertificateDer::from(certificate), rest);
    }
}

/// Lines with numbers, and eight bytes of a float.
pub fn numbers(bytes: &[u8]) {
    let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let mut numbers: Vec<Number> = lines.filter_map(Number::parse).take(4).collect();
    numbers.extend(bytes.first_chunk().and_then(|bytes| Number::from_f64(f64::from_be_bytes(*bytes))));
    for a in &numbers {
        number(a);
        for b in &numbers {
            assert_eq!(a == b, a.order(b).is_eq(), "{a} and {b}");
            assert_eq!(a.order(b), b.order(a).reverse(), "{a} and {b}");
            if a == b {
                assert_eq!(whole(a), whole(b), "{a} and {b} are equal");
                assert_eq!(a.as_f64(), b.as_f64(), "{a} and {b} are equal");
            }
            for c in &numbers {
                let chain = a.order(b).is_le() && b.order(c).is_le();
                assert!(!chain || a.order(c).is_le(), "{a}, {b} and {c} are in no order");
            }
        }
    }
}

/// One number survives its text and both encodings, and is the integer that it says it is.
fn number(number: &Number) {
    assert_eq!(Number::parse(&number.to_string()).as_ref(), Some(number), "by way of its text");
    if let Some(integer) = number.as_i64() {
        assert_eq!(&Number::from(integer), number);
    }
    if let Some(natural) = number.as_u64() {
        assert_eq!(&Number::from(natural), number);
    }
    if let (Some(integer), Some(natural)) = whole(number) {
        assert_eq!(i128::from(integer), i128::from(natural));
    }
    let value = Value::Number(number.clone());
    assert_eq!(value.order(&value), Ordering::Equal);
    survives(&value, &Type::Number);
    let text = json::encode(&value, &Type::Number);
    assert_eq!(json::decode(text.as_bytes(), &Type::Number), Ok(value), "by way of {text}");
}

fn whole(number: &Number) -> (Option<i64>, Option<u64>) {
    (number.as_i64(), number.as_u64())
}

/// What has been read can be written as MessagePack, and is then read as the same, by which it is written as the same.
fn survives(value: &Value, ty: &Type) {
    let written = msgpack::encode(value, ty);
    let read = written.as_ref().map(|bytes| msgpack::decode(bytes, ty));
    assert_eq!(read, Ok(Ok(value.clone())), "{written:02x?}");
    assert_eq!(read.map(|read| read.map(|value| msgpack::encode(&value, ty))), Ok(Ok(written.clone())));
}

/// The type in the first line, and what follows.
fn typed(bytes: &[u8]) -> Option<(Type, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (ty, rest) = bytes.split_at_checked(end)?;
    Some((type_of(ty)?, rest.get(1..)?))
}

fn type_of(text: &[u8]) -> Option<Type> {
    Type::from_json(&serde_json::from_slice(text).ok()?)
}
