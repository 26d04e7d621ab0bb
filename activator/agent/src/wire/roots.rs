//! Links that keep store paths of a machine from its garbage collector. Client and agent both make some.

/// The directory of these links.
pub const ROOTS: &str = "/nix/var/nix/gcroots/nixos-agent";

/// The link to the system that was pushed last and is not activated yet.
pub const PUSHED: &str = "/nix/var/nix/gcroots/nixos-agent/pushed";

/// The link to the agent's program in the store. It is there where the agent's own directory is mounted `noexec`.
pub const STORED_AGENT: &str = "/nix/var/nix/gcroots/nixos-agent/agent";
