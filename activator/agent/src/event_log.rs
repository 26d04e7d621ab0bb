//! The events of a running activation, written to its file and to the journal.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use nixos_agent::{Event, EventKind, Phase};

use crate::activation::Activation;
use crate::error::{AgentError, io_error};

/// Adds events to the file of an activation.
pub(crate) struct EventLog {
    file: File,
    /// The number of the next event.
    next: u64,
}

impl EventLog {
    /// Opens the file and goes on behind the last event in it.
    pub(crate) fn open(activation: &Activation) -> Result<Self, AgentError> {
        let path = activation.events_file();
        let next = activation.events().last().map_or(0, |event| event.seq + 1);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        Ok(Self { file: file.map_err(io_error(path.display()))?, next })
    }

    /// Writes down that a phase begins. It is on disk when this returns.
    pub(crate) fn phase(&mut self, phase: Phase) {
        println!("{phase:?}");
        self.add(EventKind::Phase(phase));
        self.sync();
    }

    /// Adds an event. A full disk is ignored: it must not keep the machine from getting back to a good state.
    pub(crate) fn add(&mut self, kind: EventKind) {
        let event = Event { seq: self.next, kind };
        self.next += 1;
        if let Ok(mut line) = serde_json::to_vec(&event) {
            line.push(b'\n');
            let _ = self.file.write_all(&line);
        }
    }

    /// Makes sure that all events are on disk.
    pub(crate) fn sync(&self) {
        let _ = self.file.sync_all();
    }
}
