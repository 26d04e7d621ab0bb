//! A flake's tree in the store.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::nix::hash_of_copy;

/// A tree in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    path: PathBuf,
    nar_hash: String,
}

impl Root {
    /// With the SHA-256 of its content in hexadecimal digits, if that is one.
    pub(super) fn new(path: PathBuf, nar_hash: String) -> Option<Self> {
        let is_hash = nar_hash.len() == 64 && nar_hash.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hash.then_some(Self { path, nar_hash })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn nar_hash(&self) -> &str {
        &self.nar_hash
    }

    /// Whether something in the store is all of it, under any name.
    pub(super) fn is_copied_to(&self, item: &OsStr) -> bool {
        let parts = item.to_str().and_then(|item| item.split_once('-'));
        parts.is_some_and(|(hash, name)| hash_of_copy(&self.nar_hash, name) == hash)
    }
}
