//! Secrets of a transaction: staged in memory, published before the new system takes over, put back when it does not stay.
//!
//! Contents are only ever in files of root in a ramfs, which is never swapped out, and where they are declared to be. What is
//! on disk about them is their names, places and owners, and for those whose place is on disk too, a digest.

mod manifest;
mod owners;
mod place;
mod sealed;
mod undo;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use nixos_agent::{Request, SecretEntry, SecretFile};
use serde::{Deserialize, Serialize};

use crate::AgentError;
use crate::files::{Deployment, failed, read_secret, replace};
use crate::host;
use manifest::{Published, digest};
use owners::looks_of;
use place::{Found, Looks, MEMORY, Place, in_memory, open_keys, write_new};

pub(crate) use owners::Orphans;
pub(crate) use sealed::put_back;
pub(crate) use undo::undo;

/// The secrets of one activation.
pub(crate) struct Secrets<'a> {
    deployment: &'a Deployment,
    owner: &'a str,
    entries: &'a [SecretEntry],
    /// The system that they belong to.
    toplevel: &'a str,
}

/// What was in a place.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Before {
    path: PathBuf,
    was: Was,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Was {
    Nothing,
    Link { target: PathBuf },
    File { content: PathBuf, mode: u32, uid: u32, gid: u32 },
}

const BEFORE: &str = "before.json";
const PUBLISHED: &str = "published";
const REFRESHED: &str = "refreshed";
const RESTORED: &str = "restored";

/// Whether a copy of it has to outlive a reboot. What is on disk does so by itself.
fn persists(file: &SecretFile) -> bool {
    file.persist && Path::new(&file.path).starts_with("/run")
}

/// Takes the contents of a request off the stream they came in on. `contents` is everything after the request's line.
pub(crate) fn stage(request: &Request, contents: &[u8]) -> Result<(), AgentError> {
    let lengths = request.secrets.iter().flat_map(|secrets| &secrets.entries).map(|entry| entry.content);
    let announced: u64 = lengths.flatten().sum();
    if announced != contents.len() as u64 {
        let found = contents.len();
        return Err(AgentError::Request(format!("expected {announced} bytes of secrets, found {found}")));
    }
    request.secrets.iter().flat_map(|secrets| &secrets.entries).try_for_each(is_sound)?;
    match &request.secrets {
        Some(secrets) if secrets.entries.iter().any(|entry| entry.content.is_some()) => {
            stage_at(&staged(request.id.as_str()), &secrets.entries, contents)
        }
        _ => Ok(()),
    }
}

