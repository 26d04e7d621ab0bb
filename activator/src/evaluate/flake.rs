//! Flakes: which tree exactly a reference means now.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value as Json;
use tokio_util::sync::CancellationToken;

use super::error::EvaluateError;
use super::model::Warning;
use super::repository::{Repository, is_ignored};
use super::store_tree::Root;
use crate::network::reference;
use crate::nix::{Call, Nix, NixError, escaped, sri};

/// A reference as it is evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Locked {
    /// For `builtins.getFlake`.
    pub(super) reference: String,
    /// Which output is the specification, where the user says so.
    pub(super) output: Option<String>,
    /// Whether the reference names everything that evaluation reads.
    pub(super) pure: bool,
    /// Where its files are, if it can be told which of them are read.
    pub(super) tree: Option<Tree>,
    /// Where its `flake.nix` is in the store; `None`: Nix does not say.
    pub(super) directory: Option<PathBuf>,
    /// The repository here that it is in, and its tree in the store.
    pub(super) repository: Option<Repository>,
    /// What the user should know.
    pub(super) warnings: Vec<Warning>,
}

/// The files of a flake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tree {
    pub(super) root: Root,
    /// Where in it the flake is.
    pub(super) directory: String,
    /// What is known of it besides, by name: whether something is there can be asked without a look at it.
    pub(super) attributes: Vec<&'static str>,
}

/// What a reference says of a tree besides its hash.
const ATTRIBUTES: [&str; 3] = ["lastModified", "rev", "revCount"];

impl Tree {
    fn new(path: &Path, directory: &str, hash: &str, locked: &Json) -> Option<Self> {
        let hash = base64::engine::general_purpose::STANDARD.decode(hash.strip_prefix("sha256-")?).ok()?;
        Some(Self {
            root: Root::new(path.to_owned(), hash.iter().map(|byte| format!("{byte:02x}")).collect())?,
            directory: directory.to_owned(),
            attributes: ATTRIBUTES.into_iter().filter(|name| !locked[*name].is_null()).collect(),
        })
    }

    /// Nix looks at these before anything can be watched.
    pub(super) fn begins_with(&self) -> [Vec<u8>; 2] {
        let directory = self.root.path().join(&self.directory);
        ["flake.nix", "flake.lock"].map(|name| std::fs::read(directory.join(name)).unwrap_or_default())
    }
}

/// The part of `nix flake metadata --json` that is needed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    path: Option<PathBuf>,
    /// What the reference means, as a URL: for a directory in a git repository, `git+file:` with that repository.
    resolved_url: Option<String>,
    url: Option<String>,
    #[serde(default)]
    locked: Json,
    #[serde(default)]
    locks: Json,
}

/// Looks where the reference leads. Nothing is written beside it, no lock file either. With `by_files` it is to be
/// told which files are read.
pub(super) async fn lock(
    nix: &Nix,
    reference: &str,
    by_files: bool,
    cancel: &CancellationToken,
) -> Result<Locked, EvaluateError> {
    let (reference, output) = match reference.split_once('#') {
        Some((reference, output)) => (reference, Some(output.to_owned()).filter(|output| !output.is_empty())),
        None => (reference, None),
    };
    let unlocked = Locked {
        directory: None,
        repository: None,
        reference: String::new(),
        output: output.clone(),
        pure: false,
        tree: None,
        warnings: vec![],
    };
    let wanted_pure =
        !nix.settings().options.iter().any(|(name, value)| name == "pure-eval" && value == "false");
    let (given, metadata) = metadata(nix, reference, cancel).await?;
    // `builtins.getFlake` would take the plain path of a directory for `path:`, and so copy what git ignores to the
    // store: states of Terraform, keys.
    let reference = metadata.resolved_url.clone().unwrap_or_else(|| given.clone());
    let exposed: Vec<Warning> = exposed(&reference).into_iter().collect();
    let with = |warning: Warning| [exposed.clone(), vec![warning]].concat();
    let unlocked = Locked { reference: reference.clone(), warnings: exposed.clone(), ..unlocked };
    if !wanted_pure {
        return Ok(unlocked);
    }
    let tree = match metadata.path.clone().filter(|path| path.is_dir()) {
        Some(path) => Some(path),
        // A Nix with lazy trees has not copied it to the store.
        None => fetched(nix, &reference, cancel).await?,
    };
    let Some(path) = tree else {
        return Ok(Locked { warnings: with(Warning::NotFetched { reference: given }), ..unlocked });
    };
    let path = path.as_path();
    let directory = metadata.locked["dir"].as_str().unwrap_or_default();
    let repository = metadata.url.as_deref().and_then(|url| Repository::new(url, path));
    let unlocked = Locked { directory: Some(path.join(directory)), repository, ..unlocked };
    if !is_complete(&path.join(directory).join("flake.lock"), &metadata.locks) {
        return Ok(Locked { warnings: with(Warning::Unlocked { reference: given }), ..unlocked });
    }
    let by_files = by_files && !looks_at_itself(&metadata.locks);
    let mut tree = None;
    // A revision says it all, but may be read from where it came from; what has none is named by the hash of its
    // content.
    let reference = match metadata.url {
        Some(url) if metadata.locked["rev"].is_string() && !by_files => url,
        _ => {
            let mut hash = metadata.locked["narHash"].as_str().map(str::to_owned);
            if hash.is_none() {
                let path = path.display().to_string();
                let asked = nix.run("nix-store", &["--query", "--hash", &path], &[], cancel, &|_| {}).await?;
                hash = sri(asked.stdout.trim());
            }
            let Some(hash) = hash else { return Ok(unlocked) };
            if by_files {
                tree = Tree::new(path, directory, &hash, &metadata.locked);
            }
            by_content(path, &hash, directory, &metadata.locked)
        }
    };
    Ok(Locked { reference, pure: true, tree, ..unlocked })
}

