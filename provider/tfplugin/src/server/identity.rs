//! Identities, as the calls about resources tell and compare them.

use std::collections::BTreeMap;

use super::wire::{decode_type, encode_type};
use crate::protocol::proto;
use crate::{Diagnostics, IdentitySchema, Schema, Type, Value};

/// The identity of what has this state, where it has one and the state tells all of it.
pub(super) fn identity_of(schema: &Schema, state: &Value) -> Option<Value> {
    if state.is_null() { None } else { schema.identity.as_ref()?.of(state).ok() }
}

/// The same where all of it is known: Terraform takes no other.
pub(super) fn known_identity(schema: &Schema, state: &Value) -> Option<Value> {
    identity_of(schema, state).filter(|identity| !identity.contains_unknown())
}

/// Whether two identities are of one object. One may tell more than the other: what is null is only not known to it.
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
