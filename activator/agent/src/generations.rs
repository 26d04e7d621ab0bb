//! Removing old generations, but only those that an agent has made.

use std::path::Path;

use crate::files::replace;
use crate::profile::{PROFILE, generation, generations, system_of};
use crate::program;
use crate::systems::state;

/// The list of generations that an agent has made, one number a line. It is beside the profile, because a machine whose
/// root is wiped at every boot keeps either both or none.
const OWN_GENERATIONS: &str = "/nix/var/nixos-agent/generations";

/// Where older agents kept that list.
const OLD_GENERATIONS: &str = "/var/lib/nixos-agent/generations";

/// Adds the profile's generation to the list, and deletes the oldest of the list so that `keep` stay.
///
/// Generations in `needed` are never deleted, nor those whose system the machine runs or was booted with.
pub(crate) fn prune(keep: Option<usize>, needed: &[u64]) -> Result<(), String> {
    let existing = generations();
    let read = |file| std::fs::read_to_string(file).unwrap_or_default();
    let text = read(OLD_GENERATIONS) + &read(OWN_GENERATIONS);
    let mut own: Vec<u64> = text.lines().filter_map(|line| line.parse().ok()).chain(generation()).collect();
    own.retain(|number| existing.contains(number));
    own.sort_unstable();
    own.dedup();
    let state = state();
    let in_use = |number: &u64| {
        let system = system_of(*number);
        needed.contains(number) || system == state.current || system == state.booted
    };
    let surplus = keep.map_or(0, |keep| own.len().saturating_sub(keep));
    let deleted: Vec<String> =
        own.iter().take(surplus).filter(|number| !in_use(number)).map(u64::to_string).collect();
    if !deleted.is_empty() {
        let fixed = ["-p", PROFILE, "--delete-generations"];
        let numbers: Vec<&str> = deleted.iter().map(String::as_str).collect();
        program::output("nix-env", &[&fixed[..], &numbers].concat())?;
    }
    let kept = own.iter().filter(|number| !deleted.contains(&number.to_string()));
    let lines: String = kept.map(|number| format!("{number}\n")).collect();
    let file = Path::new(OWN_GENERATIONS);
    std::fs::create_dir_all(file.parent().unwrap_or(file)).map_err(|error| error.to_string())?;
    replace(file, lines.as_bytes(), 0o644).map_err(|error| error.to_string())?;
    let _ = std::fs::remove_file(OLD_GENERATIONS);
    Ok(())
}
