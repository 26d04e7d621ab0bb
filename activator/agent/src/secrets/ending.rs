//! The end of a change of secrets: the new ones stay with the new system, or the old ones come back with the old
//! system.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::manifest::{self, Published, digest};
use super::model::{RESTORED, SecretChange, needs_copy};
use super::place::{Access, Found, Place};
use super::publish::{BEFORE, Before, Was};
use super::{sealed, undo};
use crate::error::{AgentError, io_error, json_error};
use crate::secret_stream::read_secret;

impl SecretChange<'_> {
    /// The new system stays, and so do its secrets.
    pub(crate) fn keep(&self) -> Result<(), AgentError> {
        let mut published: BTreeMap<String, Published> = manifest::read(self.owner);
        published.retain(|name, _| self.entries.iter().any(|entry| entry.file.name.as_str() == name));
        for entry in self.entries {
            let Some(Found::File { content, access: Access { mode, uid, gid } }) =
                Place::find(Path::new(&entry.file.path))?.read()?
            else {
                return Err(io_error(&entry.file.path)(std::io::ErrorKind::NotFound.into()));
            };
            published.insert(
                entry.file.name.to_string(),
                Published {
                    name: entry.file.name.to_string(),
                    fingerprint: entry.fingerprint.clone(),
                    digest: digest(&content),
                    access: format!("{mode:o} {uid}:{gid}"),
                    path: PathBuf::from(&entry.file.path),
                },
            );
        }
        let copied = self.entries.iter().filter(|entry| needs_copy(&entry.file));
        let copied = copied.filter_map(|entry| published.get(entry.file.name.as_str()));
        sealed::keep(self.owner, &copied.collect::<Vec<_>>())?;
        sealed::take_over(self.owner, &published.values().map(|one| one.path.as_path()).collect())?;
        // The manifest is the last to be written: the client takes a secret that is not in it for lost, and sends it
        // again.
        manifest::write(self.owner, &published)?;
        undo::end();
        Ok(())
    }

    /// The old system comes back, and so do its secrets.
    pub(crate) fn restore(&self) -> Result<(), AgentError> {
        let Ok(text) = std::fs::read(self.directory().join(BEFORE)) else {
            return Ok(());
        };
        let before: Vec<Before> = serde_json::from_slice(&text).map_err(json_error)?;
        for Before { path, was } in before {
            let place = Place::make(&path)?;
            match was {
                Was::Nothing => place.remove(),
                Was::Link { target } => place.link(&target)?,
                Was::File { content, mode, uid, gid } => {
                    let content =
                        File::open(content).and_then(read_secret).map_err(io_error("secret put aside"))?;
                    place.write(&content, Access { mode, uid, gid })?;
                }
            }
        }
        undo::end();
        self.mark_moment(RESTORED)
    }

    /// Removes what was staged and put aside in memory.
    pub(crate) fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.directory());
    }

    /// Removes encrypted copies that no manifest names. Only for the agent that holds the lock.
    pub(crate) fn sweep(&self) {
        sealed::sweep(self.owner);
    }
}
