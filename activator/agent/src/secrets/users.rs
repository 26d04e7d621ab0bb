//! Giving files of secrets to their users, which the same deployment may bring. So a file is written first and given
//! later.

use std::path::Path;
use std::time::SystemTime;

use nixos_agent::{SecretEntry, SecretFile};

use super::accounts::{group, groups, number, user};
use super::manifest::{self, digest};
use super::model::SecretChange;
use super::place::{Access, Found, Place, can_enter, open_keys};
use crate::error::{AgentError, io_error};

impl SecretChange<'_> {
    /// Gives all files to their users, who exist now. Returns what still keeps a user from a file, a sentence each.
    pub(crate) fn give_to_users(&self) -> Result<Vec<String>, String> {
        // Once more, because the new system may have set `/run/keys` up anew.
        open_keys();
        let mut obstacles = vec![];
        for (number, entry) in self.entries.iter().enumerate() {
            let file = &entry.file;
            let missing = |what: &str, name: &str| {
                format!("The {what} `{name}` of secret \"{}\" does not exist", file.name)
            };
            let uid = user(&file.user).ok_or_else(|| missing("user", &file.user))?;
            let gid = group(&file.group).ok_or_else(|| missing("group", &file.group))?;
            self.give(number, entry, Access { mode: file.mode, uid, gid })
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

    /// Gives a file to its user.
    ///
    /// A file that belongs to another user is written anew and not changed by `chown`: a user who may write to its
    /// directory may have put another file in its place.
    fn give(&self, number: usize, entry: &SecretEntry, access: Access) -> Result<(), AgentError> {
        let place = Place::find(Path::new(&entry.file.path))?;
        if place.access() == Some(access) {
            return Ok(());
        }
        let content = if entry.content.is_some() {
            self.sent_content(number)?
        } else {
            let published = manifest::read(self.owner);
            let is_ours = |content: &[u8]| {
                let published = published.get(entry.file.name.as_str());
                published.is_some_and(|published| published.digest == digest(content))
            };
            match place.read()? {
                Some(Found::File { content, .. }) if is_ours(&content) => content,
                _ => {
                    let why = std::io::Error::other("something else is in its place");
                    return Err(io_error(&entry.file.path)(why));
                }
            }
        };
        place.write(&content, access)
    }

    /// The files whose users do not exist yet.
    pub(crate) fn files_without_user(&self) -> FilesWithoutUser<'_> {
        let waits = |entry: &&SecretEntry| entry.content.is_some() && access_of(&entry.file).is_none();
        let entries = self.entries.iter().enumerate().filter(|(_, entry)| waits(entry)).collect();
        FilesWithoutUser { secrets: self, entries, changed: [None; 2] }
    }
}

/// Mode, user and group that a file is to have; `None`: its user or group does not exist yet.
pub(super) fn access_of(file: &SecretFile) -> Option<Access> {
    Some(Access { mode: file.mode, uid: user(&file.user)?, gid: group(&file.group)? })
}

/// Files that are root's until their users exist.
///
/// The activation script makes the users, and a moment later `switch-to-configuration` starts the services that need
/// the files. So the files are given to the users while that program runs, as soon as the users exist.
pub(crate) struct FilesWithoutUser<'a> {
    secrets: &'a SecretChange<'a>,
    /// The entries, each with its number in the request.
    entries: Vec<(usize, &'a SecretEntry)>,
    /// When the lists of users and groups were last changed, as seen at the last look.
    changed: [Option<SystemTime>; 2],
}

impl FilesWithoutUser<'_> {
    const LISTS: [&'static str; 2] = ["/etc/passwd", "/etc/group"];

    /// Gives the files to those users that exist by now. This is cheap where the lists have not changed.
    pub(crate) fn give_to_new_users(&mut self) {
        if self.entries.is_empty() {
            return;
        }
        let now = Self::LISTS.map(|list| std::fs::metadata(list).and_then(|meta| meta.modified()).ok());
        if std::mem::replace(&mut self.changed, now) == now {
            return;
        }
        let secrets = self.secrets;
        self.entries.retain(|(index, entry)| {
            let [users, groups] = Self::LISTS;
            let (uid, gid) = (number(&entry.file.user, users), number(&entry.file.group, groups));
            let Some((uid, gid)) = uid.zip(gid) else { return true };
            open_keys();
            // `give_to_users` tries again after the switch, and reports an error.
            if let Err(error) = secrets.give(*index, entry, Access { mode: entry.file.mode, uid, gid }) {
                println!("{error}");
            }
            false
        });
    }
}
