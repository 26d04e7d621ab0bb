//! What an evaluation saw of the file system, and whether it would see the same now.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::costs::Cost;
use crate::hash::{hex, sha256};

/// A file that changed so shortly before it was read could change again without a trace in its times.
const TOO_FRESH: Duration = Duration::from_secs(2);

/// A file larger than this, such as a library, is known by its times alone, if they are old enough.
const LARGE: u64 = 1 << 20;

/// What an evaluation saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReadSet {
    seen: BTreeMap<PathBuf, Seen>,
}

/// What a process saw, piece by piece.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reads {
    /// In the order of time; what was seen before is not in a later piece again.
    pub(super) pieces: Vec<Piece>,
    /// Whether that is all.
    pub(super) complete: bool,
    /// What the process had taken when each of its nodes was done.
    pub(super) done: Vec<Cost>,
}

/// What was seen from one moment to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    /// The hash of the name of the node that was done when this ended; `None`: the process ended.
    pub(super) done: Option<String>,
    #[serde(flatten)]
    pub(super) reads: ReadSet,
}

/// What was seen from the beginning to some moment.
#[derive(Clone, Debug)]
pub(super) struct Until {
    reads: Arc<Reads>,
    pieces: usize,
}

impl Until {
    pub(super) fn pieces(&self) -> impl Iterator<Item = &ReadSet> {
        self.reads.pieces.iter().take(self.pieces).map(|piece| &piece.reads)
    }
}

impl Reads {
    /// Everything that was read until a node was done. Nodes share what Nix has read and evaluated already, so that a
    /// node may depend on what was read for those before it, but not on what was read later.
    pub(super) fn until(self: &Arc<Self>, node: &str) -> Option<Until> {
        let hash = sha256(node.as_bytes());
        let is_it = |piece: &Piece| piece.done.as_ref() == Some(&hash);
        match self.pieces.iter().position(is_it) {
            Some(last) => Some(Until { reads: Arc::clone(self), pieces: last + 1 }),
            None => self.all(),
        }
    }

    /// Everything, if everything is known.
    pub(super) fn all(self: &Arc<Self>) -> Option<Until> {
        self.complete.then(|| Until { reads: Arc::clone(self), pieces: self.pieces.len() })
    }
}

/// What was seen at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Seen {
    /// Nothing.
    Absent,
    /// Something of this kind; only that was asked.
    Kind(Kind),
    /// A symbolic link and where it leads.
    Link(PathBuf),
    /// A file's content, and whether its owner may execute it, which is part of what Nix makes of it.
    Content { stamp: Option<Stamp>, hash: Option<String> },
    /// A directory's entries and their kinds.
    Listing { hash: String },
}

/// Kinds of things in a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    File,
    Directory,
    Other,
}

/// What changes when a file's content does. Nobody can set the time of the last status change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    fn is_fresh_at(&self, moment: SystemTime) -> bool {
        let Ok(moment) = moment.duration_since(SystemTime::UNIX_EPOCH) else {
            return true;
        };
        let limit = moment.saturating_sub(TOO_FRESH).as_secs();
        self.changed.0 >= i64::try_from(limit).unwrap_or(i64::MAX)
    }
}

impl Seen {
    /// What can be seen at a path without opening it.
    pub(super) fn look(path: &Path) -> Self {
        match std::fs::symlink_metadata(path) {
            Err(_) => Self::Absent,
            Ok(metadata) if metadata.is_symlink() => {
                std::fs::read_link(path).map_or(Self::Absent, Self::Link)
            }
            Ok(metadata) => Self::Kind(kind(&metadata)),
        }
    }

