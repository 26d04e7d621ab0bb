//! Files with secrets: in memory that is never written to a disk, and each replaced as a whole.
//!
//! A secret may lie in a directory that a service's user can change. So nothing is done by a path twice: the directory is opened once, step by
//! step, and everything else is done below its descriptor. Links are followed only where nobody but root can have made them, files are never
//! followed, and a file is given to a user only before it has its name.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, flock, fstat,
    fsync, linkat, mkdirat, openat, readlinkat, renameat, statat, statfs, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use zeroize::Zeroizing;

use crate::AgentError;
use crate::files::{failed, read_secret};
use crate::host;

/// Where contents wait.
pub(super) const MEMORY: &str = "/run/nixos-agent-secrets";
/// Where secrets are by default; NixOS mounts a ramfs there.
const KEYS: &str = "/run/keys";
/// The mode of directories of secrets: any user may enter them, but only root and the group may list them, and each file has
/// permissions of its own.
const ENTER: u32 = 0o751;
/// How many links a path may lead through.
const LINKS: usize = 40;

/// Makes sure that a directory exists and that what is in it is never written to a disk.
pub(super) fn in_memory(directory: &Path, mode: u32) -> Result<(), AgentError> {
    const RAMFS: u64 = 0x8584_58f6;
    let at = directory.display().to_string();
    DirBuilder::new().mode(mode).recursive(true).create(directory).map_err(failed(&at))?;
    // Two that find it missing must not mount one over the other.
    let lock = File::open(directory).map_err(failed(&at))?;
    let _ = flock(&lock, FlockOperation::LockExclusive);
    let is_ramfs = statfs(directory).is_ok_and(|stat| u64::try_from(stat.f_type).ok() == Some(RAMFS));
    if !is_ramfs {
        let options = CString::new(format!("mode={mode:04o}")).unwrap_or_default();
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        // A container may not be allowed to; /run is in memory too, and swap is the user's business.
        let _ = mount("ramfs", directory, "ramfs", flags, options.as_c_str());
    }
    Ok(())
}

/// A file of root's that was not there, in a directory that only root can change.
pub(super) fn write_new(path: &Path, content: &[u8]) -> Result<(), AgentError> {
    let at = failed(&path.display().to_string());
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(&at)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(&at)
}

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
    File { content: Zeroizing<Vec<u8>>, looks: Looks },
    /// A link.
    Link(PathBuf),
}

