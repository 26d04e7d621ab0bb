//! Functions, one a file: `provider::nixos::NAME(…)`.

pub(crate) mod known_hosts;
pub(crate) mod to_nix;
