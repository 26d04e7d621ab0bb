//! Encrypted copies of secrets that survive a reboot.
//!
//! `systemd-creds` encrypts them, so that only this machine can read them: by its TPM where it has one, else by a key
//! that only root can read. A unit puts the secrets back at boot, before any service needs them.
//!
//! `/var/lib/nixos-agent/sealed/OWNER/` has one file a secret and a manifest. Files that are not in the manifest were
//! left by an activation that did not end, and do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use zeroize::Zeroizing;

use super::manifest::{self, Published, digest};
use super::memory::write_new;
use super::place::{Access, Found, Place};
use crate::boot_unit::{self, BootUnit};
use crate::error::{AgentError, io_error};
use crate::files::replace;
use crate::program;

const SEALED: &str = "/var/lib/nixos-agent/sealed";
const MANIFEST: &str = "manifest";
/// How often decrypting is tried again at boot, for all secrets together, and the pause before each try.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(500);
/// Services that use secrets start after `sysinit.target`, so this unit is before it.
///
/// The unit does nothing where the directory of secrets in memory exists. A switch starts all units that its targets
/// want, this one among them, and it must not bring secrets back then that the activation has replaced.
const UNIT: BootUnit = BootUnit {
    name: "nixos-agent-secrets.service",
    wanted_by: &["sysinit.target"],
    agent: "/var/lib/nixos-agent/sealed/nixos-agent",
    text: "[Unit]
Description=Secrets that this machine keeps for itself
DefaultDependencies=no
After=local-fs.target tpm2.target
Before=sysinit.target shutdown.target
Conflicts=shutdown.target
RequiresMountsFor=/var/lib/nixos-agent /var/lib/systemd
ConditionPathExists=/var/lib/nixos-agent/sealed/nixos-agent
ConditionPathExists=!/run/nixos-agent-secrets

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/var/lib/nixos-agent/sealed/nixos-agent put-back-secrets
",
};

/// Checks that this machine can keep encrypted copies.
pub(super) fn check_possible() -> Result<(), String> {
    let why = match program::output("systemd-creds", &["--version"]) {
        Err(error) => format!("`systemd-creds` (systemd 250 or newer) on the machine ({error})"),
        Ok(_) => match boot_unit::check_possible() {
            Ok(()) => return Ok(()),
            Err(why) => why,
        },
    };
    Err(format!("A secret is to `persist`, which needs {why}; nothing was changed."))
}

/// Writes the encrypted copy of a secret. It counts as soon as [`keep`] has written it into the manifest.
pub(super) fn seal(owner: &str, name: &str, fingerprint: &str, content: &[u8]) -> Result<(), AgentError> {
    let directory = Path::new(SEALED).join(owner);
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&directory)
        .map_err(io_error(directory.display()))?;
    let encrypted = creds("encrypt", name, content)?;
    let file = directory.join(file_name(name, fingerprint));
    let new = file.with_added_extension("new");
    write_new(&new, &encrypted)?;
    std::fs::rename(&new, &file).map_err(io_error(file.display()))
}

/// Makes these secrets, and no others of the owner, the ones that are put back after a reboot.
pub(super) fn keep(owner: &str, persistent: &[&Published]) -> Result<(), AgentError> {
    let directory = Path::new(SEALED).join(owner);
    if persistent.is_empty() {
        let _ = std::fs::remove_dir_all(&directory);
        return Ok(());
    }
    for one in persistent {
        if !directory.join(file_name(&one.name, &one.fingerprint)).exists() {
            let Some(Found::File { content, .. }) = Place::find(&one.path)?.read()? else {
                return Err(io_error(one.path.display())(std::io::ErrorKind::NotFound.into()));
            };
            seal(owner, &one.name, &one.fingerprint, &content)?;
        }
    }
    // Without digests: a thief of the disk could check guesses of a content against its digest.
    let lines = persistent.iter().map(|one| Published { digest: "-".to_owned(), ..(*one).clone() }.line());
    replace(&directory.join(MANIFEST), lines.collect::<String>().as_bytes(), 0o600)
}