/// Warns of files with secrets in a flake that is not in a git repository: Nix copies all of its directory to the
/// store.
fn exposed(reference: &str) -> Option<Warning> {
    let directory = reference.starts_with("path:").then(|| reference::directory_of(reference))??;
    if directory.starts_with("/nix/store") {
        return None;
    }
    let is_secret = |name: &String| {
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        name.contains(".tfstate") || ends(&[".key", ".key.old", ".pem", ".tfvars", ".tfvars.json"])
    };
    let entries = std::fs::read_dir(&directory).ok()?.flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(is_secret).collect();
    names.sort();
    (!names.is_empty()).then(|| Warning::Exposed { directory, names: names.join(", ") })
}

/// What Nix says about a reference, and the reference that it says it about.
async fn metadata(
    nix: &Nix,
    reference: &str,
    cancel: &CancellationToken,
) -> Result<(String, Metadata), EvaluateError> {
    let ask = async |reference: &str| {
        let arguments = ["flake", "metadata", "--json", "--no-write-lock-file", reference];
        nix.run("nix", &arguments, &[], cancel, &|_| {}).await
    };
    let mut reference = reference.to_owned();
    let mut asked = ask(&reference).await;
    if matches!(asked, Err(NixError::Failed { .. }))
        && let Some(directory) = is_ignored(&reference, cancel).await
    {
        reference = directory;
        asked = ask(&reference).await;
    }
    let finished = match asked {
        Ok(finished) => finished,
        Err(NixError::Failed { message, .. }) => {
            return Err(match reference::unreadable(&reference, nix.version()) {
                Some(error) => error.into(),
                None => EvaluateError::Network { trace: message },
            });
        }
        Err(error) => return Err(error.into()),
    };
    let metadata = serde_json::from_str(&finished.stdout).map_err(|error| NixError::Output {
        program: "nix flake metadata".to_owned(),
        reason: error.to_string(),
    })?;
    Ok((reference, metadata))
}

/// Has Nix put a flake's tree into the store; `None`: it does not. (`nix flake prefetch` would ask the registry about
/// any reference.)
async fn fetched(
    nix: &Nix,
    reference: &str,
    cancel: &CancellationToken,
) -> Result<Option<PathBuf>, EvaluateError> {
    let tree = format!("(builtins.getFlake \"{}\").sourceInfo.outPath", escaped(reference));
    let call = Call {
        program: "nix-instantiate",
        arguments: &["--eval", "--json", "--read-write-mode", "-"],
        input: &format!("builtins.path {{ name = \"source\"; path = {tree}; }}"),
        ..Call::default()
    };
    match nix.call(call, cancel, &|_| {}).await {
        Ok(finished) => {
            let path: Option<PathBuf> = serde_json::from_str(&finished.stdout).ok();
            Ok(path.filter(|path| path.is_dir()))
        }
        Err(NixError::Failed { message, .. }) => {
            tracing::info!(reference, message, "the flake's tree cannot be fetched");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether some inputs are directories of the flake's own tree, or have the flake itself as an input (`follows =
/// ""`): they may ask which tree that is, and nobody sees it.
fn looks_at_itself(locks: &Json) -> bool {
    let mut nodes = locks["nodes"].as_object().into_iter().flat_map(|nodes| nodes.values());
    nodes.any(|node| {
        let locked = &node["locked"];
        let is_inside =
            locked["type"] == "path" && locked["path"].as_str().is_none_or(|path| !path.starts_with('/'));
        let mut inputs = node["inputs"].as_object().into_iter().flat_map(|inputs| inputs.values());
        is_inside
            || inputs.any(|input| *input == locks["root"] || input.as_array().is_some_and(Vec::is_empty))
    })
}

/// A `path:` reference to a tree in the store, with what else Nix says about trees.
fn by_content(path: &Path, hash: &str, directory: &str, locked: &Json) -> String {
    let mut reference = format!("path:{}?narHash={}", path.display(), encoded(hash));
    for name in ATTRIBUTES {
        match &locked[name] {
            Json::String(value) => reference.push_str(&format!("&{name}={value}")),
            Json::Number(value) => reference.push_str(&format!("&{name}={value}")),
            _ => {}
        }
    }
    if !directory.is_empty() {
        reference.push_str(&format!("&dir={}", encoded(directory)));
    }
    reference
}

/// As a value in a query.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
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
        let locked = serde_json::json!({ "rev": "abc", "revCount": 5, "ref": "main" });
        assert_eq!(
            by_content(Path::new("/nix/store/x-source"), "sha256-a", "", &locked),
            "path:/nix/store/x-source?narHash=sha256-a&rev=abc&revCount=5"
        );
    }

    #[test]
    fn inputs_that_look_at_the_flake_are_found() {
        let locks = |path: &str| {
            let locked = serde_json::json!({ "type": "path", "path": path });
            serde_json::json!({ "nodes": { "root": { "inputs": { "a": "a" } }, "a": { "locked": locked } } })
        };
        assert!(looks_at_itself(&locks("./a")));
        assert!(!looks_at_itself(&locks("/a")));
        assert!(!looks_at_itself(&Json::Null));
        let follows = |whom: &[&str]| serde_json::json!({ "nodes": { "a": { "inputs": { "b": whom } } } });
        assert!(looks_at_itself(&follows(&[])));
        assert!(!looks_at_itself(&follows(&["nixpkgs"])));
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