/// Whether its texts are what they are taken for: parts of file names, and fields of a line.
fn is_sound(entry: &SecretEntry) -> Result<(), AgentError> {
    let wrong = |what: &str, expected: &str| {
        Err(AgentError::Request(format!("the {what} of secret \"{}\" is not {expected}", entry.file.name)))
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if entry.fingerprint.is_empty() || !entry.fingerprint.chars().all(is_plain) {
        return wrong("fingerprint", "made of letters, digits, `-` and `_`");
    }
    let path = Path::new(&entry.file.path);
    let leaves = path.components().any(|part| part == std::path::Component::ParentDir);
    if !path.is_absolute() || leaves || entry.file.path.contains(char::is_control) {
        return wrong("path", "an absolute path without `..` and control characters");
    }
    Ok(())
}

fn stage_at(directory: &Path, entries: &[SecretEntry], contents: &[u8]) -> Result<(), AgentError> {
    in_memory(Path::new(MEMORY), 0o700)?;
    DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(directory)
        .map_err(failed(&directory.display().to_string()))?;
    let mut rest = contents;
    for (number, entry) in entries.iter().enumerate() {
        let Some(length) = entry.content else { continue };
        let (content, more) = rest.split_at(usize::try_from(length).unwrap_or(0).min(rest.len()));
        rest = more;
        write_new(&directory.join(number.to_string()), content)?;
    }
    Ok(())
}

fn staged(id: &str) -> PathBuf {
    Path::new(MEMORY).join(id)
}

impl<'a> Secrets<'a> {
    /// Those of a request, where it has any to say something about.
    pub(crate) fn of(deployment: &'a Deployment, request: &'a Request) -> Option<Self> {
        let secrets = request.secrets.as_ref()?;
        let (owner, entries) = (secrets.owner.as_str(), secrets.entries.as_slice());
        Some(Self { deployment, owner, entries, toplevel: &request.toplevel })
    }

    /// Whether there is anything to do.
    pub(crate) fn are_pending(&self) -> bool {
        let declared: BTreeSet<&str> = self.entries.iter().map(|entry| entry.file.name.as_str()).collect();
        self.entries.iter().any(|entry| entry.content.is_some())
            || manifest::read(self.owner).keys().any(|name| !declared.contains(name.as_str()))
    }

    /// What must be true before anything is touched: what was not sent is there.
    pub(crate) fn check(&self) -> Result<(), String> {
        let there = manifest::read(self.owner);
        let lost = self.entries.iter().filter(|entry| entry.content.is_none()).find(|entry| {
            there
                .get(entry.file.name.as_str())
                .is_none_or(|published| published.fingerprint != entry.fingerprint)
        });
        if self.entries.iter().any(|entry| persists(&entry.file)) {
            sealed::is_possible()?;
        }
        match lost {
            None => Ok(()),
            Some(entry) => Err(format!(
                "The secret \"{}\" was on the machine and is not any more; nothing was changed.",
                entry.file.name
            )),
        }
    }

    /// Puts everything in its place, and what was there before aside. `switches`: another system comes with them. Can be done again after it was
    /// interrupted.
    pub(crate) fn publish(&self, switches: bool) -> Result<(), AgentError> {
        let aside = self.aside();
        in_memory(Path::new(MEMORY), 0o700)?;
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&aside)
            .map_err(failed(&aside.display().to_string()))?;
        if !aside.join(BEFORE).exists() {
            self.put_aside(&aside)?;
        }
        let toplevel = switches.then_some(self.toplevel);
        undo::begin(toplevel, self.places().iter().map(PathBuf::as_path))?;
        if self.entries.iter().any(|entry| persists(&entry.file)) {
            sealed::install()?;
        }
        for (number, entry) in self.entries.iter().enumerate() {
            if entry.content.is_none() {
                continue;
            }
            let staged = File::open(aside.join(number.to_string())).and_then(read_secret);
            let content = staged.map_err(failed("staged secret"))?;
            if persists(&entry.file) {
                sealed::seal(self.owner, entry.file.name.as_str(), &entry.fingerprint, &content)?;
            }
            // Users of the new system may not exist yet: until then it is root's alone.
            let looks =
                looks_of(&entry.file).unwrap_or(Looks { mode: entry.file.mode & 0o700, uid: 0, gid: 0 });
            Place::make(Path::new(&entry.file.path))?.write(&content, looks)?;
        }
        open_keys();
        for gone in self.undeclared() {
            if let Ok(place) = Place::find(&gone.path) {
                place.remove();
            }
        }
        self.mark(PUBLISHED)
    }

    fn aside(&self) -> PathBuf {
        staged(self.deployment.id().as_str())
    }

    /// When something was done, in microseconds of [`host::monotonic`] time.
    fn moment(&self, name: &str) -> Option<u64> {
        std::fs::read_to_string(self.aside().join(name)).ok()?.trim().parse().ok()
    }

    fn mark(&self, name: &str) -> Result<(), AgentError> {
        let now = host::monotonic().as_micros().to_string();
        replace(&self.aside().join(name), now.as_bytes(), 0o600)
    }

    /// The new system stays: so do they.
    pub(crate) fn keep(&self) -> Result<(), AgentError> {
        let mut published: BTreeMap<String, Published> = manifest::read(self.owner);
        published.retain(|name, _| self.entries.iter().any(|entry| entry.file.name.as_str() == name));
        for entry in self.entries {
            let Some(Found::File { content, looks: Looks { mode, uid, gid } }) =
                Place::find(Path::new(&entry.file.path))?.look()?
            else {
                return Err(failed(&entry.file.path)(std::io::ErrorKind::NotFound.into()));
            };
            let looks = format!("{mode:o} {uid}:{gid}");
            published.insert(
                entry.file.name.to_string(),
                Published {
                    name: entry.file.name.to_string(),
                    fingerprint: entry.fingerprint.clone(),
                    digest: digest(&content),
                    looks,
                    path: PathBuf::from(&entry.file.path),
                },
            );
        }
        let persistent = self.entries.iter().filter(|entry| persists(&entry.file));
        let persistent = persistent.filter_map(|entry| published.get(entry.file.name.as_str()));
        sealed::keep(self.owner, &persistent.collect::<Vec<_>>())?;
        sealed::take_over(self.owner, &published.values().map(|one| one.path.as_path()).collect())?;
        // Last: what is not in it is taken for lost and sent again.
        manifest::write(self.owner, &published)?;
        undo::end();
        Ok(())
    }

    /// The old system comes back: so do they.
    pub(crate) fn restore(&self) -> Result<(), AgentError> {
        let aside = self.aside();
        let Ok(text) = std::fs::read(aside.join(BEFORE)) else {
            return Ok(());
        };
        let before: Vec<Before> =
            serde_json::from_slice(&text).map_err(|error| AgentError::Request(error.to_string()))?;
        for Before { path, was } in before {
            let place = Place::make(&path)?;
            match was {
                Was::Nothing => place.remove(),
                Was::Link { target } => place.link(&target)?,
                Was::File { content, mode, uid, gid } => {
                    let content =
                        File::open(content).and_then(read_secret).map_err(failed("secret put aside"))?;
                    place.write(&content, Looks { mode, uid, gid })?;
                }
            }
        }
        undo::end();
        self.mark(RESTORED)
    }

    /// Removes what was staged and put aside.
    pub(crate) fn forget(&self) {
        let _ = std::fs::remove_dir_all(self.aside());
    }

    /// Removes encrypted copies that do not count, for who holds the lock.
    pub(crate) fn sweep(&self) {
        sealed::sweep(self.owner);
    }

    fn undeclared(&self) -> Vec<Published> {
        let paths: BTreeSet<&Path> = self.entries.iter().map(|entry| Path::new(&entry.file.path)).collect();
        let mut published: Vec<Published> = manifest::read(self.owner).into_values().collect();
        published.retain(|one| !paths.contains(one.path.as_path()));
        published
    }

    fn put_aside(&self, aside: &Path) -> Result<(), AgentError> {
        let mut before = vec![];
        for (number, path) in self.places().into_iter().enumerate() {
            let found =
                if path.parent().is_some_and(Path::exists) { Place::find(&path)?.look()? } else { None };
            let was = match found {
                None => Was::Nothing,
                Some(Found::Link(target)) => Was::Link { target },
                Some(Found::File { content, looks: Looks { mode, uid, gid } }) => {
                    let copy = aside.join(format!("before-{number}"));
                    write_new(&copy, &content)?;
                    Was::File { content: copy, mode, uid, gid }
                }
            };
            before.push(Before { path, was });
        }
        let json = serde_json::to_vec(&before).map_err(|error| AgentError::Request(error.to_string()))?;
        replace(&aside.join(BEFORE), &json, 0o600)
    }

    /// All places that change.
    fn places(&self) -> BTreeSet<PathBuf> {
        let changed = self.entries.iter().filter(|entry| entry.content.is_some());
        let changed = changed.map(|entry| PathBuf::from(&entry.file.path));
        changed.chain(self.undeclared().into_iter().map(|one| one.path)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_says_of_a_secret_stays_in_its_place() {
        let entry = |path: &str, fingerprint: &str| SecretEntry {
            file: SecretFile {
                name: "token".parse().unwrap(),
                path: path.to_owned(),
                user: "root".to_owned(),
                group: "root".to_owned(),
                mode: 0o400,
                restart: vec![],
                reload: vec![],
                persist: false,
            },
            fingerprint: fingerprint.to_owned(),
            content: None,
        };
        assert!(is_sound(&entry("/run/keys/a token", "aZ0-_")).is_ok());
        for (path, fingerprint) in [
            ("/run/keys/x", "../x"),
            ("/run/keys/x", ""),
            ("/run/keys/x", "a\tb"),
            ("/run/keys/../../etc/shadow", "a"),
            ("run/keys/x", "a"),
            ("/run/keys/x\ty", "a"),
            ("/run/keys/x\ny", "a"),
        ] {
            assert!(is_sound(&entry(path, fingerprint)).is_err(), "{path} {fingerprint}");
        }
    }
}
