//! The private data of a resource: what it remembers beside its state, as bytes that Terraform stores and does not
//! read.
//!
//! Whatever the bytes are, the resource can be read, planned and deleted: they may come from an older or a newer
//! version of the provider, or from one that was written with another SDK. What cannot be made use of is left out, with
//! a warning.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::diagnostic::mistake;
use crate::{Diagnostic, Diagnostics};

/// Private data that are not in the form the resource has today; see
/// [`Resource::upgrade_private`](crate::Resource::upgrade_private).
#[derive(Clone, Debug, PartialEq)]
pub enum StoredPrivate {
    /// Written by this resource when [`Resource::PRIVATE_VERSION`](crate::Resource::PRIVATE_VERSION) was this.
    Version(u32, Json),
    /// Written with another SDK; the bytes as they are.
    Foreign(Vec<u8>),
}

/// Private data as they are stored. A plan has those of the prior state with it, because apply gets only the planned
/// ones.
#[derive(Serialize, Deserialize)]
struct Envelope<P> {
    format: u32,
    /// The version of the resource's own layout.
    #[serde(default, skip_serializing_if = "is_zero")]
    version: u32,
    data: P,
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    prior: Option<P>,
}

const FORMAT: u32 = 1;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(version: &u32) -> bool {
    *version == 0
}

/// Private data that were read.
#[derive(Debug)]
pub(crate) struct DecodedPrivate<P> {
    /// The private data; in a plan, those that are planned.
    pub(crate) data: P,
    /// In a plan, those of what exists.
    pub(crate) prior: Option<P>,
    /// Why some of it was left out.
    pub(crate) left_out: Option<Diagnostic>,
}

impl<P> DecodedPrivate<P> {
    /// The private data of the object that exists, also where they were read from a plan to replace it.
    pub(crate) fn existing(self) -> P {
        self.prior.unwrap_or(self.data)
    }
}

pub(crate) fn encode_private<P: Serialize>(
    type_name: &str,
    version: u32,
    data: P,
    prior: Option<P>,
) -> Result<Vec<u8>, Diagnostics> {
    serde_json::to_vec(&Envelope { format: FORMAT, version, data, prior })
        .map_err(|error| mistake(type_name, &format!("its private data cannot be written: {error}")).into())
}

/// Reads `bytes` as this version writes them, or else by way of `upgrade`. Where both fail, the default is used, with a
/// warning.
pub(crate) fn decode_private<P: DeserializeOwned + Default>(
    type_name: &str,
    version: u32,
    bytes: &[u8],
    upgrade: impl Fn(StoredPrivate) -> Option<P>,
) -> DecodedPrivate<P> {
    if bytes.is_empty() {
        return DecodedPrivate { data: P::default(), prior: None, left_out: None };
    }
    // Usually they are as this version writes them. Fields that a newer version has added are ignored.
    if let Ok(envelope) = serde_json::from_slice::<Envelope<P>>(bytes)
        && envelope.version >= version
    {
        return DecodedPrivate { data: envelope.data, prior: envelope.prior, left_out: None };
    }
    let mut why = None;
    let mut or_none = |read: Result<P, String>| {
        read.unwrap_or_else(|found| {
            // Nothing is lost where the type holds nothing.
            if size_of::<P>() > 0 {
                why = Some(left_out(type_name, &found));
            }
            P::default()
        })
    };
    let (data, prior) = if let Ok(stored) = serde_json::from_slice::<Envelope<Json>>(bytes) {
        let one = |data| upgraded(stored.version, data, &upgrade);
        (or_none(one(stored.data)), stored.prior.map(|prior| or_none(one(prior))))
    } else {
        let foreign = upgrade(StoredPrivate::Foreign(bytes.to_vec()));
        (or_none(foreign.ok_or_else(|| "bytes that another provider or SDK has written".to_owned())), None)
    };
    DecodedPrivate { data, prior, left_out: why }
}

fn upgraded<P: DeserializeOwned>(
    version: u32,
    data: Json,
    upgrade: impl Fn(StoredPrivate) -> Option<P>,
) -> Result<P, String> {
    match upgrade(StoredPrivate::Version(version, data.clone())) {
        Some(data) => Ok(data),
        None => serde_json::from_value(data)
            .map_err(|error| format!("data of version {version}, which this version cannot read: {error}")),
    }
}

