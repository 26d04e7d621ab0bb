//! One question to Nix as text: our Nix code, the request, and what makes the answer what it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::code::Tree;
use super::costs::Asked;
use super::error::EvaluateError;
use super::mentions::Search;
use super::model::{CachePolicy, Warning};
use super::repository::Repository;
use super::store_tree::Root;
use super::trace::Tracer;
use super::{config, flake};
use crate::MachineName;
use crate::hash::{sha256, sha256_of};
use crate::network::{Request, Spec};
use crate::nix::{Nix, NixError, escaped};

/// Where everything is that Nix makes.
pub(super) const STORE: &str = "/nix/store/";

/// The version of rows that come with read sets. It is raised when rows that were written so far may be wrong.
const FORMAT: &str = "2";

/// Variables that differ from run to run and mean nothing to a specification; it does not see them.
const VOLATILE: &[&str] = &[
    "_",
    "COLUMNS",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LINES",
    "OLDPWD",
    "PWD",
    "SHLVL",
    "TERM",
    "TERM_PROGRAM",
    "WINDOWID",
];
const VOLATILE_PREFIXES: &[&str] =
    &["PLUGIN_", "SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "TF_", "XDG_SESSION_"];
/// Seen by what a specification fetches, but no part of what it is.
const UNCOUNTED: &[&str] = &["SSH_AUTH_SOCK", "SSH_AGENT_PID"];

/// The question about a flake without the hash of its tree, so that its answers survive changes of files that nothing
/// reads.
#[derive(Debug)]
pub(super) struct ByFiles {
    /// Everything but other files that decides about the answer.
    pub(super) name: String,
    /// Where the files are.
    pub(super) root: Root,
    /// For answers that hold for this tree alone.
    pub(super) search: Arc<Mutex<Search>>,
    /// The flake.
    reference: String,
}

impl ByFiles {
    /// Whether a value does not name the tree it was made from. A system's derivation is looked through elsewhere;
    /// where other values name something in the store nobody knows what that was made from.
    pub(super) fn is_of_any_tree<T: Serialize>(&self, asked: Asked, value: &T) -> bool {
        let Ok(text) = serde_json::to_string(value) else {
            return false;
        };
        match asked {
            Asked::Systems => {
                !self.search.lock().unwrap_or_else(PoisonError::into_inner).is_in(text.as_bytes())
            }
            Asked::Descriptions => !text.contains(STORE),
        }
    }

    /// A cache directory for one Nix. Later versions (2.34) remember the hash of what they once copied out of a tree
    /// and do not read it again, but somebody is to watch that; earlier ones (2.26) read all of a tree to know its
    /// hash, and nobody is to watch that.
    pub(super) async fn cache(&self, nix: &Nix, cancel: &CancellationToken) -> Result<TempDir, NixError> {
        let made = || {
            let directory = tempfile::Builder::new().prefix("nixos-cache-").tempdir()?;
            let own = directory.path().join("nix");
            std::fs::create_dir(&own)?;
            for (from, to, but) in
                [(cache(), directory.path(), "nix"), (nix_cache(), own.as_path(), "fetcher-cache")]
            {
                let entries =
                    from.and_then(|from| std::fs::read_dir(from).ok()).into_iter().flatten().flatten();
                for entry in
                    entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(but.as_bytes()))
                {
                    std::os::unix::fs::symlink(entry.path(), to.join(entry.file_name()))?;
                }
            }
            Ok(directory)
        };
        let directory = made().map_err(|source| NixError::Run { program: "nix".to_owned(), source })?;
        let arguments = ["flake", "metadata", "--json", "--no-write-lock-file", &self.reference];
        let variables = in_cache(directory.path());
        let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
        // What it does not know then is read, and counts.
        let _ = nix.run("nix", &arguments, &variables, cancel, &|_| {}).await;
        Ok(directory)
    }
}

/// Where programs keep what they can do without.
fn cache() -> Option<PathBuf> {
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    named.or_else(|| Some(std::env::home_dir()?.join(".cache")))
}

/// Where Nix keeps what it fetched.
fn nix_cache() -> Option<PathBuf> {
    let named = std::env::var_os("NIX_CACHE_HOME").map(PathBuf::from);
    named.or_else(|| Some(cache()?.join("nix")))
}

