//! The provider, in a mirror laid out as Terraform wants it, and the command line beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TaskError;

// What each step compiles. All have package e2e in them, whose manifest has the AWS SDK compiled with the same
// features everywhere: otherwise each step would compile it anew, for minutes.

/// The provider and the command line.
const PROVIDER: &[&str] = &["-p", "terraform-provider-nixos", "-p", "nixos-activator-cli", "-p", "e2e"];
/// The same as they are released, with nothing of the tests.
const RELEASE: &[&str] = &["-p", "terraform-provider-nixos", "-p", "nixos-activator-cli", "--release"];
/// The unit tests.
pub(crate) const UNIT_TESTS: &[&str] = &["--workspace", "--exclude", "e2e", "--exclude", "lab"];
/// The tests on real hosts.
pub(crate) const HOST_TESTS: &[&str] = &["-p", "lab", "-p", "e2e"];

/// Builds both and returns the provider's path in the mirror.
pub(crate) fn build(release: bool) -> Result<PathBuf, TaskError> {
    let root = e2e::repository();
    let mut cargo = cargo(&["build", "--quiet", "--locked"]);
    cargo.args(if release { RELEASE } else { PROVIDER });
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
    // What `cargo run` says about this crate would have build scripts of others (ring's) run anew, here and again in
    // the next run.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{HOST_TESTS, PROVIDER, UNIT_TESTS, cargo};

    /// What cargo says of the packages that these words select: a line each.
    fn tree(words: &[&str]) -> BTreeSet<String> {
        let output =
            cargo(&["tree", "--locked", "--quiet", "--prefix", "none"]).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        lines
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| line.trim_end_matches(" (*)").to_owned())
            .collect()
    }

    #[test]
    fn the_aws_sdk_is_compiled_once() {
        let below = tree(&["-p", "aws-sdk-ec2", "-p", "aws-sdk-s3", "-e", "normal,build", "-f", "{p}"]);
        let features = |packages: &[&str], edges: &str| -> BTreeSet<String> {
            let all = tree(&[packages, &["-e", edges, "-f", "{p}|{f}"]].concat());
            all.into_iter()
                .filter(|line| line.split('|').next().is_some_and(|name| below.contains(name)))
                .collect()
        };
        let (normal, all) = ("normal,build", "normal,build,dev");
        let lints = features(&["--workspace"], all);
        assert!(lints.iter().any(|line| line.starts_with("tokio v")), "{lints:#?}");
        // Documentation, xtask itself, and what it has compiled.
        for (packages, edges) in [
            (&["--workspace"][..], normal),
            (&["-p", "xtask"], normal),
            (PROVIDER, normal),
            (UNIT_TESTS, all),
            (HOST_TESTS, all),
        ] {
            let found = features(packages, edges);
            let differ: Vec<_> = found.symmetric_difference(&lints).collect();
            assert!(
                differ.is_empty(),
                "{packages:?}: tests/e2e/Cargo.toml has to name what differs: {differ:#?}"
            );
        }
    }
}