    /// A file's content; `None` when it is not what it was when `stamp` was taken, just before it was read. Without
    /// `read_at` it is known by nothing else.
    pub(super) fn content(path: &Path, stamp: Stamp, read_at: Option<SystemTime>) -> Option<Self> {
        let is_fresh = read_at.is_none_or(|moment| stamp.is_fresh_at(moment));
        // Where Nix could not read it either, its times are all there is to know.
        let hash = if stamp.size > LARGE && !is_fresh { None } else { hash_of_file(path) };
        let now = Stamp::of(&std::fs::symlink_metadata(path).ok()?);
        let stamp_to_keep = (!is_fresh).then_some(stamp);
        (now == stamp).then_some(Self::Content { stamp: stamp_to_keep, hash })
    }

    /// Whether a look now would show the same.
    fn holds(&self, path: &Path) -> bool {
        match self {
            Self::Absent | Self::Kind(_) | Self::Link(_) => Self::look(path) == *self,
            Self::Content { stamp, hash } => {
                let Ok(metadata) = std::fs::symlink_metadata(path) else {
                    return false;
                };
                metadata.is_file()
                    && (*stamp == Some(Stamp::of(&metadata))
                        || (hash.is_some() && hash_of_file(path) == *hash))
            }
            Self::Listing { .. } => Entries::of(path).is_some_and(|entries| entries.seen() == *self),
        }
    }
}

/// What is in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entries(BTreeMap<OsString, Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Of(Kind),
    Link,
}

impl Entries {
    /// Those of a directory, if it can be listed.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let entry = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry?;
            let kind = match entry.file_type()? {
                kind if kind.is_symlink() => Entry::Link,
                kind if kind.is_file() => Entry::Of(Kind::File),
                kind if kind.is_dir() => Entry::Of(Kind::Directory),
                _ => Entry::Of(Kind::Other),
            };
            Ok((entry.file_name(), kind))
        };
        std::fs::read_dir(path).ok()?.map(entry).collect::<std::io::Result<_>>().ok().map(Self)
    }

    /// What was seen by listing them.
    pub(super) fn seen(&self) -> Seen {
        let mut hasher = Sha256::new();
        for (name, entry) in &self.0 {
            hasher.update(name.as_encoded_bytes());
            let kind = match entry {
                Entry::Of(Kind::File) => 1,
                Entry::Of(Kind::Directory) => 2,
                Entry::Of(Kind::Other) => 3,
                Entry::Link => 4,
            };
            hasher.update([0, kind]);
        }
        Seen::Listing { hash: hex(hasher) }
    }

    /// Whether they say the same about one of them as a look at it.
    pub(super) fn say(&self, name: &OsStr, seen: &Seen) -> bool {
        match (self.0.get(name), seen) {
            (None, Seen::Absent) => true,
            (Some(Entry::Of(listed)), Seen::Kind(kind)) => listed == kind,
            // Where a link leads they do not say.
            _ => false,
        }
    }
}

impl ReadSet {
    pub(super) fn new(seen: BTreeMap<PathBuf, Seen>) -> Self {
        Self { seen }
    }

    /// Whether an evaluation now would see the same; else where it would not. Paths that are not absolute are below
    /// `root`.
    pub(super) fn check(&self, root: &Path) -> Result<(), &Path> {
        match self.seen.iter().find(|(path, seen)| !seen.holds(&root.join(path))) {
            Some((path, _)) => Err(path),
            None => Ok(()),
        }
    }

    /// What both saw, and saw alike.
    pub(super) fn common(&self, other: &Self) -> Self {
        let both = self.seen.iter().filter(|(path, seen)| other.seen.get(*path) == Some(*seen));
        Self { seen: both.map(|(path, seen)| (path.clone(), seen.clone())).collect() }
    }

    /// What it saw and the other one did not.
    pub(super) fn without(&self, other: &Self) -> Self {
        let own = self.seen.iter().filter(|(path, _)| !other.seen.contains_key(*path));
        Self { seen: own.map(|(path, seen)| (path.clone(), seen.clone())).collect() }
    }

    /// How many paths it names.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }
}

fn kind(metadata: &Metadata) -> Kind {
    if metadata.is_file() {
        Kind::File
    } else if metadata.is_dir() {
        Kind::Directory
    } else {
        Kind::Other
    }
}

