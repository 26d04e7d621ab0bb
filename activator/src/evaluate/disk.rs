//! The files of what is remembered: `$XDG_CACHE_HOME/nixos-activator/evaluations/`.
//!
//! A file that is missing, old or damaged costs an evaluation, and nothing else.

use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What was not used for so long goes away.
const KEPT: Duration = Duration::from_hours(24 * 30);

/// The directory.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The user's; `None` where there is no home.
    pub(super) fn of_user() -> Option<Self> {
        let absolute = |path: &PathBuf| path.is_absolute();
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(absolute);
        let base = base.or_else(|| Some(std::env::home_dir().filter(absolute)?.join(".cache")))?;
        Some(Self::at(base.join("nixos-activator/evaluations")))
    }

    pub(super) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }

    /// What a file says, if it is there and can be read. It then counts as used.
    pub(super) fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let path = self.root.join(name);
        let value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
        // So that it is not taken for forgotten.
        let _ = std::fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Some(value)
    }

    pub(super) fn write<T: Serialize>(&self, name: &str, value: &T) {
        if let Ok(text) = serde_json::to_vec(value) {
            self.write_text(name, &text);
        }
    }

    /// Writes a file as a whole. A failure costs an evaluation later.
    fn write_text(&self, name: &str, text: &[u8]) {
        let write = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
            file.write_all(text)?;
            file.persist(self.root.join(name)).map_err(|error| error.error).map(drop)
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "an evaluation is not remembered");
        }
    }

    /// Removes what nobody asked for in a long time.
    pub(super) fn forget_old(&self) {
        let now = SystemTime::now();
        let old = |path: &Path| {
            let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
            modified.and_then(|modified| now.duration_since(modified).ok()).is_some_and(|age| age > KEPT)
        };
        for entry in std::fs::read_dir(&self.root).into_iter().flatten().flatten() {
            if old(&entry.path()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}
