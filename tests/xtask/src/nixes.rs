//! Versions of Nix to evaluate with: unpacked from Debian's releases, not installed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TaskError;

/// Debian 12 has the oldest Nix that works, sid the newest that Debian has.
const RELEASES: [&str; 3] = ["bookworm", "trixie", "sid"];

const PROGRAMS: [&str; 3] = ["nix", "nix-instantiate", "nix-store"];

/// Directories with a `bin` each. A release that cannot be had today is reported and left out.
pub(crate) fn nixes() -> Result<Vec<PathBuf>, TaskError> {
    let cache = e2e::repository().join("target/lab");
    std::fs::create_dir_all(&cache).map_err(TaskError::io(cache.display()))?;
    let cache = std::fs::canonicalize(&cache).map_err(TaskError::io(cache.display()))?;
    let mirror = lab::mirror()?;
    let mut all = vec![];
    for release in RELEASES {
        let directory = cache.join(format!("nix-{release}"));
        let made = if directory.is_dir() { Ok(()) } else { unpack(release, &mirror, &directory) };
        match made.and_then(|()| version(&directory)) {
            Ok(version) => {
                println!("   {version} of Debian {release}");
                all.push(directory);
            }
            Err(error) => println!("   no Nix of Debian {release}, its tests are left out: {error}"),
        }
    }
    if all.is_empty() {
        return Err(TaskError::Failed("no Nix could be unpacked to evaluate with".to_owned()));
    }
    Ok(all)
}

fn unpack(release: &str, mirror: &str, directory: &Path) -> Result<(), TaskError> {
    let new = directory.with_extension("new");
    let _ = std::fs::remove_dir_all(&new);
    let root = new.join("root");
    std::fs::create_dir_all(&new).map_err(TaskError::io(new.display()))?;
    let output = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=extract", "--include=nix-bin"])
        // A mirror's copy of sid may be older than its Release file allows.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .args([release, &root.display().to_string(), mirror])
        .output()
        .map_err(TaskError::io("mmdebstrap"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last = text.lines().rev().find(|line| line.contains("E:")).unwrap_or_default();
        return Err(TaskError::Failed(format!("mmdebstrap {release}: {}", last.trim())));
    }
    let bin = new.join("bin");
    std::fs::create_dir_all(&bin).map_err(TaskError::io(bin.display()))?;
    // Its own loader and libraries, found beside it wherever the directory goes; one program that is known by its name.
    for program in PROGRAMS {
        let script = format!(
            "#!/bin/sh\nroot=$(dirname \"$0\")/../root\nlib=$root/usr/lib/x86_64-linux-gnu\n\
             exec \"$lib/ld-linux-x86-64.so.2\" --library-path \"$lib:$root/lib/x86_64-linux-gnu\" --argv0 {program} \
             \"$root/usr/bin/nix\" \"$@\"\n"
        );
        let path = bin.join(program);
        std::fs::write(&path, script).map_err(TaskError::io(path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .map_err(TaskError::io(path.display()))?;
    }
    // The loader's place differs between releases.
    let loader = root.join("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
    if !loader.exists() {
        let elsewhere = root.join("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
        std::fs::create_dir_all(root.join("usr/lib/x86_64-linux-gnu"))
            .map_err(TaskError::io(loader.display()))?;
        std::fs::copy(&elsewhere, &loader).map_err(TaskError::io(elsewhere.display()))?;
    }
    std::fs::rename(&new, directory).map_err(TaskError::io(directory.display()))
}

fn version(directory: &Path) -> Result<String, TaskError> {
    let nix = directory.join("bin/nix");
    let output = Command::new(&nix).arg("--version").output().map_err(TaskError::io(nix.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !text.is_empty() {
        Ok(text)
    } else {
        Err(TaskError::Failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