fn hash_of_file(path: &Path) -> Option<String> {
    let mut file = std::fs::File::open(path).ok()?;
    let is_executable = file.metadata().ok()?.mode() & 0o100 != 0;
    let mut hasher = Sha256::new();
    hasher.update([u8::from(is_executable)]);
    std::io::copy(&mut file, &mut Writer(&mut hasher)).ok()?;
    Some(hex(hasher))
}

struct Writer<'a>(&'a mut Sha256);

impl std::io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A read set of a file, a directory, a link and a path where nothing is.
    fn sample(root: &Path) -> ReadSet {
        std::fs::create_dir(root.join("dir")).unwrap();
        std::fs::write(root.join("file"), "one").unwrap();
        std::os::unix::fs::symlink("file", root.join("link")).unwrap();
        let stamp = Stamp::of(&std::fs::metadata(root.join("file")).unwrap());
        let content = Seen::content(&root.join("file"), stamp, Some(SystemTime::now())).unwrap();
        ReadSet::new(BTreeMap::from([
            (root.join("file"), content),
            (root.join("dir"), Entries::of(&root.join("dir")).unwrap().seen()),
            (root.join("link"), Seen::look(&root.join("link"))),
            (root.join("none"), Seen::look(&root.join("none"))),
        ]))
    }

    #[test]
    fn what_is_untouched_holds_and_what_differs_does_not() {
        let edits: [(&str, fn(&Path)); 7] = [
            ("file", |root| std::fs::write(root.join("file"), "two").unwrap()),
            ("file", |root| std::fs::remove_file(root.join("file")).unwrap()),
            ("file", |root| {
                let executable = std::fs::Permissions::from_mode(0o755);
                std::fs::set_permissions(root.join("file"), executable).unwrap();
            }),
            ("dir", |root| std::fs::write(root.join("dir/new"), "").unwrap()),
            ("link", |root| {
                std::fs::remove_file(root.join("link")).unwrap();
                std::os::unix::fs::symlink("dir", root.join("link")).unwrap();
            }),
            ("none", |root| std::fs::write(root.join("none"), "").unwrap()),
            ("dir", |root| std::fs::remove_dir(root.join("dir")).unwrap()),
        ];
        for (changed, edit) in edits {
            let root = tempfile::tempdir().unwrap();
            let reads = sample(root.path());
            assert_eq!(reads.check(root.path()), Ok(()));
            edit(root.path());
            assert_eq!(reads.check(root.path()), Err(root.path().join(changed).as_path()), "{changed}");
        }
    }

    #[test]
    fn a_file_written_again_with_the_same_content_holds() {
        let root = tempfile::tempdir().unwrap();
        let reads = sample(root.path());
        std::fs::write(root.path().join("file"), "one").unwrap();
        std::fs::write(root.path().join("unrelated"), "").unwrap();
        assert_eq!(reads.check(root.path()), Ok(()));
    }

    #[test]
    fn a_fresh_file_is_known_by_its_content_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "one").unwrap();
        let stamp = Stamp::of(&std::fs::metadata(root.path().join("file")).unwrap());
        let kept = |at: Option<SystemTime>| match Seen::content(&root.path().join("file"), stamp, at) {
            Some(Seen::Content { stamp, .. }) => stamp,
            other => panic!("{other:?}"),
        };
        assert_eq!(kept(Some(SystemTime::now())), None);
        assert_eq!(kept(Some(SystemTime::now() + 2 * TOO_FRESH)), Some(stamp));
        assert_eq!(kept(None), None);
    }

    #[test]
    fn it_survives_the_disk() {
        let root = tempfile::tempdir().unwrap();
        let reads = sample(root.path());
        let text = serde_json::to_string(&reads).unwrap();
        assert_eq!(serde_json::from_str::<ReadSet>(&text).unwrap(), reads);
    }
}
