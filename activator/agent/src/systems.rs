//! The systems of this machine: which one runs, which one it was booted with, which one it boots.

use std::path::Path;

use nixos_agent::{DeploymentId, SystemState};

use crate::error::AgentError;
use crate::files::replace;
use crate::profile::{PROFILE, generation, resolve};

/// The file with the path of a system that the profile may point at although the boot loader does not start it. A plan
/// reads this file too.
const UNCOMMITTED: &str = "/var/lib/nixos-agent/uncommitted";

/// The file with one line: the deployment that has activated a system here last, and that system. The client reads this
/// file when it looks at the machine.
const DEPLOYED: &str = "/var/lib/nixos-agent/deployed";

/// The systems of the machine now.
pub(crate) fn state() -> SystemState {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    SystemState {
        current: resolve("/run/current-system"),
        booted: resolve("/run/booted-system"),
        profile: resolve(PROFILE),
        generation: generation().filter(|_| !is_uncommitted()),
        boot_id: text("/proc/sys/kernel/random/boot_id"),
    }
}

/// Whether the boot loader may start another system than the profile's: the machine died between setting the one and
/// installing the other, or the installation failed.
fn is_uncommitted() -> bool {
    let marked = std::fs::read_to_string(UNCOMMITTED).ok();
    marked.is_some_and(|marked| resolve(PROFILE).as_deref() == Some(marked.trim()))
}

/// Writes down that the profile is about to point at a system that the boot loader does not start yet.
pub(crate) fn mark_uncommitted(system: &str) -> Result<(), AgentError> {
    replace(Path::new(UNCOMMITTED), system.as_bytes(), 0o644)
}

/// Removes that mark: profile and boot loader agree.
pub(crate) fn mark_committed() {
    let _ = std::fs::remove_file(UNCOMMITTED);
}

/// Writes down which deployment has put which system here, for other deployments of this machine. Every user may read
/// it.
pub(crate) fn mark_deployed(deployment: &DeploymentId, system: &str) -> Result<(), AgentError> {
    replace(Path::new(DEPLOYED), format!("{deployment} {system}\n").as_bytes(), 0o644)
}
