//! What is on disk about an activation: `/var/lib/nixos-agent/deployments/ID/`; and in memory, for what must be written even
//! when the disk is full: `/run/nixos-agent/ID/`.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nixos_agent::{ActivationId, Event, EventKind, Phase, Request};
use zeroize::Zeroizing;

use crate::AgentError;

const DEPLOYMENTS: &str = "/var/lib/nixos-agent/deployments";

/// Appears in memory once somebody has logged in anew.
pub(crate) const REACHABLE: &str = "reachable";

/// Appears in memory with the [`Answer`](nixos_agent::Answer) that ends the holding.
pub(crate) const VERDICT: &str = "verdict";

const VOLATILE: &str = "/run/nixos-agent";

/// Counts activations.
const NUMBER: &str = "number";

/// How many activations are remembered.
const REMEMBERED: usize = 10;

/// The files of one activation.
#[derive(Clone, Debug)]
pub(crate) struct Deployment {
    id: ActivationId,
    directory: PathBuf,
}

impl Deployment {
    /// The files of an activation that exists.
    pub(crate) fn open(id: &ActivationId) -> Self {
        Self { id: id.clone(), directory: Path::new(DEPLOYMENTS).join(id.as_str()) }
    }

    /// Writes a new activation down.
    pub(crate) fn create(request: &Request) -> Result<Self, AgentError> {
        let (deployments, volatile) = (Path::new(DEPLOYMENTS), Path::new(VOLATILE));
        forget_old(deployments, volatile);
        let last = records(deployments).map(|record| number(&record)).max().unwrap_or_default();
        let deployment = Self::open(&request.id);
        let private =
            |path: &Path, recursive| DirBuilder::new().mode(0o700).recursive(recursive).create(path);
        private(Path::new(DEPLOYMENTS), true).map_err(failed(DEPLOYMENTS))?;
        private(&deployment.directory, false).map_err(failed(&deployment.directory.display().to_string()))?;
        private(&deployment.volatile(""), true).map_err(failed(VOLATILE))?;
        let json = serde_json::to_vec(request).map_err(|error| AgentError::Request(error.to_string()))?;
        replace(&deployment.path(NUMBER), (last + 1).to_string().as_bytes(), 0o600)?;
        replace(&deployment.path("request.json"), &json, 0o600)?;
        Ok(deployment)
    }

    pub(crate) fn id(&self) -> &ActivationId {
        &self.id
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A file that is gone after a reboot.
    pub(crate) fn volatile(&self, name: &str) -> PathBuf {
        Path::new(VOLATILE).join(self.id.as_str()).join(name)
    }

    /// Leaves a word for another process of the activation: in memory, or on disk where there is no room in memory.
    pub(crate) fn leave(&self, name: &str, content: &[u8]) -> Result<(), AgentError> {
        replace(&self.volatile(name), content, 0o600).or_else(|_| replace(&self.path(name), content, 0o600))
    }

    /// A word that was left.
    pub(crate) fn find(&self, name: &str) -> Option<String> {
        [self.volatile(name), self.path(name)].iter().find_map(|path| std::fs::read_to_string(path).ok())
    }

    /// Takes a word away.
    pub(crate) fn forget(&self, name: &str) {
        for path in [self.volatile(name), self.path(name)] {
            let _ = std::fs::remove_file(path);
        }
    }

    /// The phase it was in last, according to its events.
    pub(crate) fn last_phase(&self) -> Option<Phase> {
        self.events().into_iter().rev().find_map(|event| match event.kind {
            EventKind::Phase(phase) => Some(phase),
            EventKind::Output(_) | EventKind::Done(_) => None,
        })
    }

    /// Whether it has said its last word.
    pub(crate) fn is_over(&self) -> bool {
        self.events().iter().any(|event| matches!(event.kind, EventKind::Done(_)))
    }

    /// What is written in its file of events. A line that was cut off by a power failure is none.
    pub(crate) fn events(&self) -> Vec<Event> {
        let text = std::fs::read(self.path("events.ndjson")).unwrap_or_default();
        text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }

    pub(crate) fn request(&self) -> Result<Request, AgentError> {
        let path = self.path("request.json");
        let text = std::fs::read(&path).map_err(failed(&path.display().to_string()))?;
        serde_json::from_slice(&text).map_err(|error| AgentError::Request(error.to_string()))
    }
}

/// Replaces a file as a whole, so that a power cut leaves the old one or the new one.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), AgentError> {
    let new = path.with_added_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    write().map_err(failed(&path.display().to_string()))
}

