//! The examples under a real Terraform (or OpenTofu: `TERRAFORM=/path/to/it`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../examples/kitchen/provider/mod.rs"]
mod provider;

mod judged;
mod lives;
mod messages;
mod others;
mod process;
mod site;
mod states;
