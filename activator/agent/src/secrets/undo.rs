//! What is needed to undo changes of secrets that lie on disk, after a power cut.
//!
//! The machine boots the old system then, and the old secrets with it. What was there before is kept beside each file; this journal, which is on
//! disk before the first of them is changed, says which files those are. A unit of ours reads it at the next boot, or the next
//! activation does.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::place::Place;
use crate::AgentError;
use crate::boot_unit::{self, BootUnit};
use crate::files::replace;
use crate::host;

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

/// An activation that has changed secrets on disk, and did not come to its end yet.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    /// The system that comes with the new secrets; `None`: it is the one that comes with the old ones, too.
    toplevel: Option<String>,
    files: Vec<Changed>,
}

/// A file.
#[derive(Debug, Serialize, Deserialize)]
struct Changed {
    path: PathBuf,
    /// Whether there was something before.
    was_there: bool,
}

/// Whether a power cut leaves what is there.
pub(super) fn is_on_disk(path: &Path) -> bool {
    !path.starts_with("/run")
}

/// Keeps what is in these places until the activation has come to its end. Can be done again after it was interrupted.
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
            files.push(Changed { path: (*path).to_owned(), was_there: place.look()?.is_some() });
        }
        let journal = Journal { toplevel: toplevel.map(str::to_owned), files };
        let json = serde_json::to_vec(&journal).map_err(|error| AgentError::Request(error.to_string()))?;
        if boot_unit::is_possible().is_ok() {
            UNIT.install()?;
        }
        replace(Path::new(JOURNAL), &json, 0o600)?;
    }
    places.iter().try_for_each(|(_, place)| place.keep_old())
}

/// The new secrets stay, or the old ones are back: there is nothing to undo any more.
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

/// Undoes what an activation has left that was cut off, unless its system is the one that runs.
pub(crate) fn undo() -> Result<(), AgentError> {
    let Some(journal) = read() else { return Ok(()) };
    let state = host::state();
    // What boots by default is a guess where nothing says yet what was booted.
    let boots = state.profile.filter(|_| state.generation.is_some());
    let runs = state.current.or(state.booted).or(boots);
    if journal.toplevel.is_none() || runs != journal.toplevel {
        for file in &journal.files {
            let place = Place::make(&file.path)?;
            if file.was_there {
                place.bring_old()?;
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
