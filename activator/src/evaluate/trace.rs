//! Watching an evaluation: which files it looks at.
//!
//! Nix is run under `ptrace`, with a seccomp filter that stops it at the few system calls that look at the file
//! system, so that all others cost nothing. Every process it starts is watched too. What is *not* counted:
//!
//! - the store, whose paths never change their content, but for the tree of a flake that is watched; Nix' own
//!   database and caches; `/proc`, `/sys` and `/dev`;
//! - variables, which are part of the question, and the clock: a specification that uses `builtins.currentTime` is
//!   not seen to change.
//!
//! A node is not remembered when the network was used before it was done, or what an earlier evaluation fetched
//! without a hash.
//!
//! The tracer is this program itself, started again with a hidden argument: see [`main_if_asked`]. It exists on Linux
//! on x86-64; elsewhere nothing is watched.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use super::reads::Reads;

mod marks;

use super::store_tree::Root;
use marks::WATCH;

/// Set by a program that can be its own tracer.
static READY: OnceLock<PathBuf> = OnceLock::new();

/// To be called first by `main`: does the tracer's part where this process was started as one.
pub fn main_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == WATCH) {
        let arguments: Vec<OsString> = arguments.collect();
        return Some(linux::main(&arguments));
    }
    if linux::SUPPORTED
        && let Ok(own) = std::env::current_exe()
    {
        let _ = READY.set(own);
    }
    None
}

/// The way to watch.
#[derive(Clone, Debug)]
pub(super) struct Tracer {
    program: PathBuf,
    /// What the names of all marks begin with.
    pub(super) marks: String,
    /// A flake's tree. An evaluation that is pure reads no other files, but for those whose hashes it knows.
    pub(super) root: Option<Root>,
}

/// One evaluation that is watched.
#[derive(Debug)]
pub(super) struct Watch {
    command: Vec<OsString>,
    report: tempfile::NamedTempFile,
}

impl Tracer {
    /// Whether this program can be one.
    pub(super) fn is_there() -> bool {
        READY.get().is_some()
    }

    /// Where this program can be one.
    pub(super) fn find(marks: String, root: Option<Root>) -> Option<Self> {
        READY.get().map(|program| Self { program: program.clone(), marks, root })
    }

    /// `slot` is the number of one of the evaluations that run at the same time.
    pub(super) fn watch(&self, slot: usize) -> std::io::Result<Watch> {
        let report = tempfile::Builder::new().prefix("nixos-reads-").tempfile()?;
        let program = self.program.clone().into_os_string();
        let root = self.root.as_ref();
        let hash = root.map(|root| root.nar_hash().into()).unwrap_or_default();
        let root = root.map(|root| root.path().into()).unwrap_or_default();
        let (slot, marks) = (slot.to_string().into(), self.marks.clone().into());
        let command = vec![program, WATCH.into(), report.path().into(), slot, marks, root, hash];
        Ok(Watch { command, report })
    }
}

impl Watch {
    /// What to put before the command line that is watched.
    pub(super) fn command(&self) -> &[OsString] {
        &self.command
    }

    /// What was seen; `None` where nothing could be.
    pub(super) fn finish(self) -> Option<Reads> {
        linux::read_report(self.report.path())
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod linux;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod linux {
    //! Nothing can be watched here.

    pub(super) const SUPPORTED: bool = false;

    pub(super) fn main(_arguments: &[std::ffi::OsString]) -> std::process::ExitCode {
        std::process::ExitCode::FAILURE
    }

    pub(super) fn read_report(_report: &std::path::Path) -> Option<super::Reads> {
        None
    }
}
