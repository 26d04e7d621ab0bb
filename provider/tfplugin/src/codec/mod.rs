//! The encodings of values on the wire. Both are directed by the type: what does not fit it is an error, never a guess.

pub(crate) mod json;
pub(crate) mod msgpack;

use crate::{Path, Type};

/// Bytes that are not a value of the expected type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}", path = if .path.steps().is_empty() { "value".to_owned() } else { .path.to_string() })]
pub(crate) struct CodecError {
    pub(crate) path: Path,
    pub(crate) message: String,
}

impl CodecError {
    fn new(message: impl Into<String>) -> Self {
        Self { path: Path::root(), message: message.into() }
    }

    fn expected(ty: &Type, found: &str) -> Self {
        Self::new(format!("expected {ty}, found {found}"))
    }

    fn inside(self, step: crate::Step) -> Self {
        Self { path: self.path.prefixed(step), message: self.message }
    }
}
