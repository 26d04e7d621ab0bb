//! The place of a secret: reading, replacing and removing the file there.
//!
//! A secret may be in a directory that the user of a service can change. So no path is resolved twice: the directory is
//! opened once, step by step, and everything else is done below its descriptor. A link to a directory is followed only
//! where only root can have made it. A link in the place of the file is never followed. And a file is given to its user
//! before it gets its name, never afterwards.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, fstat, fsync, linkat, mkdirat,
    openat, readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::accounts::group;
use super::memory::mount_ramfs;
use crate::error::{AgentError, io_error};
use crate::secret_stream::read_secret;

/// The directory where secrets are by default. NixOS mounts a ramfs there.
const KEYS: &str = "/run/keys";
/// The mode of directories of secrets: every user may enter them, but only root and the group may list them. Each file
/// has a mode of its own.
const ENTER: u32 = 0o751;
/// How many links a path may lead through.
const LINKS: usize = 40;

/// The place of a secret: an open directory, and a name in it.
#[derive(Debug)]
pub(super) struct Place {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

/// What is in a place.
#[derive(Debug)]
pub(super) enum Found {
    /// A file.
    File { content: Zeroizing<Vec<u8>>, access: Access },
    /// A symbolic link to this path.
    Link(PathBuf),
}

/// Who may use a file, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Place {
    /// A place in a directory that exists.
    pub(super) fn find(path: &Path) -> Result<Self, AgentError> {
        Self::open(path, false)
    }

    /// A place whose directories are made where they are missing.
    pub(super) fn make(path: &Path) -> Result<Self, AgentError> {
        if path.starts_with(KEYS) && !Path::new(KEYS).exists() {
            mount_ramfs(Path::new(KEYS), ENTER)?;
            let keys = openat(CWD, KEYS, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
            give_to_keys(&keys.map_err(|error| io_error(path.display())(error.into()))?);
        }
        Self::open(path, true)
    }

    fn open(path: &Path, make: bool) -> Result<Self, AgentError> {
        let failed = io_error(path.display());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(failed(std::io::ErrorKind::InvalidInput.into()));
        };
        let directory = walk(parent, make, &mut |_| {}).map_err(&failed)?;
        Ok(Self { directory, name: name.to_owned(), path: path.to_owned() })
    }

    /// Makes an error say which place it is about.
    fn at<T>(&self, result: Result<T, Errno>) -> Result<T, AgentError> {
        result.map_err(|error| self.failed(error.into()))
    }

    fn failed(&self, error: std::io::Error) -> AgentError {
        io_error(self.path.display())(error)
    }

