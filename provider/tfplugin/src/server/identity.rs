//! Identities, as the calls about resources tell and compare them.

use std::collections::BTreeMap;

use super::wire::{decode_type, encode_type};
use crate::protocol::proto;
use crate::{Diagnostics, IdentitySchema, Schema, Type, Value};

/// The identity of the object with this state. `None` where the resource has no identity, or the state lacks a part of
/// it.
pub(super) fn identity_of(schema: &Schema, state: &Value) -> Option<Value> {
    if state.is_null() { None } else { schema.identity.as_ref()?.of(state).ok() }
}

/// The same, but `None` where a part of it is unknown: Terraform takes only known identities.
pub(super) fn known_identity(schema: &Schema, state: &Value) -> Option<Value> {
    identity_of(schema, state).filter(|identity| !identity.contains_unknown())
}

/// Whether two identities are of one object. An attribute that is null in `before` says nothing: an import may leave it
/// out.
pub(super) fn same_identity(before: &Value, after: &Value) -> bool {
    let (Value::Map(before), Value::Map(after)) = (before, after) else {
        return before == after;
    };
    before.iter().all(|(name, value)| value.is_null() || after.get(name).is_none_or(|now| now == value))
}

pub(super) fn encode_identity(
    schema: &Schema,
    identity: &Value,
) -> Result<proto::ResourceIdentityData, Diagnostics> {
    let ty = schema.identity.as_ref().map(IdentitySchema::ty);
    let ty = ty.unwrap_or_else(|| Type::Object(BTreeMap::new()));
    Ok(proto::ResourceIdentityData { identity_data: Some(encode_type(&ty, identity)?) })
}

/// The identity that the client has sent, if it has.
pub(super) fn decode_identity(
    schema: &Schema,
    identity: Option<&proto::ResourceIdentityData>,
) -> Result<Option<Value>, Diagnostics> {
    let (Some(identity), Some(known)) = (identity, &schema.identity) else {
        return Ok(None);
    };
    let value = decode_type(&known.ty(), identity.identity_data.as_ref())?;
    Ok(Some(value).filter(|value| !value.is_null()))
}
