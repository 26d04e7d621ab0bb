//! What stops the agent itself. A system that fails is no such error: the report of its activation says that.

use std::fmt::Display;

use crate::usage::HELP;

/// An error of the agent, in words for its standard error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("{HELP}")]
    Usage,
    #[error(transparent)]
    Id(#[from] nixos_agent::BadId),
    #[error("the request cannot be read: {0}")]
    Request(String),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("this needs root")]
    NotRoot,
    #[error("the activation could not be started: {0}")]
    Start(String),
    #[error("secrets that are to persist: {0}")]
    Sealed(String),
    #[error("it is not known what boots next: {0}")]
    Trial(String),
    #[error("the machine cannot be rebooted: {0}")]
    Reboot(String),
    #[error("not confirmed: {0}")]
    NotConfirmed(&'static str),
}

/// Makes errors of the operating system say what they are about, such as a path.
pub(crate) fn io_error(what: impl Display) -> impl Fn(std::io::Error) -> AgentError {
    move |source| AgentError::Io { what: what.to_string(), source }
}

/// Turns errors of reading or writing JSON into one of ours.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn json_error(error: serde_json::Error) -> AgentError {
    AgentError::Request(error.to_string())
}
