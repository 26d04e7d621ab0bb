//! [`Value`] as a field of a model: it passes through serde as it is.

use std::cell::RefCell;
use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Value;

/// The name under which a [`Value`] passes through serde.
pub(super) const VALUE: &str = "$tfplugin::Value";

thread_local! {
    /// Serde's data model has no room for a raw value, so it is handed over beside it, within one call.
    pub(super) static HANDOVER: RefCell<Option<Value>> = const { RefCell::new(None) };
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        HANDOVER.set(Some(self.clone()));
        let done = serializer.serialize_unit_struct(VALUE)?;
        // This crate's own serializer has taken the value. Any other serializer has left it here, and would lose it.
        match HANDOVER.take() {
            None => Ok(done),
            Some(_) => Err(serde::ser::Error::custom("a Terraform value outside of Terraform's own format")),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl Visitor<'_> for Take {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a Terraform value")
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
                HANDOVER
                    .take()
                    .ok_or_else(|| E::custom("a Terraform value outside of Terraform's own format"))
            }
        }
        deserializer.deserialize_unit_struct(VALUE, Take)
    }
}