/// Whose a file is, and what they may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looks {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Place {
    /// Where the directory is.
    pub(super) fn find(path: &Path) -> Result<Self, AgentError> {
        Self::open(path, false)
    }

    /// The same with directories that are missing.
    pub(super) fn make(path: &Path) -> Result<Self, AgentError> {
        if path.starts_with(KEYS) && !Path::new(KEYS).exists() {
            in_memory(Path::new(KEYS), ENTER)?;
            give_to_keys(
                &openat(CWD, KEYS, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(errno(path))?,
            );
        }
        Self::open(path, true)
    }

    fn open(path: &Path, make: bool) -> Result<Self, AgentError> {
        let no_file = || failed(&path.display().to_string())(std::io::ErrorKind::InvalidInput.into());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(no_file());
        };
        let directory = walk(parent, make, &mut |_| {}).map_err(failed(&path.display().to_string()))?;
        Ok(Self { directory, name: name.to_owned(), path: path.to_owned() })
    }

    fn at<T>(&self, result: Result<T, Errno>) -> Result<T, AgentError> {
        result.map_err(errno(&self.path))
    }

    /// What is there; `None`: nothing.
    pub(super) fn look(&self) -> Result<Option<Found>, AgentError> {
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
        let content = read_secret(File::from(file)).map_err(failed(&self.path.display().to_string()))?;
        Ok(Some(Found::File { content, looks: looks(&stat) }))
    }

    /// Whose the file is; `None` where there is none, or something else.
    pub(super) fn looks(&self) -> Option<Looks> {
        let stat = statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| looks(&stat))
    }

    /// Replaces the file in one step: a reader finds the old file or the new one, never a part or another owner.
    pub(super) fn write(&self, content: &[u8], Looks { mode, uid, gid }: Looks) -> Result<(), AgentError> {
        let new = self.beside("");
        let _ = unlinkat(&self.directory, &new, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.at(openat(&self.directory, &new, flags, Mode::RUSR | Mode::WUSR))?;
        let mut file = File::from(file);
        file.write_all(content).map_err(failed(&self.path.display().to_string()))?;
        self.at(fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))?;
        self.at(fchmod(&file, Mode::from_raw_mode(mode)))?;
        self.at(fsync(&file))?;
        self.at(renameat(&self.directory, &new, &self.directory, &self.name))?;
        // Users who can change the directory can have put something else in its place meanwhile.
        let (ours, there) = (
            self.at(fstat(&file))?,
            self.at(statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW))?,
        );
        if (ours.st_dev, ours.st_ino) != (there.st_dev, there.st_ino) {
            let why = std::io::Error::other("something else was put in its place while it was written");
            return Err(failed(&self.path.display().to_string())(why));
        }
        self.at(fsync(&self.directory))
    }

    /// Puts a link there.
    pub(super) fn link(&self, target: &Path) -> Result<(), AgentError> {
        self.remove();
        self.at(symlinkat(target, &self.directory, &self.name))
    }

    /// Removes what is there.
    pub(super) fn remove(&self) {
        let _ = unlinkat(&self.directory, &self.name, AtFlags::empty());
        let _ = fsync(&self.directory);
    }

    /// Keeps what is there under another name beside it, unless something was kept there before.
    pub(super) fn keep_old(&self) -> Result<(), AgentError> {
        match linkat(&self.directory, &self.name, &self.directory, self.beside("-old"), AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST | Errno::NOENT) => self.at(fsync(&self.directory)),
            Err(error) => self.at(Err(error)),
        }
    }

    /// Puts back what [`Place::keep_old`] kept.
    pub(super) fn bring_old(&self) -> Result<(), AgentError> {
        match renameat(&self.directory, self.beside("-old"), &self.directory, &self.name) {
            // It was never changed.
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

fn looks(stat: &Stat) -> Looks {
    Looks { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid }
}

fn errno(path: &Path) -> impl Fn(Errno) -> AgentError + use<> {
    let failed = failed(&path.display().to_string());
    move |error| failed(error.into())
}

/// As NixOS has it: members of `keys` may look whether a secret has come.
fn give_to_keys(directory: &OwnedFd) {
    if let Some(keys) = group("keys") {
        let _ = fchown(directory, None, Some(Gid::from_raw(keys)));
    }
    let _ = fchmod(directory, Mode::from_raw_mode(ENTER));
}

/// Opens a directory, one after the other from the root on. `see` gets each of them.
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

/// The names of a path, the last first.
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

/// Lets all users enter `/run/keys`, which NixOS opens to the group `keys` only, so that owners of secrets reach their files.
pub(super) fn open_keys() {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(keys) = openat(CWD, KEYS, flags, Mode::empty())
        && let Ok(stat) = fstat(&keys)
        && stat.st_uid == 0
    {
        let _ = fchmod(&keys, Mode::from_raw_mode((stat.st_mode & 0o7777) | 0o001));
    }
}

/// The number of a user; names are asked from the machine, which may have more than `/etc/passwd`.
pub(super) fn user(name: &str) -> Option<u32> {
    number(name, "/etc/passwd").or_else(|| host::output("id", &["-u", "--", name]).ok()?.trim().parse().ok())
}

/// The number of a group.
pub(super) fn group(name: &str) -> Option<u32> {
    number(name, "/etc/group").or_else(|| {
        let line = host::output("getent", &["group", name]).ok()?;
        line.split(':').nth(2)?.trim().parse().ok()
    })
}

/// The groups of a user.
pub(super) fn groups(user: &str) -> Vec<u32> {
    let text = host::output("id", &["-G", "--", user]).unwrap_or_default();
    text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// A number, or the one that a file of the system gives a name.
pub(super) fn number(name: &str, file: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    if name == "root" {
        return Some(0);
    }
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    fn own() -> Looks {
        Looks {
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
        place.bring_old().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        place.bring_old().unwrap();
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
        assert!(matches!(place.look().unwrap(), Some(Found::Link(target)) if target == victim));
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
    fn directories_are_made_so_that_an_owner_can_come_to_the_file() {
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
