//! A call of the protocol, as logs and messages name it.

use std::fmt;

/// A call, as logs and messages name it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) rpc: &'static str,
    /// The type of the resource, or the name of the function.
    pub(super) subject: String,
}

impl Call {
    pub(super) fn new(rpc: &'static str, subject: impl Into<String>) -> Self {
        Self { rpc, subject: subject.into() }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.rpc, self.subject)
    }
}
