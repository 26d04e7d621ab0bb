//! Files of `/etc`, as a system has them or will have them.

use std::path::{Path, PathBuf};

/// Finds files of `/etc`: as they are now, or as they will be with a system that does not run yet.
pub(super) struct EtcFiles<'a> {
    pub(super) system: Option<&'a Path>,
    /// Whether `system` does not run yet. Then the files that the running system has put into `/etc` do not count.
    is_future: bool,
}

impl<'a> EtcFiles<'a> {
    /// The files as they are now, under the system that runs.
    pub(super) fn now(system: Option<&'a Path>) -> Self {
        Self { system, is_future: false }
    }

    /// The files as they will be under a new system.
    pub(super) fn after(system: &'a Path) -> Self {
        Self { system: Some(system), is_future: true }
    }

    /// Whether a file will exist that a program makes only once the new system runs: its content is not known yet.
    pub(super) fn comes_later(&self, path: &Path) -> bool {
        let own = self
            .system
            .zip(path.strip_prefix("/etc").ok())
            .map(|(system, below)| system.join("etc").join(below));
        let dangles = own.is_some_and(|own| own.symlink_metadata().is_ok() && !own.exists());
        self.is_future && (dangles || (path.starts_with("/run") && !path.exists()))
    }

    /// Where to read the file that has this path under the system; `None`: it will not exist.
    pub(super) fn find(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix("/etc").ok().filter(|_| self.is_future);
        let Some((system, below)) = self.system.zip(below) else {
            return path.exists().then(|| path.to_owned());
        };
        let own = system.join("etc").join(below);
        if own.exists() {
            return Some(own);
        }
        (path.exists() && !is_managed(path)).then(|| path.to_owned())
    }
}

/// Whether a file in `/etc` belongs to a system: it is a link into the store, or a copy that NixOS lists in
/// `/etc/.clean`.
pub(super) fn is_managed(path: &Path) -> bool {
    let copies = std::fs::read_to_string("/etc/.clean").unwrap_or_default();
    let is_copy = |below: &Path| copies.lines().any(|line| Path::new(line) == below);
    path.canonicalize().is_ok_and(|target| target.starts_with("/nix/store"))
        || path.strip_prefix("/etc").is_ok_and(is_copy)
}
