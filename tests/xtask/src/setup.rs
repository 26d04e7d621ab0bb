//! The machine's part: Debian packages, Terraform, root.

use std::process::Command;

use crate::TaskError;

/// Installs what is missing, by apt and nothing else.
pub(crate) fn setup() -> Result<(), TaskError> {
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

/// Fails early and clearly where real hosts cannot be booted.
pub(crate) fn check_lab() -> Result<(), TaskError> {
    if !is_root() {
        return Err(TaskError::Failed(
            "real hosts need root (namespaces, mounts): run this as root or through sudo. Without it only unit tests can \
             run: cargo test --workspace --exclude e2e --exclude lab"
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
