//! When two values of an attribute mean the same, although they are not equal.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::{Value, from_value};

/// Tells whether two values mean the same.
#[derive(Clone)]
pub(crate) struct Sameness(Arc<dyn Fn(&Value, &Value) -> bool + Send + Sync>);

impl Sameness {
    pub(super) fn new<T: DeserializeOwned>(same: impl Fn(&T, &T) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(move |one, other| match (from_value(one), from_value(other)) {
            (Ok(one), Ok(other)) => same(&one, &other),
            _ => false,
        }))
    }

    /// Whether both are there, wholly known, and mean the same.
    pub(crate) fn holds(&self, one: &Value, other: &Value) -> bool {
        let is_known = |value: &Value| !value.is_null() && !value.contains_unknown();
        is_known(one) && is_known(other) && (self.0)(one, other)
    }
}

impl fmt::Debug for Sameness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sameness")
    }
}
