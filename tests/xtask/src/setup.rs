//! The machine's part: Debian and Python packages, Terraform, root.

use std::process::Command;

use crate::TaskError;

/// Installs what is missing: Debian packages by apt, and the stand-in for AWS from `PyPI` into a directory of its own.
pub(crate) fn setup() -> Result<(), TaskError> {
    packages()?;
    python()
}

fn packages() -> Result<(), TaskError> {
    let missing = lab::missing_packages();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_root() {
        return Err(TaskError::Failed(format!(
            "these Debian packages are missing: sudo apt-get install {list}"
        )));
    }
    println!("installing Debian packages: {list}");
    // Package lists may be older than the packages in the archive, or not there at all.
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], missing.as_slice()].concat())
}

/// Makes the virtual environment with the moto server, once for each list of packages.
fn python() -> Result<(), TaskError> {
    let directory = e2e::repository().join(e2e::PYTHON);
    let done = directory.join("packages");
    let list = e2e::PYTHON_PACKAGES.join("\n");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == list) {
        return Ok(());
    }
    println!("installing from PyPI: {}", e2e::PYTHON_PACKAGES.join(" "));
    let run = |command: &mut Command, what: &str| {
        let output = command.output().map_err(TaskError::io(what))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
        Err(TaskError::Failed(format!("{what}: {}", reason.trim())))
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&directory), "python3 -m venv")?;
    let mut pip = Command::new(directory.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(e2e::PYTHON_PACKAGES);
    run(&mut pip, "pip install")?;
    std::fs::write(&done, list).map_err(TaskError::io(done.display()))
}

/// Fails early and clearly where real hosts cannot be booted.
pub(crate) fn check_lab() -> Result<(), TaskError> {
    if !is_root() {
        return Err(TaskError::Failed(
            "real hosts need root (namespaces, mounts): run this as root or through sudo. Without it only \
             unit tests can run: cargo test --workspace --exclude e2e --exclude lab"
                .to_owned(),
        ));
    }
    e2e::terraform()?;
    setup()
}

pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn apt(arguments: &[&str]) -> Result<(), TaskError> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::process::Stdio::null())
        .status()
        .map_err(TaskError::io("apt-get"))?;
    // A repository of somebody else's that does not answer must not stop an update of ours.
    if status.success() || arguments.first() == Some(&"update") {
        Ok(())
    } else {
        Err(TaskError::Failed(format!("apt-get {} failed", arguments.join(" "))))
    }
}
