//! Manifests: lists of the secrets that a machine has, without their contents.
//!
//! Each owner has two. The one about files on a disk is on disk; the one about files in memory is in memory, and a
//! reboot removes it together with these files.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::memory::{MEMORY, mount_ramfs};
use crate::error::{AgentError, io_error};
use crate::files::replace;

/// The directories of manifests: about files that a reboot removes, and about other files.
const MANIFESTS: [&str; 2] = ["/run/nixos-agent-secrets/manifests", "/var/lib/nixos-agent/secrets"];

/// A secret that the machine should have: one line of a manifest. A shell script of the client reads these lines too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) name: String,
    pub(super) fingerprint: String,
    pub(super) digest: String,
    /// Mode, user and group, as `stat -c '%a %u:%g'` prints them.
    pub(super) access: String,
    pub(super) path: PathBuf,
}

/// The secrets of an owner, by name.
pub(super) fn read(owner: &str) -> BTreeMap<String, Published> {
    let texts =
        MANIFESTS.map(|place| std::fs::read_to_string(Path::new(place).join(owner)).unwrap_or_default());
    let all = texts.iter().flat_map(|text| text.lines()).filter_map(Published::parse);
    all.map(|one| (one.name.clone(), one)).collect()
}

/// Writes the manifests of an owner.
pub(super) fn write(owner: &str, published: &BTreeMap<String, Published>) -> Result<(), AgentError> {
    mount_ramfs(Path::new(MEMORY), 0o700)?;
    for (manifests, volatile) in MANIFESTS.into_iter().zip([true, false]) {
        let lines: String = published
            .values()
            .filter(|one| one.path.starts_with("/run") == volatile)
            .map(Published::line)
            .collect();
        let manifest = Path::new(manifests).join(owner);
        if lines.is_empty() {
            let _ = std::fs::remove_file(manifest);
            continue;
        }
        DirBuilder::new().mode(0o700).recursive(true).create(manifests).map_err(io_error(manifests))?;
        replace(&manifest, lines.as_bytes(), 0o600)?;
    }
    Ok(())
}

/// The SHA-256 of a content, in hexadecimal digits.
pub(super) fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Published {
    pub(super) fn line(&self) -> String {
        let path = self.path.display();
        format!("{}\t{}\t{}\t{}\t{path}\n", self.name, self.fingerprint, self.digest, self.access)
    }

    /// Mode, user and group as numbers; `None`: the line is damaged.
    pub(super) fn access(&self) -> Option<(u32, u32, u32)> {
        let (mode, owners) = self.access.split_once(' ')?;
        let (user, group) = owners.split_once(':')?;
        Some((u32::from_str_radix(mode, 8).ok()?, user.parse().ok()?, group.parse().ok()?))
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, fingerprint, digest, access, path] = fields[..] else { return None };
        Some(Self {
            name: name.to_owned(),
            fingerprint: fingerprint.to_owned(),
            digest: digest.to_owned(),
            access: access.to_owned(),
            path: PathBuf::from(path),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_line_can_be_read_again() {
        let one = Published {
            name: "db-password".to_owned(),
            fingerprint: "ab12".to_owned(),
            digest: "00ff".to_owned(),
            access: "400 0:96".to_owned(),
            path: PathBuf::from("/run/keys/a place"),
        };
        assert_eq!(one.access(), Some((0o400, 0, 96)));
        assert_eq!(Published::parse(one.line().trim_end()), Some(one));
        assert_eq!(Published::parse("cut off\tby a power"), None);
    }
}