/// Variables that make a directory that of Nix' caches.
pub(super) fn in_cache(directory: &Path) -> [(&'static str, String); 2] {
    let at = |path: &Path| path.display().to_string();
    [("XDG_CACHE_HOME", at(directory)), ("NIX_CACHE_HOME", at(&directory.join("nix")))]
}

/// A question that can be put to Nix for any of its nodes.
#[derive(Debug)]
pub(super) struct Question {
    /// `import …/eval.nix { request = …;`, still open.
    beginning: String,
    pub(super) pure: bool,
    /// Whether it may build what it imports.
    pub(super) builds: bool,
    /// Everything but files that decides about the answer; two questions of the same name are the same question.
    pub(super) name: String,
    /// Names the specification, whatever is in it and was asked about it.
    pub(super) spec: String,
    /// Set where an evaluation is to be watched.
    pub(super) tracer: Option<Tracer>,
    /// Set where a flake is watched.
    pub(super) by_files: Option<ByFiles>,
    /// Variables it must not see.
    pub(super) hidden: Vec<OsString>,
    /// What its user should know.
    pub(super) warnings: Vec<Warning>,
    /// Where a flake is that is in a repository here.
    repository: Option<Repository>,
}

impl Question {
    pub(super) async fn new(
        nix: &Nix,
        request: &Request,
        code: &Tree,
        policy: CachePolicy,
        cancel: &CancellationToken,
    ) -> Result<Self, EvaluateError> {
        // `named` is what it is called, whatever is in it by now.
        let (mut warnings, mut repository) = (vec![], None);
        let (spec, named, pure, tree) = match request.spec.resolve()? {
            Spec::Network(files) => {
                let spec = serde_json::json!({ "kind": "network", "files": files });
                (spec.clone(), spec, false, None)
            }
            Spec::Configuration(file) => {
                let spec = serde_json::json!({ "kind": "configuration", "file": file });
                (spec.clone(), spec, false, None)
            }
            Spec::Flake(reference) => {
                // What is built at evaluation may be made from files that nobody sees Nix read.
                let by_files =
                    policy == CachePolicy::ReadSet && !request.import_from_derivation && Tracer::is_there();
                let locked = flake::lock(nix, &reference, by_files, cancel).await?;
                let named =
                    serde_json::json!({ "kind": "flake", "shown": &reference, "output": locked.output });
                let mut spec = named.clone();
                spec["ref"] = locked.reference.into();
                if let Some(tree) = &locked.tree {
                    spec["dir"] = tree.directory.as_str().into();
                }
                (warnings, repository) = (locked.warnings, locked.repository);
                if let Some(directory) = &locked.directory {
                    let settings = config::wanted(nix, directory, cancel).await?;
                    if !settings.is_empty() && !config::are_accepted(nix, cancel).await? {
                        let asked: Vec<String> =
                            settings.iter().map(|(name, _)| format!("`{name}`")).collect();
                        warnings.push(Warning::NotAccepted { reference, names: asked.join(", ") });
                    }
                }
                (spec, named, locked.pure, locked.tree)
            }
        };
        let input = request.to_input(&spec).to_string();
        let tree_expression = if pure {
            let Tree { path, nar_hash } = code;
            format!(
                "((builtins.fetchTree {{ type = \"path\"; path = \"{path}\"; narHash = \"{nar_hash}\"; }}) + \
                 \"/eval.nix\")"
            )
        } else {
            format!("{}/eval.nix", code.path)
        };
        let (hidden, environment) = environment();
        let identity = nix.settings().identity();
        let settings =
            Zeroizing::new(format!("{:?} {} {}", nix.version(), *identity, request.import_from_derivation));
        // A pure evaluation sees no variables.
        let environment = if pure { vec![] } else { environment };
        let ours = code.path.as_str();
        let by_files = tree.and_then(|tree| {
            let input = request.to_input(&named).to_string();
            let search = Search::new(tree.root.clone())?;
            let [flake, lock] = tree.begins_with();
            let attributes = tree.attributes.join(" ");
            let name = sha256_of(&[
                FORMAT.as_bytes(),
                ours.as_bytes(),
                settings.as_bytes(),
                tree.directory.as_bytes(),
                attributes.as_bytes(),
                input.as_bytes(),
                &flake,
                &lock,
            ]);
            let reference = spec["ref"].as_str()?.to_owned();
            Some(ByFiles { name, root: tree.root, search: Arc::new(Mutex::new(search)), reference })
        });
        let tracer = if policy == CachePolicy::ReadSet && (!pure || by_files.is_some()) {
            let root = by_files.as_ref().map(|by_files| by_files.root.clone());
            Tracer::find(format!("{ours}/watched-"), root)
        } else {
            None
        };
        Ok(Self {
            name: sha256_of(&[ours.as_bytes(), settings.as_bytes(), &environment, input.as_bytes()]),
            spec: sha256(named.to_string().as_bytes()),
            beginning: format!(
                "import {tree_expression} {{ request = builtins.fromJSON \"{}\";",
                escaped(&input)
            ),
            pure,
            builds: request.import_from_derivation,
            tracer,
            by_files,
            hidden,
            warnings,
            repository,
        })
    }

    /// The whole expression for some nodes, and for values at paths.
    pub(super) fn expression(&self, nodes: &[MachineName], paths: &[super::notes::Path]) -> String {
        // A machine's name needs no escapes.
        let nodes: String = nodes.iter().map(|name| format!("\"{name}\" ")).collect();
        let marks = match &self.tracer {
            Some(tracer) => format!("\"{}\"", tracer.marks),
            None => "null".to_owned(),
        };
        let names = |path: &Vec<String>| {
            path.iter().map(|name| format!("\"{}\" ", escaped(name))).collect::<String>()
        };
        let paths: String = paths.iter().map(|path| format!("[ {}] ", names(path))).collect();
        format!("{} nodes = [ {nodes}]; marks = {marks}; paths = [ {paths}]; }}", self.beginning)
    }

    /// An error, with what to do about it where Nix does not say that.
    pub(super) fn explained(&self, trace: String) -> String {
        match &self.repository {
            Some(repository) => repository.explained(trace),
            None => trace,
        }
    }

    /// The same of an error of the whole.
    pub(super) fn explain(&self, error: EvaluateError) -> EvaluateError {
        match error {
            EvaluateError::Network { trace } => EvaluateError::Network { trace: self.explained(trace) },
            error => error,
        }
    }

    /// Whether it can be known later that the answer is still right.
    pub(super) fn is_cacheable(&self) -> bool {
        self.pure || self.tracer.is_some()
    }
}

/// Variables to hide, and those that are left as one row of bytes.
fn environment() -> (Vec<OsString>, Vec<u8>) {
    let mut hidden = vec![];
    let mut seen = vec![];
    for (name, value) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if VOLATILE.contains(&text.as_ref())
            || VOLATILE_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
        {
            hidden.push(name);
        } else if !UNCOUNTED.contains(&text.as_ref()) {
            seen.push([name.as_encoded_bytes(), value.as_encoded_bytes()].join(&b'='));
        }
    }
    seen.sort();
    // No variable has this byte in it.
    (hidden, seen.join(&0))
}