/// Removes the copies that other owners have for these paths, because the paths are this owner's now.
///
/// Another deployment may have had the machine before. Without this its secrets would replace those of this deployment
/// at the next reboot.
pub(super) fn take_over(owner: &str, places: &BTreeSet<&Path>) -> Result<(), AgentError> {
    for (_, directory) in owners().filter(|(other, _)| other != owner) {
        let (taken, left): (Vec<_>, Vec<_>) =
            read(&directory).into_iter().partition(|one| places.contains(one.path.as_path()));
        if taken.is_empty() {
            continue;
        }
        let lines: String = left.iter().map(Published::line).collect();
        replace(&directory.join(MANIFEST), lines.as_bytes(), 0o600)?;
        for one in &taken {
            let _ = std::fs::remove_file(directory.join(file_name(&one.name, &one.fingerprint)));
        }
        if left.is_empty() {
            let _ = std::fs::remove_dir_all(&directory);
        }
    }
    Ok(())
}

/// Removes the copies of an owner that are not in the manifest.
///
/// Only for the agent that holds the lock: another activation may be about to write its copies into the manifest.
pub(super) fn sweep(owner: &str) {
    let directory = Path::new(SEALED).join(owner);
    let listed: Vec<String> =
        read(&directory).iter().map(|one| file_name(&one.name, &one.fingerprint)).collect();
    for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != MANIFEST && !listed.contains(&name) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    // Fails, as it should, where something is in the directory.
    let _ = std::fs::remove_dir(&directory);
    if owners().next().is_none() {
        uninstall();
    }
}

/// After a reboot: puts every secret back in its place. The error names those that cannot be decrypted. The client
/// misses them when it next looks at the machine, and sends them again.
pub(crate) fn put_back() -> Result<(), AgentError> {
    let (mut failures, mut tries) = (vec![], TRIES);
    for (owner, directory) in owners() {
        let mut published: BTreeMap<String, Published> = manifest::read(&owner);
        for one in read(&directory) {
            let back = loop {
                match put_back_one(&directory, &one) {
                    // A TPM may not be ready so early in the boot.
                    Err(_) if tries > 0 => tries -= 1,
                    back => break back,
                }
                std::thread::sleep(PAUSE);
            };
            match back {
                Ok(one) => drop(published.insert(one.name.clone(), one)),
                Err(error) => failures.push(format!("{}: {error}", one.name)),
            }
        }
        manifest::write(&owner, &published)?;
    }
    if failures.is_empty() { Ok(()) } else { Err(AgentError::Sealed(failures.join("; "))) }
}

fn put_back_one(directory: &Path, one: &Published) -> Result<Published, AgentError> {
    let file = directory.join(file_name(&one.name, &one.fingerprint));
    let encrypted = std::fs::read(&file).map_err(io_error(file.display()))?;
    let content = creds("decrypt", &one.name, &encrypted)?;
    let (mode, uid, gid) =
        one.access().ok_or_else(|| AgentError::Sealed("its manifest is cut off".to_owned()))?;
    Place::make(&one.path)?.write(&content, Access { mode, uid, gid })?;
    Ok(Published { digest: digest(&content), ..one.clone() })
}

/// The owners of encrypted copies, each with its directory.
fn owners() -> impl Iterator<Item = (String, PathBuf)> {
    std::fs::read_dir(SEALED)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join(MANIFEST).exists())
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

fn read(directory: &Path) -> Vec<Published> {
    let text = std::fs::read_to_string(directory.join(MANIFEST)).unwrap_or_default();
    text.lines().filter_map(Published::parse).collect()
}

fn file_name(name: &str, fingerprint: &str) -> String {
    format!("{name}.{fingerprint}")
}

/// Encrypts or decrypts by `systemd-creds`. The name of the secret is part of what is encrypted, so that the copy of
/// one secret cannot be put in the place of another.
fn creds(verb: &str, name: &str, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, AgentError> {
    let failed = io_error("systemd-creds");
    let mut child = program::command("systemd-creds")
        .args([verb, &format!("--name={name}"), "-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(&failed)?;
    // This cannot block: the program reads all of its input before it writes anything.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).map_err(&failed)?;
    }
    let output = child.wait_with_output().map_err(&failed)?;
    if output.status.success() {
        return Ok(Zeroizing::new(output.stdout));
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(AgentError::Sealed(format!("systemd-creds {verb}: {message}")))
}

/// Makes sure that the next boot puts the secrets back.
pub(super) fn install() -> Result<(), AgentError> {
    DirBuilder::new().mode(0o700).recursive(true).create(SEALED).map_err(io_error(SEALED))?;
    UNIT.install()
}

fn uninstall() {
    UNIT.uninstall();
    let _ = std::fs::remove_dir(SEALED);
}
