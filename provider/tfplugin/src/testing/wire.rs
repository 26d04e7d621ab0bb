//! Between the protocol's messages and what a test looks at. What does not fit fails the test.

use crate::codec::msgpack;
use crate::protocol::proto::{self, DynamicValue};
use crate::{Diagnostic, Diagnostics, Path, Schema, Severity, Step, Type, Value};

/// The message of a call. Errors of the call itself are for mistakes in the protocol only.
#[track_caller]
pub(super) fn answer<T>(result: Result<tonic::Response<T>, tonic::Status>) -> T {
    match result {
        Ok(response) => response.into_inner(),
        Err(status) => panic!("the call itself failed: {status}"),
    }
}

/// Warnings, or everything when there are errors.
pub(super) fn heard(wire: Vec<proto::Diagnostic>) -> Result<Diagnostics, Diagnostics> {
    let all: Diagnostics = wire
        .into_iter()
        .map(|one| Diagnostic {
            severity: match one.severity() {
                proto::diagnostic::Severity::Warning => Severity::Warning,
                _ => Severity::Error,
            },
            summary: one.summary,
            detail: one.detail,
            path: one.attribute.map(path),
        })
        .collect();
    if all.has_errors() { Err(all) } else { Ok(all) }
}

pub(super) fn path(wire: proto::AttributePath) -> Path {
    use proto::attribute_path::step::Selector;
    let step = |step: proto::attribute_path::Step| match step.selector.expect("a step selects something") {
        Selector::AttributeName(name) => Step::Attribute(name),
        Selector::ElementKeyString(key) => Step::Key(key),
        Selector::ElementKeyInt(index) => {
            Step::Index(usize::try_from(index).expect("an index counts from 0"))
        }
    };
    Path::from_steps(&wire.steps.into_iter().map(step).collect::<Vec<_>>())
}

#[track_caller]
pub(super) fn encode(schema: &Schema, value: &Value) -> DynamicValue {
    encode_type(&schema.ty(), value)
}

#[track_caller]
pub(super) fn encode_type(ty: &Type, value: &Value) -> DynamicValue {
    let msgpack = msgpack::encode(value, ty).unwrap_or_else(|error| panic!("{error}"));
    DynamicValue { msgpack: msgpack.into(), json: vec![].into() }
}

#[track_caller]
pub(super) fn decode(schema: &Schema, value: Option<&DynamicValue>) -> Value {
    decode_type(&schema.ty(), value)
}

#[track_caller]
pub(super) fn decode_type(ty: &Type, value: Option<&DynamicValue>) -> Value {
    let Some(value) = value.filter(|value| !value.msgpack.is_empty()) else {
        return Value::Null;
    };
    msgpack::decode(&value.msgpack, ty)
        .unwrap_or_else(|error| panic!("the provider answered what does not fit its schema: {error}"))
}
