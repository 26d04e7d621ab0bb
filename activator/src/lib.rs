//! Evaluates, builds, pushes and activates NixOS configurations on many machines.
//!
//! The way of a deployment is one straight line, each stage a module and each arrow a typed value:
//!
//! ```text
//! network::Request ─evaluate─▶ Evaluation ─build─▶ systems in the local store ─push─▶ on the machine ─activate─▶ Report
//! ```
//!
//! [`deploy`] walks it for all machines at once. Nothing here knows of Terraform; the provider and the command line
//! both stand on this library. The part that runs on the target is the crate `nixos-agent`, of which only the wire
//! types, the health checks and the built binary are used here.

mod children;
mod hash;
mod meminfo;
mod names;
mod secret;

pub mod activate;
pub mod agent;
pub mod build;
pub mod contents;
pub mod deploy;
pub mod derivation;
pub mod evaluate;
pub mod facts;
pub mod generations;
pub mod inventory;
pub mod network;
pub mod nix;
pub mod progress;
pub mod push;
pub mod reboot;
pub mod rollout;
pub mod scheduler;
pub mod secrets;
pub mod ssh;
pub mod status;
pub mod temporary;
pub mod text;
pub mod volume;

pub use hash::sha256;
pub use names::{MachineName, NameError, StorePath};
pub use secret::Secret;