    /// Reads what is in the place; `None`: nothing.
    pub(super) fn read(&self) -> Result<Option<Found>, AgentError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.directory, &self.name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                let target = self.at(readlinkat(&self.directory, &self.name, vec![]))?;
                return Ok(Some(Found::Link(Path::new(OsStr::from_bytes(target.as_bytes())).to_owned())));
            }
            Err(error) => return self.at(Err(error)),
        };
        let stat = self.at(fstat(&file))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return self.at(Err(Errno::INVAL));
        }
        let content = read_secret(File::from(file)).map_err(|error| self.failed(error))?;
        Ok(Some(Found::File { content, access: access(&stat) }))
    }

    /// Who may use the file; `None`: no file is in the place.
    pub(super) fn access(&self) -> Option<Access> {
        let stat = statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| access(&stat))
    }

    /// Replaces the file in one step: a reader finds the old file or the new one, never a part or another user's.
    pub(super) fn write(&self, content: &[u8], Access { mode, uid, gid }: Access) -> Result<(), AgentError> {
        let new = self.beside("");
        let _ = unlinkat(&self.directory, &new, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.at(openat(&self.directory, &new, flags, Mode::RUSR | Mode::WUSR))?;
        let mut file = File::from(file);
        file.write_all(content).map_err(|error| self.failed(error))?;
        self.at(fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))?;
        self.at(fchmod(&file, Mode::from_raw_mode(mode)))?;
        self.at(fsync(&file))?;
        self.at(renameat(&self.directory, &new, &self.directory, &self.name))?;
        // A user who can change the directory may have put something else in the place meanwhile.
        let (ours, there) = (
            self.at(fstat(&file))?,
            self.at(statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW))?,
        );
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino) {
            let why = std::io::Error::other("something else was put in its place while it was written");
            return Err(self.failed(why));
        }
        self.at(fsync(&self.directory))
    }

    /// Puts a symbolic link in the place.
    pub(super) fn link(&self, target: &Path) -> Result<(), AgentError> {
        self.remove();
        self.at(symlinkat(target, &self.directory, &self.name))
    }

    /// Removes what is in the place.
    pub(super) fn remove(&self) {
        let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        let _ = fsync(&self.directory);
    }

    /// Keeps what is in the place under another name beside it, unless something is kept there already.
    pub(super) fn keep_old(&self) -> Result<(), AgentError> {
        match linkat(&self.directory, &self.name, &self.directory, self.beside("-old"), AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST | Errno::NOENT) => self.at(fsync(&self.directory)),
            Err(error) => self.at(Err(error)),
        }
    }

    /// Puts back what [`Place::keep_old`] kept.
    pub(super) fn restore_old(&self) -> Result<(), AgentError> {
        match renameat(&self.directory, self.beside("-old"), &self.directory, &self.name) {
            // Nothing was kept, because the place was never changed.
            Ok(()) | Err(Errno::NOENT) => self.at(fsync(&self.directory)),
            Err(error) => self.at(Err(error)),
        }
    }

    /// Removes what [`Place::keep_old`] kept.
    pub(super) fn drop_old(&self) {
        let _ = unlinkat(&self.directory, self.beside("-old"), AtFlags::empty());
    }

    fn beside(&self, suffix: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(".nixos-agent");
        name.push(suffix);
        name
    }
}

fn access(stat: &Stat) -> Access {
    Access { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid }
}

/// Lets members of the group `keys` list a directory of secrets, as NixOS does.
fn give_to_keys(directory: &OwnedFd) {
    if let Some(keys) = group("keys") {
        let _ = fchown(directory, None, Some(Gid::from_raw(keys)));
    }
    let _ = fchmod(directory, Mode::from_raw_mode(ENTER));
}

/// Opens a directory step by step from the root on, and makes those that are missing where `make` says so. `see` gets
/// each.
fn walk(path: &Path, make: bool, see: &mut dyn FnMut(&Stat)) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = || openat(CWD, "/", flags, Mode::empty());
    let mut directory = root()?;
    see(&fstat(&directory)?);
    let mut rest = steps(path)?;
    let mut links = 0;
    while let Some(name) = rest.pop() {
        let next = match openat(&directory, &name, flags, Mode::empty()) {
            Err(Errno::NOENT) if make => {
                match mkdirat(&directory, &name, Mode::from_raw_mode(ENTER)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let new = openat(&directory, &name, flags, Mode::empty())?;
                give_to_keys(&new);
                new
            }
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let link = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                let is_roots = link.st_uid == 0 && only_root_changes(&fstat(&directory)?);
                links += 1;
                if FileType::from_raw_mode(link.st_mode) != FileType::Symlink || !is_roots || links > LINKS {
                    return Err(std::io::Error::other(format!(
                        "{} on the way is a link that others than root can have made, or no directory",
                        name.display()
                    )));
                }
                let target = readlinkat(&directory, &name, vec![])?;
                let target = Path::new(OsStr::from_bytes(target.as_bytes())).to_owned();
                if target.is_absolute() {
                    directory = root()?;
                }
                rest.extend(steps(&target)?);
                continue;
            }
            result => result?,
        };
        directory = next;
        see(&fstat(&directory)?);
    }
    Ok(directory)
}

