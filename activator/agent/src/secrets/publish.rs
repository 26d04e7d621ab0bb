//! Putting new secrets in place, and what was there before aside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::memory::{make_directory, write_new};
use super::model::{PUBLISHED, SecretChange, needs_copy};
use super::place::{Access, Found, Place, open_keys};
use super::users::access_of;
use super::{manifest, sealed, undo};
use crate::error::{AgentError, json_error};
use crate::files::replace;

/// The file that says what was in each place before, a list of [`Before`].
pub(super) const BEFORE: &str = "before.json";

/// What was in a place before the activation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Before {
    pub(super) path: PathBuf,
    pub(super) was: Was,
}

/// The kinds of what was there. `content` is the path of a copy in memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Was {
    Nothing,
    Link { target: PathBuf },
    File { content: PathBuf, mode: u32, uid: u32, gid: u32 },
}

impl SecretChange<'_> {
    /// Whether secrets were sent, or published ones have to go.
    pub(crate) fn changes_anything(&self) -> bool {
        let declared: BTreeSet<&str> = self.entries.iter().map(|entry| entry.file.name.as_str()).collect();
        self.entries.iter().any(|entry| entry.content.is_some())
            || manifest::read(self.owner).keys().any(|name| !declared.contains(name.as_str()))
    }

    /// Checks, before anything is touched, that the machine has all secrets that were not sent and can keep those that
    /// are to persist.
    pub(crate) fn check(&self) -> Result<(), String> {
        let published = manifest::read(self.owner);
        let is_lost = |entry: &&nixos_agent::SecretEntry| {
            let there = published.get(entry.file.name.as_str());
            entry.content.is_none() && there.is_none_or(|there| there.fingerprint != entry.fingerprint)
        };
        let lost = self.entries.iter().find(is_lost);
        if self.entries.iter().any(|entry| needs_copy(&entry.file)) {
            sealed::check_possible()?;
        }
        match lost {
            None => Ok(()),
            Some(entry) => Err(format!(
                "The secret \"{}\" was on the machine and is not any more; nothing was changed.",
                entry.file.name
            )),
        }
    }

    /// Puts everything in its place, and what was there before aside. `switches`: another system comes with the
    /// secrets.
    ///
    /// An agent that was killed in the midst of it can do all of it again.
    pub(crate) fn publish(&self, switches: bool) -> Result<(), AgentError> {
        let directory = self.directory();
        make_directory(&directory)?;
        if !directory.join(BEFORE).exists() {
            self.put_aside(&directory)?;
        }
        let toplevel = switches.then_some(self.toplevel);
        undo::begin(toplevel, self.changed_paths().iter().map(PathBuf::as_path))?;
        if self.entries.iter().any(|entry| needs_copy(&entry.file)) {
            sealed::install()?;
        }
        for (number, entry) in self.entries.iter().enumerate() {
            if entry.content.is_none() {
                continue;
            }
            let content = self.sent_content(number)?;
            if needs_copy(&entry.file) {
                sealed::seal(self.owner, entry.file.name.as_str(), &entry.fingerprint, &content)?;
            }
            // The users of the new system may not exist yet. Until they do, the file is root's alone.
            let access =
                access_of(&entry.file).unwrap_or(Access { mode: entry.file.mode & 0o700, uid: 0, gid: 0 });
            Place::make(Path::new(&entry.file.path))?.write(&content, access)?;
        }
        open_keys();
        for gone in self.undeclared() {
            if let Ok(place) = Place::find(&gone.path) {
                place.remove();
            }
        }
        self.mark_moment(PUBLISHED)
    }

    /// Copies what is in all places that change to a directory in memory.
    fn put_aside(&self, directory: &Path) -> Result<(), AgentError> {
        let mut before = vec![];
        for (number, path) in self.changed_paths().into_iter().enumerate() {
            let found =
                if path.parent().is_some_and(Path::exists) { Place::find(&path)?.read()? } else { None };
            let was = match found {
                None => Was::Nothing,
                Some(Found::Link(target)) => Was::Link { target },
                Some(Found::File { content, access: Access { mode, uid, gid } }) => {
                    let copy = directory.join(format!("before-{number}"));
                    write_new(&copy, &content)?;
                    Was::File { content: copy, mode, uid, gid }
                }
            };
            before.push(Before { path, was });
        }
        let json = serde_json::to_vec(&before).map_err(json_error)?;
        replace(&directory.join(BEFORE), &json, 0o600)
    }

    /// The paths of all files that the change writes or removes.
    fn changed_paths(&self) -> BTreeSet<PathBuf> {
        let sent = self.entries.iter().filter(|entry| entry.content.is_some());
        let sent = sent.map(|entry| PathBuf::from(&entry.file.path));
        sent.chain(self.undeclared().into_iter().map(|one| one.path)).collect()
    }
}
