//! The agent, as it was built with this program.

/// Where agents live on a machine.
pub(super) const AGENTS: &str = "/var/lib/nixos-agent/bin";

/// A built agent.
#[derive(Clone, Copy, Debug)]
pub(super) struct AgentBinary {
    /// The program, statically linked.
    pub(super) bytes: &'static [u8],
    /// The SHA-256 of the program in hexadecimal: its version, for all purposes.
    pub(super) sha256: &'static str,
}

const BYTES: &[u8] = include_bytes!(env!("NIXOS_AGENT_PATH"));

/// The agent for machines of a platform, e.g. `x86_64-linux`.
pub(super) fn binary(system: &str) -> Option<AgentBinary> {
    // A 32-bit system on a 64-bit machine: the machine's kernel runs the agent.
    let matches = system == env!("NIXOS_AGENT_SYSTEM")
        || (system == "i686-linux" && env!("NIXOS_AGENT_SYSTEM") == "x86_64-linux");
    (matches && !BYTES.is_empty()).then_some(AgentBinary { bytes: BYTES, sha256: env!("NIXOS_AGENT_SHA256") })
}
