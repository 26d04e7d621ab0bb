//! What is published, in words: names, places and owners. On disk about those whose place is on disk, in memory about the others.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::place::{MEMORY, in_memory};
use crate::AgentError;
use crate::files::{failed, replace};

/// For places that a reboot empties, and for the others.
const MANIFESTS: [&str; 2] = ["/run/nixos-agent-secrets/manifests", "/var/lib/nixos-agent/secrets"];

/// What a published secret should look like. One line of a manifest; a shell script reads it too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) name: String,
    pub(super) fingerprint: String,
    pub(super) digest: String,
    /// Permissions and owners, as `stat -c '%a %u:%g'` prints them.
    pub(super) looks: String,
    pub(super) path: PathBuf,
}

/// What an owner has published, by name.
pub(super) fn read(owner: &str) -> BTreeMap<String, Published> {
    let texts =
        MANIFESTS.map(|place| std::fs::read_to_string(Path::new(place).join(owner)).unwrap_or_default());
    let all = texts.iter().flat_map(|text| text.lines()).filter_map(Published::parse);
    all.map(|one| (one.name.clone(), one)).collect()
}

/// Writes down what an owner has published.
pub(super) fn write(owner: &str, published: &BTreeMap<String, Published>) -> Result<(), AgentError> {
    in_memory(Path::new(MEMORY), 0o700)?;
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
        DirBuilder::new().mode(0o700).recursive(true).create(manifests).map_err(failed(manifests))?;
        replace(&manifest, lines.as_bytes(), 0o600)?;
    }
    Ok(())
}

pub(super) fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Published {
    pub(super) fn line(&self) -> String {
        let path = self.path.display();
        format!("{}\t{}\t{}\t{}\t{path}\n", self.name, self.fingerprint, self.digest, self.looks)
    }

    /// Permissions, user and group.
    pub(super) fn looks(&self) -> Option<(u32, u32, u32)> {
        let (mode, owners) = self.looks.split_once(' ')?;
        let (user, group) = owners.split_once(':')?;
        Some((u32::from_str_radix(mode, 8).ok()?, user.parse().ok()?, group.parse().ok()?))
    }

    pub(super) fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, fingerprint, digest, looks, path] = fields[..] else { return None };
        Some(Self {
            name: name.to_owned(),
            fingerprint: fingerprint.to_owned(),
            digest: digest.to_owned(),
            looks: looks.to_owned(),
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
            looks: "400 0:96".to_owned(),
            path: PathBuf::from("/run/keys/a place"),
        };
        assert_eq!(one.looks(), Some((0o400, 0, 96)));
        assert_eq!(Published::parse(one.line().trim_end()), Some(one));
        assert_eq!(Published::parse("cut off\tby a power"), None);
    }
}
