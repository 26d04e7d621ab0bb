//! Undoing changes of secrets that are on a disk, after a power cut.
//!
//! After a power cut the machine boots the old system, which needs the old secrets. So the old file is kept beside each
//! file that is changed. A journal says which files these are, and is on disk before the first of them is changed. A
//! unit of the agent reads it at the next boot, or else the next activation does.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::place::Place;
use crate::boot_unit::{self, BootUnit};
use crate::error::{AgentError, json_error};
use crate::files::replace;
use crate::systems;

const JOURNAL: &str = "/var/lib/nixos-agent/undo-secrets.json";

const UNIT: BootUnit = BootUnit {
    name: "nixos-agent-undo-secrets.service",
    wanted_by: &["sysinit.target"],
    agent: "/var/lib/nixos-agent/undo-agent",
    text: "[Unit]
Description=Secrets of the system that boots, after an activation that was cut off
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target shutdown.target
Conflicts=shutdown.target
RequiresMountsFor=/var/lib/nixos-agent
ConditionPathExists=/var/lib/nixos-agent/undo-secrets.json
ConditionPathExists=!/run/nixos-agent-secrets

[Service]
Type=oneshot
ExecStart=/var/lib/nixos-agent/undo-agent undo-secrets
",
};

/// The journal of an activation that changes secrets on a disk and is not over.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    /// The system that the new secrets belong to; `None`: the old secrets belong to the same system.
    toplevel: Option<String>,
    files: Vec<Changed>,
}

/// A file that is changed.
#[derive(Debug, Serialize, Deserialize)]
struct Changed {
    path: PathBuf,
    /// Whether the file was there before.
    was_there: bool,
}

/// Whether a file survives a power cut.
pub(super) fn is_on_disk(path: &Path) -> bool {
    !path.starts_with("/run")
}

/// Keeps what is in these places until the activation is over. An agent that was killed in the midst of it can do it
/// again.
pub(super) fn begin<'a>(
    toplevel: Option<&str>,
    paths: impl Iterator<Item = &'a Path>,
) -> Result<(), AgentError> {
    let places: Vec<(&Path, Place)> = paths
        .filter(|path| is_on_disk(path))
        .map(|path| Ok((path, Place::make(path)?)))
        .collect::<Result<_, AgentError>>()?;
    if places.is_empty() {
        return Ok(());
    }
    if read().is_none() {
        let mut files = vec![];
        for (path, place) in &places {
            place.drop_old();
            files.push(Changed { path: (*path).to_owned(), was_there: place.read()?.is_some() });
        }
        let journal = Journal { toplevel: toplevel.map(str::to_owned), files };
        let json = serde_json::to_vec(&journal).map_err(json_error)?;
        if boot_unit::check_possible().is_ok() {
            UNIT.install()?;
        }
        replace(Path::new(JOURNAL), &json, 0o600)?;
    }
    places.iter().try_for_each(|(_, place)| place.keep_old())
}

/// Ends the journal: the new secrets stay, or the old ones are back.
pub(super) fn end() {
    let Some(journal) = read() else { return };
    let _ = std::fs::remove_file(JOURNAL);
    for file in &journal.files {
        if let Ok(place) = Place::find(&file.path) {
            place.drop_old();
        }
    }
    UNIT.uninstall();
}

/// Undoes the changes of an activation that was cut off, unless its system is the one that runs.
pub(crate) fn undo() -> Result<(), AgentError> {
    let Some(journal) = read() else { return Ok(()) };
    let state = systems::state();
    // This early in a boot neither link may exist yet. Then the system that boots by default is the best guess.
    let boots = state.profile.filter(|_| state.generation.is_some());
    let runs = state.current.or(state.booted).or(boots);
    if journal.toplevel.is_none() || runs != journal.toplevel {
        for file in &journal.files {
            let place = Place::make(&file.path)?;
            if file.was_there {
                place.restore_old()?;
            } else {
                place.remove();
            }
        }
    }
    end();
    Ok(())
}

fn read() -> Option<Journal> {
    serde_json::from_slice(&std::fs::read(JOURNAL).ok()?).ok()
}