/// The names in a path, the last one first.
fn steps(path: &Path) -> std::io::Result<Vec<OsString>> {
    let mut steps = vec![];
    for component in path.components() {
        match component {
            Component::Normal(name) => steps.push(name.to_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(std::io::Error::other("a path of a secret has no `..` in it"));
            }
        }
    }
    steps.reverse();
    Ok(steps)
}

/// Whether only root can change what is in a directory.
fn only_root_changes(directory: &Stat) -> bool {
    let mode = directory.st_mode;
    directory.st_uid == 0 && mode & 0o002 == 0 && (directory.st_gid == 0 || mode & 0o020 == 0)
}

/// Whether a user with these groups may enter every directory on the way to a file.
pub(super) fn can_enter(path: &Path, uid: u32, groups: &[u32]) -> bool {
    let mut enters = true;
    let mut see = |stat: &Stat| {
        let bit = if stat.st_uid == uid {
            0o100
        } else if groups.contains(&stat.st_gid) {
            0o010
        } else {
            0o001
        };
        enters &= stat.st_mode & bit != 0;
    };
    let found = path.parent().is_some_and(|parent| walk(parent, false, &mut see).is_ok());
    uid == 0 || (found && enters)
}

/// Lets all users enter `/run/keys`, which NixOS opens to the group `keys` only, so that the users of secrets come to
/// their files.
pub(super) fn open_keys() {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(keys) = openat(CWD, KEYS, flags, Mode::empty())
        && let Ok(stat) = fstat(&keys)
        && stat.st_uid == 0
    {
        let _ = fchmod(&keys, Mode::from_raw_mode((stat.st_mode & 0o7777) | 0o001));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::super::memory::write_new;
    use super::*;

    fn own() -> Access {
        Access {
            mode: 0o640,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("x");
        write_new(&path, b"one").unwrap();
        Place::find(&path).unwrap().write(b"two", own()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_in_a_place_is_put_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("x");
        write_new(&path, b"one").unwrap();
        let place = Place::find(&path).unwrap();
        place.keep_old().unwrap();
        place.write(b"two", own()).unwrap();
        // Once more, as after an interruption: the old one stays.
        place.keep_old().unwrap();
        place.restore_old().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        place.restore_old().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one", "what was never changed stays");
    }

    #[test]
    fn links_are_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        let (victim, path) = (directory.join("victim"), directory.join("x"));
        std::fs::write(&victim, "root's").unwrap();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&victim, &path).unwrap();
        let place = Place::find(&path).unwrap();
        assert!(matches!(place.read().unwrap(), Some(Found::Link(target)) if target == victim));
        place.write(b"secret", own()).unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"root's");
        assert_eq!(std::fs::metadata(&victim).unwrap().mode() & 0o777, 0o600);
        assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn a_link_on_the_way_is_followed_only_where_it_is_roots() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        // Any user may make links there.
        let open = directory.join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::create_dir(directory.join("elsewhere")).unwrap();
        symlink(directory.join("elsewhere"), open.join("link")).unwrap();
        let error = Place::make(&open.join("link/x")).unwrap_err().to_string();
        assert!(error.contains("link"), "{error}");
        assert!(Place::make(&directory.join("elsewhere/../x")).is_err());
    }

    #[test]
    fn directories_are_made_so_that_a_user_can_come_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().canonicalize().unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = directory.join("a/b/x");
        Place::make(&path).unwrap().write(b"x", own()).unwrap();
        assert!(can_enter(&path, 12345, &[]));
        std::fs::set_permissions(directory.join("a"), std::fs::Permissions::from_mode(0o750)).unwrap();
        assert!(!can_enter(&path, 12345, &[]));
        assert!(can_enter(&path, 12345, &[own().gid]));
        assert!(can_enter(&path, 0, &[]));
    }
}
