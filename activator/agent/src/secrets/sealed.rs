//! Copies of secrets that outlive a reboot: encrypted by `systemd-creds`, so that nothing but this machine can read them (with
//! its TPM, where it has one, else with a key that only root reads), and put back by a unit before anything needs them.
//!
//! `/var/lib/nixos-agent/sealed/OWNER/` has one file a secret, and a manifest of those that count; whatever else is there was left by
//! an activation that did not come to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use zeroize::Zeroizing;

use super::manifest::{self, Published, digest};
use super::place::{Found, Looks, Place, write_new};
use crate::AgentError;
use crate::boot_unit::{self, BootUnit};
use crate::files::{failed, replace};
use crate::host;

const SEALED: &str = "/var/lib/nixos-agent/sealed";
const MANIFEST: &str = "manifest";
/// How often all of them together are tried again after a failure, and how long after it.
const TRIES: usize = 10;
const PAUSE: Duration = Duration::from_millis(500);
/// Everything that is not part of the very beginning comes after `sysinit.target`, users of secrets among it. Once secrets have been in
/// memory it is too late: a switch starts whatever its targets want, and must not bring back what was there before.
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

/// Whether this machine can keep secrets for itself.
pub(super) fn is_possible() -> Result<(), String> {
    let why = match host::output("systemd-creds", &["--version"]) {
        Err(error) => format!("`systemd-creds` (systemd 250 or newer) on the machine ({error})"),
        Ok(_) => match boot_unit::is_possible() {
            Ok(()) => return Ok(()),
            Err(why) => why,
        },
    };
    Err(format!("A secret is to `persist`, which needs {why}; nothing was changed."))
}

/// Encrypts a content, which counts from [`keep`] on.
pub(super) fn seal(owner: &str, name: &str, fingerprint: &str, content: &[u8]) -> Result<(), AgentError> {
    let directory = Path::new(SEALED).join(owner);
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&directory)
        .map_err(failed(&directory.display().to_string()))?;
    let encrypted = creds("encrypt", name, content)?;
    let file = directory.join(file_name(name, fingerprint));
    let new = file.with_added_extension("new");
    write_new(&new, &encrypted)?;
    std::fs::rename(&new, &file).map_err(failed(&file.display().to_string()))
}

/// From now on these are put back after a reboot, and no others of the owner.
pub(super) fn keep(owner: &str, persistent: &[&Published]) -> Result<(), AgentError> {
    let directory = Path::new(SEALED).join(owner);
    if persistent.is_empty() {
        let _ = std::fs::remove_dir_all(&directory);
        return Ok(());
    }
    for one in persistent {
        if !directory.join(file_name(&one.name, &one.fingerprint)).exists() {
            let Some(Found::File { content, .. }) = Place::find(&one.path)?.look()? else {
                return Err(failed(&one.path.display().to_string())(std::io::ErrorKind::NotFound.into()));
            };
            seal(owner, &one.name, &one.fingerprint, &content)?;
        }
    }
    // A digest on disk would let those who steal the disk check guesses.
    let lines = persistent.iter().map(|one| Published { digest: "-".to_owned(), ..(*one).clone() }.line());
    replace(&directory.join(MANIFEST), lines.collect::<String>().as_bytes(), 0o600)
}

/// Whatever others kept for these places is put back no more: they are the owner's now. A deployment that was made anew, or that a machine
/// has come to from another one, would find the secrets of the one before in the place of its own after a reboot.
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

/// Removes what does not count. Only for who holds the lock: another activation may be about to make it count.
pub(super) fn sweep(owner: &str) {
    let directory = Path::new(SEALED).join(owner);
    let counts: Vec<String> =
        read(&directory).iter().map(|one| file_name(&one.name, &one.fingerprint)).collect();
    for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != MANIFEST && !counts.contains(&name) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    // Goes only if nothing is in it.
    let _ = std::fs::remove_dir(&directory);
    if owners().next().is_none() {
        uninstall();
    }
}

/// After a reboot: every secret to its place, as it was. Those that cannot be read any more are told, and are missed by the next
/// look from outside.
pub(crate) fn put_back() -> Result<(), AgentError> {
    let (mut failures, mut tries) = (vec![], TRIES);
    for (owner, directory) in owners() {
        let mut published: BTreeMap<String, Published> = manifest::read(&owner);
        for one in read(&directory) {
            let back = loop {
                match put_back_one(&directory, &one) {
                    // A TPM may not be ready so early.
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
    let encrypted = std::fs::read(&file).map_err(failed(&file.display().to_string()))?;
    let content = creds("decrypt", &one.name, &encrypted)?;
    let (mode, uid, gid) =
        one.looks().ok_or_else(|| AgentError::Sealed("its manifest is cut off".to_owned()))?;
    Place::make(&one.path)?.write(&content, Looks { mode, uid, gid })?;
    Ok(Published { digest: digest(&content), ..one.clone() })
}

/// The owners of secrets here, each with its directory.
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

/// What `systemd-creds` makes of an input. Its name is part of what is encrypted: one cannot be put in the place of another.
fn creds(verb: &str, name: &str, input: &[u8]) -> Result<Zeroizing<Vec<u8>>, AgentError> {
    let at = failed("systemd-creds");
    let mut child = host::command("systemd-creds")
        .args([verb, &format!("--name={name}"), "-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(&at)?;
    // It reads all of it before it writes anything.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).map_err(&at)?;
    }
    let output = child.wait_with_output().map_err(&at)?;
    if output.status.success() {
        return Ok(Zeroizing::new(output.stdout));
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(AgentError::Sealed(format!("systemd-creds {verb}: {said}")))
}

/// Makes sure that the next boot puts them back.
pub(super) fn install() -> Result<(), AgentError> {
    DirBuilder::new().mode(0o700).recursive(true).create(SEALED).map_err(failed(SEALED))?;
    UNIT.install()
}

fn uninstall() {
    UNIT.uninstall();
    let _ = std::fs::remove_dir(SEALED);
}
