//! The `nixConfig` of a flake: settings of Nix that it asks for, such as its binary cache.
//!
//! Nix applies them only in some of its commands, and only for those who say so (`accept-flake-config`): whoever
//! decides about caches decides what is run. We ask Nix whether its user has, and give the settings to builds then.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use crate::nix::{Call, Nix, NixError, Version, escaped, mistake};

/// Since when `nix config show` is there.
const CONFIG_SHOW: Version = Version { major: 2, minor: 20 };

/// Settings that decide nothing about builds; Nix itself takes them from anybody.
const HARMLESS: [&str; 6] = [
    "bash-prompt",
    "bash-prompt-prefix",
    "bash-prompt-suffix",
    "flake-registry",
    "commit-lock-file-summary",
    "commit-lockfile-summary",
];

/// What a flake asks for, as in `nix.conf`.
pub(super) async fn wanted(
    nix: &Nix,
    directory: &Path,
    cancel: &CancellationToken,
) -> Result<Vec<(String, String)>, NixError> {
    let file = directory.join("flake.nix");
    // Most have none, and a process costs more than a look.
    if !std::fs::read_to_string(&file).is_ok_and(|text| text.contains("nixConfig")) {
        return Ok(vec![]);
    }
    let call = Call {
        program: "nix-instantiate",
        arguments: &["--eval", "--strict", "--json", "-"],
        input: &format!("(import \"{}\").nixConfig or {{ }}", escaped(&file.display().to_string())),
        ..Call::default()
    };
    match nix.call(call, cancel, &|_| {}).await {
        Ok(finished) => {
            let settings: BTreeMap<String, Json> = serde_json::from_str(&finished.stdout).unwrap_or_default();
            Ok(settings
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
                .filter(is_usable)
                .collect())
        }
        // The evaluation says better what is wrong with it.
        Err(NixError::Failed { .. }) => Ok(vec![]),
        Err(error) => Err(error),
    }
}

/// Whether the user of this Nix lets flakes set what they ask for.
pub(super) async fn are_accepted(nix: &Nix, cancel: &CancellationToken) -> Result<bool, NixError> {
    let arguments: &[&str] = if nix.version() < CONFIG_SHOW { &["show-config"] } else { &["config", "show"] };
    match nix.run("nix", arguments, &[], cancel, &|_| {}).await {
        Ok(finished) => Ok(finished.stdout.lines().any(|line| line.trim() == "accept-flake-config = true")),
        Err(NixError::Failed { message, .. }) => {
            tracing::info!(message, "Nix does not say how it is set");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn is_usable((name, value): &(String, String)) -> bool {
    !HARMLESS.contains(&name.as_str()) && mistake(name, value).is_none()
}

/// A value as in `nix.conf`.
fn text(value: &Json) -> Option<String> {
    match value {
        Json::Bool(_) | Json::Number(_) => Some(value.to_string()),
        Json::String(text) => Some(text.clone()),
        Json::Array(items) => Some(items.iter().filter_map(text).collect::<Vec<_>>().join(" ")),
        Json::Null | Json::Object(_) => None,
    }
}
