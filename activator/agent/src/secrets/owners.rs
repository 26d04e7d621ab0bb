//! Whose the files of secrets are. Their users may come with the same deployment, so that files are given to them after they were written.

use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

use nixos_agent::{SecretEntry, SecretFile};

use super::Secrets;
use super::manifest::{self, digest};
use super::place::{Found, Looks, Place, can_enter, group, groups, number, open_keys, user};
use crate::AgentError;
use crate::files::{failed, read_secret};

impl Secrets<'_> {
    /// Gives files to users that the new system has brought. Returns what would still keep a user from a file.
    pub(crate) fn own(&self) -> Result<Vec<String>, String> {
        // The new system may have set up the directory as it has it.
        open_keys();
        let mut obstacles = vec![];
        for (number, entry) in self.entries.iter().enumerate() {
            let file = &entry.file;
            let missing = |what: &str, name: &str| {
                format!("The {what} `{name}` of secret \"{}\" does not exist", file.name)
            };
            let uid = user(&file.user).ok_or_else(|| missing("user", &file.user))?;
            let gid = group(&file.group).ok_or_else(|| missing("group", &file.group))?;
            self.give(number, entry, Looks { mode: file.mode, uid, gid })
                .map_err(|error| error.to_string())?;
            let groups = [groups(&file.user), vec![gid]].concat();
            if !can_enter(Path::new(&file.path), uid, &groups) {
                obstacles.push(format!(
                    "The user `{}` of secret \"{}\" cannot come to {}: it may not enter a directory on the way.",
                    file.user, file.name, file.path
                ));
            }
        }
        Ok(obstacles)
    }

    /// Gives a file to its owner. A file with another owner is written anew instead of being changed by `chown`, because a user who may
    /// write to its directory may have put another file in its place.
    fn give(&self, number: usize, entry: &SecretEntry, looks: Looks) -> Result<(), AgentError> {
        let place = Place::find(Path::new(&entry.file.path))?;
        if place.looks() == Some(looks) {
            return Ok(());
        }
        let content = if entry.content.is_some() {
            let staged = File::open(self.aside().join(number.to_string())).and_then(read_secret);
            staged.map_err(failed("staged secret"))?
        } else {
            let published = manifest::read(self.owner);
            let ours = |content: &[u8]| {
                published
                    .get(entry.file.name.as_str())
                    .is_some_and(|published| published.digest == digest(content))
            };
            match place.look()? {
                Some(Found::File { content, .. }) if ours(&content) => content,
                _ => {
                    let why = std::io::Error::other("something else is in its place");
                    return Err(failed(&entry.file.path)(why));
                }
            }
        };
        place.write(&content, looks)
    }

    /// The files whose users do not exist yet.
    pub(crate) fn orphans(&self) -> Orphans<'_> {
        let waits = |entry: &&SecretEntry| entry.content.is_some() && looks_of(&entry.file).is_none();
        let entries = self.entries.iter().enumerate().filter(|(_, entry)| waits(entry)).collect();
        Orphans { secrets: self, entries, seen: [None; 2] }
    }
}

/// Whose a file is to be, where its user and group exist.
pub(super) fn looks_of(file: &SecretFile) -> Option<Looks> {
    Some(Looks { mode: file.mode, uid: user(&file.user)?, gid: group(&file.group)? })
}

/// Files that are root's until the users they are for exist.
///
/// The activation script makes the users, and a moment later `switch-to-configuration` starts the services that need the files. So the
/// files are given away while it runs, as soon as the users are there.
pub(crate) struct Orphans<'a> {
    secrets: &'a Secrets<'a>,
    entries: Vec<(usize, &'a SecretEntry)>,
    /// When the lists of users and groups were seen to change last.
    seen: [Option<SystemTime>; 2],
}

impl Orphans<'_> {
    const LISTS: [&'static str; 2] = ["/etc/passwd", "/etc/group"];

    /// Gives away what can be by now. Cheap where nothing has changed.
    pub(crate) fn adopt(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let now = Self::LISTS.map(|list| std::fs::metadata(list).and_then(|meta| meta.modified()).ok());
        if std::mem::replace(&mut self.seen, now) == now {
            return;
        }
        let secrets = self.secrets;
        self.entries.retain(|(index, entry)| {
            let [users, groups] = Self::LISTS;
            let (uid, gid) = (number(&entry.file.user, users), number(&entry.file.group, groups));
            let Some((uid, gid)) = uid.zip(gid) else { return true };
            open_keys();
            match secrets.give(*index, entry, Looks { mode: entry.file.mode, uid, gid }) {
                Ok(()) => false,
                // The look after the switch tells what is wrong.
                Err(error) => {
                    println!("{error}");
                    false
                }
            }
        });
    }
}
