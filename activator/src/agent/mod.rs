//! The agent on a machine, as seen from here: the program, the way there, and what it says.

mod binary;
mod error;
mod install;
pub mod listen;

pub use error::AgentError;
pub use install::{check_login, install};
pub use nixos_agent::*;
