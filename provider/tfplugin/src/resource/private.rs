//! The private part of a resource: what is remembered beside the state, as bytes that only we read.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::mistake;
use crate::{Diagnostic, Diagnostics};

/// The private part on the wire: versioned, so that a later layout can tell. The prior private part travels with the plan,
/// because apply gets the planned one only.
#[derive(Serialize, Deserialize)]
pub(crate) struct Envelope<P> {
    format: u32,
    pub(crate) data: P,
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub(crate) prior: Option<P>,
}

const FORMAT: u32 = 1;

pub(crate) fn seal<P: Serialize>(type_name: &str, data: P, prior: Option<P>) -> Result<Vec<u8>, Diagnostics> {
    serde_json::to_vec(&Envelope { format: FORMAT, data, prior })
        .map_err(|error| mistake(type_name, &format!("its private data cannot be written: {error}")).into())
}

/// The private data that belong to what exists, also where `bytes` come from a plan to replace it.
pub(crate) fn open_prior<P: DeserializeOwned + Default>(
    type_name: &str,
    bytes: &[u8],
) -> Result<P, Diagnostics> {
    let envelope: Envelope<P> = open(type_name, bytes)?;
    Ok(envelope.prior.unwrap_or(envelope.data))
}

pub(crate) fn open<P: DeserializeOwned + Default>(
    type_name: &str,
    bytes: &[u8],
) -> Result<Envelope<P>, Diagnostics> {
    if bytes.is_empty() {
        return Ok(Envelope { format: FORMAT, data: P::default(), prior: None });
    }
    let envelope: Envelope<P> = serde_json::from_slice(bytes)
        .map_err(|error| mistake(type_name, &format!("its private data cannot be read: {error}")))?;
    if envelope.format != FORMAT {
        return Err(Diagnostic::error(format!("The state of {type_name} was written by a newer provider"))
            .detail(format!("Its private data has format {}, this version reads {FORMAT}.", envelope.format))
            .into());
    }
    Ok(envelope)
}
