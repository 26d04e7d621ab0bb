//! Why a value and a Rust type do not fit each other, and where.

use std::fmt;

use crate::Path;
use crate::path::Step;

/// A value that does not have the shape of the Rust type.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ConvertError {
    /// Where.
    pub path: Path,
    /// What was found and what was expected.
    pub message: String,
}

impl ConvertError {
    pub(super) fn new(message: impl fmt::Display) -> Self {
        Self { path: Path::root(), message: message.to_string() }
    }

    pub(super) fn inside(self, step: Step) -> Self {
        Self { path: self.path.prefixed(step), message: self.message }
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.steps().is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

impl std::error::Error for ConvertError {}

impl serde::de::Error for ConvertError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message)
    }
}

impl serde::ser::Error for ConvertError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message)
    }
}