fn left_out(type_name: &str, found: &str) -> Diagnostic {
    Diagnostic::warning(format!("What {type_name} remembers beside its state cannot be read")).detail(format!(
        "Found {found}. The resource is used without it; the state itself is complete. The next apply that changes the \
         resource writes it anew. To keep it, go back to the version of the provider that wrote it."
    ))
}

/// The same for the private data of ephemeral resources. They live for one run of Terraform, so this very version has
/// written them.
pub(crate) fn decode_own<P: DeserializeOwned + Default>(
    type_name: &str,
    bytes: &[u8],
) -> Result<P, Diagnostics> {
    if bytes.is_empty() {
        return Ok(P::default());
    }
    let envelope: Envelope<P> = serde_json::from_slice(bytes)
        .map_err(|error| mistake(type_name, &format!("its private data cannot be read: {error}")))?;
    Ok(envelope.data)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What version 2 remembers. Version 1 had a number only; an SDK before that had a text.
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Memory {
        count: u32,
        #[serde(default)]
        note: String,
    }

    fn upgrade(stored: StoredPrivate) -> Option<Memory> {
        let count = match stored {
            StoredPrivate::Version(1, data) => u32::try_from(data.as_u64()?).ok()?,
            StoredPrivate::Version(..) => return None,
            StoredPrivate::Foreign(bytes) => std::str::from_utf8(&bytes).ok()?.parse().ok()?,
        };
        Some(Memory { count, note: "upgraded".to_owned() })
    }

    fn decoded(bytes: &[u8]) -> DecodedPrivate<Memory> {
        decode_private("t", 2, bytes, upgrade)
    }

    fn memory(count: u32, note: &str) -> Memory {
        Memory { count, note: note.to_owned() }
    }

    #[test]
    fn what_any_version_wrote_is_read_or_left_out() {
        let bytes = encode_private("t", 2, memory(3, "x"), Some(memory(2, "w"))).unwrap();
        let found = decoded(&bytes);
        assert_eq!((&found.data, &found.prior), (&memory(3, "x"), &Some(memory(2, "w"))));
        assert_eq!(found.existing(), memory(2, "w"));

        let stored = |version: u32, data: Json| json!({ "format": 1, "version": version, "data": data });
        let cases = [
            (stored(1, json!(7)), memory(7, "upgraded"), false),
            (stored(3, json!({ "count": 4, "later": { "deep": [1] } })), memory(4, ""), false),
            (json!({ "format": 2, "version": 3, "data": { "count": 4 }, "more": 1 }), memory(4, ""), false),
            // A layout that was changed without a new version, and one that no version had.
            (json!({ "format": 1, "data": { "count": 5 } }), memory(5, ""), false),
            (stored(2, json!({ "count": "many" })), memory(0, ""), true),
            (stored(3, json!([])), memory(0, ""), true),
            (json!({ "schema_version": "1" }), memory(0, ""), true),
            (json!(12), memory(12, "upgraded"), false),
        ];
        for (bytes, expected, warns) in cases {
            let found = decoded(bytes.to_string().as_bytes());
            assert_eq!((&found.data, found.left_out.is_some()), (&expected, warns), "{bytes}");
        }
        assert_eq!(decoded(b"").left_out, None);
        assert!(decoded(&[0xff, 0, 1]).left_out.unwrap().detail.contains("another provider or SDK"));
    }

    #[test]
    fn of_a_plan_that_cannot_be_read_the_other_half_stays() {
        let plan = json!({ "format": 1, "version": 2, "data": { "count": 3 }, "prior": { "count": null } });
        let found = decoded(plan.to_string().as_bytes());
        assert_eq!((&found.data, &found.prior), (&memory(3, ""), &Some(memory(0, ""))));
        assert!(found.left_out.unwrap().detail.contains("version 2"));
    }

    #[test]
    fn nothing_is_missed_where_nothing_is_remembered() {
        for bytes in [&b"{\"schema_version\":\"1\"}"[..], b"\x00", b"{\"format\":1,\"data\":{\"a\":1}}"] {
            let found: DecodedPrivate<()> = decode_private("t", 0, bytes, |_| None);
            assert_eq!(found.left_out, None, "{bytes:?}");
        }
    }
}
