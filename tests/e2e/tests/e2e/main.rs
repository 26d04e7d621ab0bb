//! Real terraform, real Nix, real OpenSSH, real systemd hosts: what a user does, and what they see.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod aws;
mod boot_loaders;
mod collecting;
mod command_line;
mod deploying;
mod elevation;
mod evaluation;
mod expressions;
mod faults;
mod flakes;
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
mod mounts;
mod outcomes;
mod planning;
mod reboots;
mod remembering;
mod secret_files;
mod secrets;
mod specialisations;
mod ssh;
mod support;
mod surroundings;
mod trouble;
mod volumes;
mod warnings;
