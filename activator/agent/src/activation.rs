//! The files of one activation.
//!
//! What has to survive a reboot is in `/var/lib/nixos-agent/deployments/ID/`. What has to be written even when the disk
//! is full is in `/run/nixos-agent/ID/`, which is in memory and is there only while the activation is at work.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nixos_agent::{ActivationId, Event, EventKind, Phase, Request};

use crate::error::{AgentError, io_error, json_error};
use crate::files::replace;

/// The directory of all activations of this machine. Its name is older than the word "activation".
const ON_DISK: &str = "/var/lib/nixos-agent/deployments";

const IN_MEMORY: &str = "/run/nixos-agent";

/// The note that the client could log in anew. It is there as soon as the client has said so.
pub(crate) const REACHABLE: &str = "reachable";

/// The note with the client's [`Answer`](nixos_agent::Answer) that ends the wait for its decision.
pub(crate) const DECISION: &str = "decision";

/// The file with the activation's number among all of this machine.
const NUMBER: &str = "number";

const REQUEST: &str = "request.json";

/// How many activations stay on disk.
const REMEMBERED: usize = 10;

/// The files of one activation.
#[derive(Clone, Debug)]
pub(crate) struct Activation {
    id: ActivationId,
    directory: PathBuf,
}

impl Activation {
    /// The files of an activation that exists.
    pub(crate) fn open(id: &ActivationId) -> Self {
        Self { id: id.clone(), directory: Path::new(ON_DISK).join(id.as_str()) }
    }

    /// Writes a new activation down.
    pub(crate) fn create(request: &Request) -> Result<Self, AgentError> {
        let (on_disk, in_memory) = (Path::new(ON_DISK), Path::new(IN_MEMORY));
        remove_old(on_disk, in_memory);
        let last = directories(on_disk).map(|directory| number(&directory)).max().unwrap_or_default();
        let activation = Self::open(&request.id);
        let make = |path: &Path, recursive| DirBuilder::new().mode(0o700).recursive(recursive).create(path);
        make(on_disk, true).map_err(io_error(ON_DISK))?;
        make(&activation.directory, false).map_err(io_error(activation.directory.display()))?;
        make(&activation.in_memory(""), true).map_err(io_error(IN_MEMORY))?;
        let json = serde_json::to_vec(request).map_err(json_error)?;
        replace(&activation.on_disk(NUMBER), (last + 1).to_string().as_bytes(), 0o600)?;
        replace(&activation.on_disk(REQUEST), &json, 0o600)?;
        Ok(activation)
    }

    pub(crate) fn id(&self) -> &ActivationId {
        &self.id
    }

    /// The path of a file that survives a reboot.
    pub(crate) fn on_disk(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The path of a file that is gone after a reboot.
    pub(crate) fn in_memory(&self, name: &str) -> PathBuf {
        Path::new(IN_MEMORY).join(self.id.as_str()).join(name)
    }

    /// The file with the request.
    pub(crate) fn request_file(&self) -> PathBuf {
        self.on_disk(REQUEST)
    }

    /// Writes a note for another process of the activation: in memory, or on disk where memory is full.
    pub(crate) fn write_note(&self, name: &str, content: &[u8]) -> Result<(), AgentError> {
        let in_memory = replace(&self.in_memory(name), content, 0o600);
        in_memory.or_else(|_| replace(&self.on_disk(name), content, 0o600))
    }

    /// Reads a note; `None`: no process has written it yet.
    pub(crate) fn read_note(&self, name: &str) -> Option<String> {
        [self.in_memory(name), self.on_disk(name)].iter().find_map(|path| std::fs::read_to_string(path).ok())
    }

    /// Removes a note.
    pub(crate) fn remove_note(&self, name: &str) {
        for path in [self.in_memory(name), self.on_disk(name)] {
            let _ = std::fs::remove_file(path);
        }
    }

    /// The phase that the activation has reached, according to its events.
    pub(crate) fn last_phase(&self) -> Option<Phase> {
        self.events().into_iter().rev().find_map(|event| match event.kind {
            EventKind::Phase(phase) => Some(phase),
            EventKind::Output(_) | EventKind::Done(_) => None,
        })
    }

    /// Whether the activation has written its report.
    pub(crate) fn is_over(&self) -> bool {
        self.events().iter().any(|event| matches!(event.kind, EventKind::Done(_)))
    }

    /// The file with the events, one JSON object a line.
    pub(crate) fn events_file(&self) -> PathBuf {
        self.on_disk("events.ndjson")
    }

    /// The events so far. A line that a power cut has cut off is left out.
    pub(crate) fn events(&self) -> Vec<Event> {
        let text = std::fs::read(self.events_file()).unwrap_or_default();
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    /// The request that the client has made.
    pub(crate) fn request(&self) -> Result<Request, AgentError> {
        let path = self.request_file();
        let text = std::fs::read(&path).map_err(io_error(path.display()))?;
        serde_json::from_slice(&text).map_err(json_error)
    }
}

/// Removes the oldest activations from the disk.
///
/// An activation that is at work stays: its client and the rescue timer have to find it. It is known by its directory
/// in memory, which goes with its report.
fn remove_old(on_disk: &Path, in_memory: &Path) {
    let mut over: Vec<_> = directories(on_disk).collect();
    over.retain(|directory| directory.file_name().is_some_and(|id| !in_memory.join(id).exists()));
    // By number and not by time, because the clock may have been set back.
    over.sort_by_key(|directory| number(directory));
    let surplus = over.len().saturating_sub(REMEMBERED - 1);
    for directory in over.into_iter().take(surplus) {
        let _ = std::fs::remove_dir_all(directory);
    }
}

/// The directories of all activations on disk.
fn directories(on_disk: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(on_disk).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The number of an activation, by its directory.
fn number(directory: &Path) -> u64 {
    let text = std::fs::read_to_string(directory.join(NUMBER)).unwrap_or_default();
    text.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn an_activation_at_work_is_not_removed_whatever_the_clock_says() {
        let directory = tempfile::tempdir().unwrap();
        let (on_disk, in_memory) = (directory.path().join("deployments"), directory.path().join("memory"));
        for number in 1..=14 {
            let activation = on_disk.join(format!("t{number}"));
            std::fs::create_dir_all(&activation).unwrap();
            std::fs::write(activation.join(NUMBER), number.to_string()).unwrap();
            // The clock was set back before each of them.
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(number * 3600);
            File::open(&activation).unwrap().set_modified(time).unwrap();
        }
        std::fs::create_dir_all(in_memory.join("t2")).unwrap();
        remove_old(&on_disk, &in_memory);
        let mut left: Vec<u64> = directories(&on_disk).map(|directory| number(&directory)).collect();
        left.sort_unstable();
        assert_eq!(left, [2, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    }
}
