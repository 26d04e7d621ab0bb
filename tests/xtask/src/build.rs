//! The provider, in a mirror laid out as Terraform wants it.

use std::path::PathBuf;
use std::process::Command;

use crate::TaskError;

/// Builds the provider and returns its path in the mirror.
pub(crate) fn build(release: bool) -> Result<PathBuf, TaskError> {
    let root = e2e::repository();
    let mut cargo = cargo(&["build", "--quiet", "--locked", "-p", "terraform-provider-nixos"]);
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
    let built =
        root.join("target").join(if release { "release" } else { "debug" }).join("terraform-provider-nixos");
    let placed = directory.join(format!("terraform-provider-nixos_v{version}"));
    // A new file: a provider that still runs keeps the old one.
    let _ = std::fs::remove_file(&placed);
    std::fs::copy(&built, &placed).map_err(TaskError::io(built.display()))?;
    Ok(placed)
}

/// Cargo, in the repository.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(e2e::repository());
    command
}

/// Runs a command whose output the user sees.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<(), TaskError> {
    let status = command.status().map_err(TaskError::io(what))?;
    if status.success() { Ok(()) } else { Err(TaskError::Failed(format!("{what} failed"))) }
}
