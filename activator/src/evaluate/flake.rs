//! Flakes: which tree exactly a reference means now.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::EvaluateError;
use super::question::sri;
use crate::nix::{Nix, NixError};

/// A reference as it is evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Locked {
    /// For `builtins.getFlake`.
    pub(super) reference: String,
    /// Which output is the specification, where the user says so.
    pub(super) output: Option<String>,
    /// Whether the reference names everything that evaluation reads.
    pub(super) pure: bool,
}

/// The part of `nix flake metadata --json` that is needed.
#[derive(Debug, Deserialize)]
struct Metadata {
    path: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    locked: Json,
    #[serde(default)]
    locks: Json,
}

/// Looks where the reference leads. Nothing is written beside it, no lock file either.
pub(super) async fn lock(
    nix: &Nix,
    reference: &str,
    cancel: &CancellationToken,
) -> Result<Locked, EvaluateError> {
    let (reference, output) = match reference.split_once('#') {
        Some((reference, output)) => (reference, Some(output.to_owned()).filter(|output| !output.is_empty())),
        None => (reference, None),
    };
    let unlocked = Locked { reference: reference.to_owned(), output: output.clone(), pure: false };
    let wanted_pure =
        !nix.settings().options.iter().any(|(name, value)| name == "pure-eval" && value == "false");
    let arguments = ["flake", "metadata", "--json", "--no-write-lock-file", reference];
    let finished = match nix.run("nix", &arguments, &[], cancel, &|_| {}).await {
        Ok(finished) => finished,
        Err(NixError::Failed { message, .. }) => return Err(EvaluateError::Network { trace: message }),
        Err(error) => return Err(error.into()),
    };
    let metadata: Metadata = serde_json::from_str(&finished.stdout).map_err(|error| NixError::Output {
        program: "nix flake metadata".to_owned(),
        reason: error.to_string(),
    })?;
    let Some(path) = metadata.path.as_deref().filter(|path| wanted_pure && path.is_dir()) else {
        return Ok(unlocked);
    };
    let directory = metadata.locked["dir"].as_str().unwrap_or_default();
    if !is_complete(&path.join(directory).join("flake.lock"), &metadata.locks) {
        tracing::warn!(
            reference,
            "the flake's inputs are not all locked: it is evaluated as it is today, and not remembered"
        );
        return Ok(unlocked);
    }
    // A revision says it all; what has none is named by the hash of its content.
    let reference = match metadata.url {
        Some(url) if metadata.locked["rev"].is_string() => url,
        _ => {
            let mut hash = metadata.locked["narHash"].as_str().map(str::to_owned);
            if hash.is_none() {
                let path = path.display().to_string();
                let asked = nix.run("nix-store", &["--query", "--hash", &path], &[], cancel, &|_| {}).await?;
                hash = sri(asked.stdout.trim());
            }
            let Some(hash) = hash else { return Ok(unlocked) };
            by_content(path, &hash, directory, &metadata.locked)
        }
    };
    Ok(Locked { reference, output, pure: true })
}

/// A `path:` reference to a tree in the store.
fn by_content(path: &Path, hash: &str, directory: &str, locked: &Json) -> String {
    let encoded = hash.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let mut reference = format!("path:{}?narHash={encoded}", path.display());
    if let Some(modified) = locked["lastModified"].as_u64() {
        reference.push_str(&format!("&lastModified={modified}"));
    }
    if !directory.is_empty() {
        reference.push_str(&format!("&dir={directory}"));
    }
    reference
}

/// Whether the lock file has everything that Nix locked just now.
fn is_complete(file: &Path, locks: &Json) -> bool {
    let written: Json =
        std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let nodes = &locks["nodes"];
    let needs_none = nodes.as_object().is_none_or(|nodes| nodes.len() <= 1);
    needs_none || written["nodes"] == *nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_revision_is_named_by_its_content() {
        let locked = serde_json::json!({ "lastModified": 7 });
        assert_eq!(
            by_content(Path::new("/nix/store/x-source"), "sha256-a+/=", "sub", &locked),
            "path:/nix/store/x-source?narHash=sha256-a%2B%2F%3D&lastModified=7&dir=sub"
        );
    }

    #[test]
    fn a_lock_file_is_complete_when_nothing_had_to_be_added() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("flake.lock");
        let none = serde_json::json!({ "nodes": { "root": {} } });
        let one =
            serde_json::json!({ "nodes": { "root": { "inputs": { "a": "a" } }, "a": { "locked": {} } } });
        assert!(is_complete(&file, &none));
        assert!(!is_complete(&file, &one));
        std::fs::write(&file, one.to_string()).unwrap();
        assert!(is_complete(&file, &one));
    }
}
