//! Real terraform, real Nix, real OpenSSH, real systemd hosts: what a user does, and what they see.

mod deploying;
mod importing;
mod planning;
mod support;
mod trouble;
