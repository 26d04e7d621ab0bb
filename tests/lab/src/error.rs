//! What can go wrong with a lab, and the one place that runs programs.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Why there is no lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces and mounts need root.
    #[error("the lab needs root: run it as root or through sudo")]
    NotRoot,
    /// Programs are missing.
    #[error("the lab needs Debian packages that are not installed: apt-get install {}", .0.join(" "))]
    Missing(Vec<&'static str>),
    /// A file or directory.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// What.
        source: io::Error,
    },
    /// A program that ended with a failure.
    #[error("`{command}` failed: {message}")]
    Command {
        /// The program and its arguments.
        command: String,
        /// The end of what it said.
        message: String,
    },
    /// A host that did not come up.
    #[error("host {host} did not come up; its console ends with:\n{console}")]
    Boot {
        /// Its name.
        host: String,
        /// The last lines of its console.
        console: String,
    },
}

impl LabError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { path, source }
    }
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, LabError> {
    let failed = |message: String| LabError::Command {
        command: format!("{program} {}", arguments.join(" ")),
        message,
    };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.trim().lines().collect();
        return Err(failed(lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
