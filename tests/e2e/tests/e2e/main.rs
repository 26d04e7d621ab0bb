//! Real terraform, real Nix, real OpenSSH, real systemd hosts: what a user does, and what they see.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod aws;
mod boot_loaders;
mod command_line;
mod deploying;
mod elevation;
mod evaluation;
mod expressions;
mod faults;
mod generations;
mod holes;
mod identity;
mod importing;
mod interruptions;
mod keeping;
mod keys;
mod lockout;
mod lost;
mod many;
mod outcomes;
mod planning;
mod reboots;
mod remembering;
mod secret_files;
mod secrets;
mod specialisations;
mod support;
mod trouble;
mod warnings;