/// The events of a running activation, in a file and in the journal.
pub(crate) struct Events {
    file: File,
    seq: u64,
}

impl Events {
    pub(crate) fn open(deployment: &Deployment) -> Result<Self, AgentError> {
        let path = deployment.path("events.ndjson");
        let seq = deployment.events().last().map_or(0, |event| event.seq + 1);
        let open = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        Ok(Self { file: open.map_err(failed(&path.display().to_string()))?, seq })
    }

    /// The phase is on disk before its work begins.
    pub(crate) fn phase(&mut self, phase: Phase) {
        println!("{phase:?}");
        self.add(EventKind::Phase(phase));
        let _ = self.file.sync_all();
    }

    /// Makes sure that what was added is on disk.
    pub(crate) fn sync(&self) {
        let _ = self.file.sync_all();
    }

    pub(crate) fn add(&mut self, kind: EventKind) {
        let event = Event { seq: self.seq, kind };
        self.seq += 1;
        // A full disk must not keep the machine from getting back to a good state.
        if let Ok(mut line) = serde_json::to_vec(&event) {
            line.push(b'\n');
            let _ = self.file.write_all(&line);
        }
    }
}

/// Removes the oldest activations. One that is at work has a directory in `volatile` until its last word, and stays: who confirms it, and
/// whatever ends it when nobody does, has to find it.
fn forget_old(deployments: &Path, volatile: &Path) {
    let mut over: Vec<_> = records(deployments).collect();
    over.retain(|record| record.file_name().is_some_and(|id| !volatile.join(id).exists()));
    // Not by time, which may be set back.
    over.sort_by_key(|record| number(record));
    let surplus = over.len().saturating_sub(REMEMBERED - 1);
    for record in over.into_iter().take(surplus) {
        let _ = std::fs::remove_dir_all(record);
    }
}

fn records(deployments: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(deployments).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The place of an activation among all of this machine.
fn number(record: &Path) -> u64 {
    let text = std::fs::read_to_string(record.join(NUMBER)).unwrap_or_default();
    text.parse().unwrap_or_default()
}

pub(crate) fn failed(what: &str) -> impl Fn(std::io::Error) -> AgentError + use<> {
    let what = what.to_owned();
    move |source| AgentError::Io { what: what.clone(), source }
}

/// Reads a stream with secrets in it to its end; its memory is wiped when it goes, and so is each one that was too small for it.
pub(crate) fn read_secret(mut stream: impl std::io::Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; 64 << 10]);
    let mut filled = 0;
    loop {
        if filled == bytes.len() {
            let mut larger = Zeroizing::new(vec![0; 2 * filled]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
        match stream.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_of_any_length_is_read_whole() {
        for length in [0, 1, 64 << 10, (64 << 10) + 1, 300_000] {
            let bytes: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            assert!(*read_secret(bytes.as_slice()).unwrap() == bytes, "{length}");
        }
    }

    #[test]
    fn what_is_at_work_is_not_forgotten_whatever_the_clock_says() {
        let directory = tempfile::tempdir().unwrap();
        let (deployments, volatile) =
            (directory.path().join("deployments"), directory.path().join("volatile"));
        for number in 1..=14 {
            let record = deployments.join(format!("t{number}"));
            std::fs::create_dir_all(&record).unwrap();
            std::fs::write(record.join(NUMBER), number.to_string()).unwrap();
            // The clock was set back before each of them.
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(number * 3600);
            File::open(&record).unwrap().set_modified(time).unwrap();
        }
        std::fs::create_dir_all(volatile.join("t2")).unwrap();
        forget_old(&deployments, &volatile);
        let mut left: Vec<u64> = records(&deployments).map(|record| number(&record)).collect();
        left.sort_unstable();
        assert_eq!(left, [2, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
    }
}
