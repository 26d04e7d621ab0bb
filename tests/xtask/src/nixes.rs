//! Versions of Nix to evaluate with: unpacked from Debian's releases, not installed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TaskError;
use crate::build::run;

/// Debian 12 has the oldest Nix that works, sid the newest that Debian has.
const RELEASES: [&str; 3] = ["bookworm", "trixie", "sid"];

/// Runs a program in the release's own root, with its own `/nix`; this machine's is not touched. The mounts are gone
/// with the process.
const WRAPPER: &str = r#"#!/bin/sh
root=$(cd "$(dirname "$0")/../root" && pwd)
exec unshare --mount sh -c '
  root=$1; repository=$2; shift 2
  for directory in /proc /dev /tmp "$repository"; do
    mkdir -p "$root$directory" && mount --rbind "$directory" "$root$directory" || exit 1
  done
  exec chroot "$root" @program@ "$@"
' sh "$root" "$(cd "$root/../../../.." && pwd)" "$@"
"#;

/// The wrappers' names and what they run; `inside` is followed by any program there is, also by those of this
/// repository.
const WRAPPERS: [(&str, &str); 4] = [
    ("nix", "/usr/bin/nix"),
    ("nix-instantiate", "/usr/bin/nix-instantiate"),
    ("nix-store", "/usr/bin/nix-store"),
    ("inside", ""),
];

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
        match made.and_then(|()| wrap(&directory)).and_then(|()| version(&directory)) {
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
    wrap(&new)?;
    // Where programs look for their loader; the package that makes these links was not needed for anything else.
    for name in ["lib", "lib64", "bin"] {
        let link = root.join(name);
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(format!("usr/{name}"), &link)
                .map_err(TaskError::io(link.display()))?;
        }
    }
    // No cache can be reached, and nothing is built, so there is nobody to build as.
    let files = [
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/group", "root:x:0:\n"),
        ("etc/nix/nix.conf", "substituters =\nbuild-users-group =\nsandbox = false\n"),
    ];
    for (name, text) in files {
        let path = root.join(name);
        let parent = path.parent().unwrap_or(&root);
        std::fs::create_dir_all(parent).map_err(TaskError::io(parent.display()))?;
        std::fs::write(&path, text).map_err(TaskError::io(path.display()))?;
    }
    // Once, before several ask for it at the same time.
    let store = new.join("bin/nix-store");
    run(Command::new(&store).arg("--init"), "making a store")?;
    std::fs::rename(&new, directory).map_err(TaskError::io(directory.display()))
}

fn wrap(directory: &Path) -> Result<(), TaskError> {
    let bin = directory.join("bin");
    std::fs::create_dir_all(&bin).map_err(TaskError::io(bin.display()))?;
    for (name, program) in WRAPPERS {
        let path = bin.join(name);
        std::fs::write(&path, WRAPPER.replace("@program@", program))
            .map_err(TaskError::io(path.display()))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .map_err(TaskError::io(path.display()))?;
    }
    Ok(())
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
