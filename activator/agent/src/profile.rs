//! The system profile: a link to the generation that boots, among links to all generations.

use std::path::Path;

/// The profile.
pub(crate) const PROFILE: &str = "/nix/var/nix/profiles/system";

/// The number of the generation that the profile points at, whether that one boots or not.
pub(crate) fn generation() -> Option<u64> {
    number(std::fs::read_link(PROFILE).ok()?.file_name()?.to_str()?)
}

/// The numbers of all generations.
pub(crate) fn generations() -> Vec<u64> {
    let directory = Path::new(PROFILE).parent().and_then(|profiles| std::fs::read_dir(profiles).ok());
    let entries = directory.into_iter().flatten().flatten();
    entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect()
}

/// The number in `system-NUMBER-link`.
fn number(link: &str) -> Option<u64> {
    link.strip_prefix("system-")?.strip_suffix("-link")?.parse().ok()
}

/// The system of a generation.
pub(crate) fn system_of(generation: u64) -> Option<String> {
    resolve(&format!("{PROFILE}-{generation}-link"))
}

/// Where a link leads in the end.
pub(crate) fn resolve(link: &str) -> Option<String> {
    std::fs::canonicalize(link).ok()?.to_str().map(str::to_owned)
}
