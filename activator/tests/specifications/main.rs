//! Specifications of all kinds, good and bad, through every Nix that `NIX_VERSIONS` lists (directories with `bin/nix`
//! in each, separated by `:`; `cargo xtask test` gets some), or else the one on PATH.
//!
//! They are evaluated by `examples/evaluate.rs`, which does what the provider does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod flakes;
mod meaning;
mod mistakes;
mod nixops;
mod processes;
mod systems;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod watching;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// One Nix: the directory it is in comes first in this PATH.
struct Installation(OsString);

impl Installation {
    /// Where its store is, as seen from here.
    fn store(&self) -> PathBuf {
        let own = std::env::split_paths(&self.0).next().unwrap().join("../root/nix/store");
        if own.is_dir() { own } else { "/nix/store".into() }
    }

    /// A command that sees the store of this Nix as its own: found on its PATH, or else a path.
    fn inside(&self, program: impl AsRef<Path>) -> Command {
        let wrapper = std::env::split_paths(&self.0).next().unwrap().join("inside");
        let program = program.as_ref();
        let mut command;
        if wrapper.exists() {
            command = Command::new(wrapper);
            command.arg(Path::new("/usr/bin").join(program)).env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        } else {
            command = Command::new(program);
            command.env("PATH", &self.0);
        }
        command
    }
}

fn installations() -> Vec<Installation> {
    let path = std::env::var_os("PATH").unwrap();
    let mut all = vec![];
    let listed = std::env::var_os("NIX_VERSIONS").unwrap_or_default();
    for directory in std::env::split_paths(&listed).filter(|directory| directory.is_absolute()) {
        let bin = std::iter::once(directory.join("bin"));
        let path = std::env::join_paths(bin.chain(std::env::split_paths(&path))).unwrap();
        all.push(Installation(path));
    }
    if all.is_empty() {
        all.push(Installation(path));
    }
    all
}

/// `examples/evaluate.rs`, where cargo puts it: beside the directory of this test.
fn example() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/evaluate")
}

/// What came of an evaluation.
struct Outcome {
    result: Value,
    error: String,
    took: Duration,
}

/// A directory with specifications in it.
struct Site(tempfile::TempDir);

impl Site {
    fn new(files: &[(&str, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self(directory)
    }

    fn evaluate(&self, nix: &Installation, more: &[&str]) -> Outcome {
        self.evaluate_other(nix, more, self.0.path().join("network.nix"))
    }

    /// The same with another specification.
    fn evaluate_other(&self, nix: &Installation, more: &[&str], spec: impl AsRef<OsStr>) -> Outcome {
        self.evaluate_by(Command::new(example()), nix, more, spec)
    }

    fn evaluate_by(
        &self,
        mut command: Command,
        nix: &Installation,
        more: &[&str],
        spec: impl AsRef<OsStr>,
    ) -> Outcome {
        let nixpkgs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/mini-nixos");
        let start = Instant::now();
        command.arg("--path").arg(format!("nixpkgs={}", nixpkgs.canonicalize().unwrap().display()));
        command.args(["--cache", "off", "--json"]).args(more).arg(spec).env("HOME", self.0.path());
        if command.get_envs().all(|(name, _)| name != "PATH") {
            command.env("PATH", &nix.0);
        }
        let output = command.output().unwrap();
        Outcome {
            result: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: start.elapsed(),
        }
    }
}

const BASE: &str = "nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\";";

fn complete(text: &str) -> String {
    text.replace("BASE", BASE)
}
