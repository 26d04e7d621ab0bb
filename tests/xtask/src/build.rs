//! The provider, in a mirror laid out as Terraform wants it, and the command line beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TaskError;

/// Builds both and returns the provider's path in the mirror.
pub(crate) fn build(release: bool) -> Result<PathBuf, TaskError> {
    let root = e2e::repository();
    let mut cargo = cargo(&[
        "build",
        "--quiet",
        "--locked",
        "-p",
        "terraform-provider-nixos",
        "-p",
        "nixos-activator-cli",
    ]);
    if release {
        cargo.arg("--release");
    }
    run(&mut cargo, "building the provider")?;
    let version = env!("CARGO_PKG_VERSION");
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let directory =
        root.join("target/mirror").join(e2e::SOURCE).join(version).join(format!("linux_{architecture}"));
    std::fs::create_dir_all(&directory).map_err(TaskError::io(directory.display()))?;
    let built = target().join(if release { "release" } else { "debug" });
    let place = |program: &str, placed: &Path| {
        // A new file: a program that still runs keeps the old one.
        let _ = std::fs::remove_file(placed);
        std::fs::copy(built.join(program), placed).map(drop).map_err(TaskError::io(placed.display()))
    };
    let command_line = root.join(e2e::COMMAND_LINE);
    if let Some(directory) = command_line.parent() {
        std::fs::create_dir_all(directory).map_err(TaskError::io(directory.display()))?;
    }
    place("nixos-activator", &command_line)?;
    let placed = directory.join(format!("terraform-provider-nixos_v{version}"));
    place("terraform-provider-nixos", &placed)?;
    Ok(placed)
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    let elsewhere = std::env::var_os("CARGO_TARGET_DIR").filter(|path| !path.is_empty());
    // Cargo takes a path that is not absolute from where it is started.
    e2e::repository().join(elsewhere.map_or_else(|| "target".into(), PathBuf::from))
}

/// Cargo, in the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(e2e::repository());
    // What `cargo run` says about this crate would have build scripts of others (ring's) run anew, here and again in the next run.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command
}

/// Runs a command whose output the user sees.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<(), TaskError> {
    let status = command.status().map_err(TaskError::io(what))?;
    if status.success() { Ok(()) } else { Err(TaskError::Failed(format!("{what} failed"))) }
}
