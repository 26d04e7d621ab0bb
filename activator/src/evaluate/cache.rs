//! What was evaluated before, on disk: `$XDG_CACHE_HOME/nixos-activator/evaluations/`.
//!
//! A row is found by everything that decides about an evaluation except files: our Nix code, Nix' version and settings, the
//! environment, and the request with all arguments and facts. A *pure* evaluation reads nothing but its locked flake, which
//! the request names, so its row is right for ever. A row of any other evaluation comes with all it saw of the file system,
//! and is right as long as that looks the same. A row counts only while its derivation is in the store.
//!
//! Nothing here must be believed to be there: a row that is missing, old or damaged costs an evaluation.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::question::Question;
use super::reads::ReadSet;
use super::run::Answer;
use super::{Description, Evaluation, Node};
use crate::MachineName;
use crate::hash::{sha256, sha256_of};

/// What was not used for so long goes away.
const KEPT: Duration = Duration::from_hours(24 * 30);

/// The directory.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
}

/// Read sets that were checked for one question: many rows share one.
type Checked = HashMap<String, bool>;

/// A node that was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) name: MachineName,
    /// With how many others it was evaluated last time, itself included.
    pub(super) together: Option<usize>,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) evaluation: Evaluation,
    pub(super) missing: Vec<Missing>,
}

/// One row.
#[derive(Debug, Serialize, Deserialize)]
struct Row<T> {
    /// The read sets that must hold; none for a pure evaluation.
    reads: Vec<String>,
    together: usize,
    names: Option<Vec<MachineName>>,
    value: T,
}

impl Known {
    pub(super) fn nothing(wanted: &[MachineName]) -> Self {
        let missing = wanted.iter().map(|name| Missing { name: name.clone(), together: None }).collect();
        Self { evaluation: Evaluation { names: None, nodes: BTreeMap::new() }, missing }
    }
}

impl Cache {
    /// The user's; `None` where there is no home.
    pub(super) fn of_user() -> Option<Self> {
        let absolute = |path: &PathBuf| path.is_absolute();
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(absolute);
        let base = base.or_else(|| Some(std::env::home_dir().filter(absolute)?.join(".cache")))?;
        Some(Self::at(base.join("nixos-activator/evaluations")))
    }

    fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn look_up(&self, question: &Question, wanted: &[MachineName]) -> Known {
        let mut known = Known::nothing(&[]);
        let mut checked = Checked::new();
        for name in wanted {
            let row: Option<Row<Node>> = self.read(&row_file(question, name.as_str()));
            let together = row.as_ref().map(|row| row.together);
            match row.filter(|row| self.hold(&row.reads, &mut checked) && is_built_on(&row.value)) {
                Some(row) => {
                    known.evaluation.names = row.names;
                    known.evaluation.nodes.insert(name.clone(), row.value);
                }
                None => known.missing.push(Missing { name: name.clone(), together }),
            }
        }
        known
    }

    pub(super) fn remember(&self, question: &Question, answer: &Answer) {
        if let Some(mib) = answer.mib_per_node {
            self.write(&format!("memory-{}", question.spec), &mib.max(self.memory(question).unwrap_or(0)));
        }
        for looked in &answer.nodes {
            // An error is worth a second look: its cause may not be in any file.
            if !matches!(looked.node, Node::Exact(_) | Node::Waits { .. }) {
                continue;
            }
            let (names, together) = (answer.names.clone(), looked.together);
            let row = Row { reads: vec![], together, names, value: &looked.node };
            self.remember_row(question, looked.name.as_str(), row, looked.reads.as_deref());
        }
        self.forget_old();
    }

    /// What a node of this specification was seen to take, in MiB.
    pub(super) fn memory(&self, question: &Question) -> Option<u64> {
        self.read(&format!("memory-{}", question.spec))
    }

    pub(super) fn description(&self, question: &Question) -> Option<Description> {
        let row: Row<Description> = self.read(&row_file(question, "/description"))?;
        self.hold(&row.reads, &mut Checked::new()).then_some(row.value)
    }

    pub(super) fn remember_description(
        &self,
        question: &Question,
        description: &Description,
        reads: Option<&[ReadSet]>,
    ) {
        let row = Row { reads: vec![], together: 1, names: None, value: description };
        self.remember_row(question, "/description", row, reads);
    }

    fn remember_row<T: Serialize>(
        &self,
        question: &Question,
        what: &str,
        row: Row<T>,
        reads: Option<&[ReadSet]>,
    ) {
        let reads = match reads {
            Some(reads) => {
                let Ok(texts) = reads.iter().map(serde_json::to_vec).collect::<Result<Vec<_>, _>>() else {
                    return;
                };
                let write = |text: &Vec<u8>| {
                    let name = format!("reads-{}", sha256(text));
                    if !self.root.join(&name).exists() {
                        self.write_text(&name, text);
                    }
                    name
                };
                texts.iter().map(write).collect()
            }
            None if question.pure => vec![],
            // It could not be told what was read.
            None => return,
        };
        self.write(&row_file(question, what), &Row { reads, ..row });
    }

    /// Whether everything that was read still looks the same.
    fn hold(&self, names: &[String], checked: &mut Checked) -> bool {
        names.iter().all(|name| self.holds(name, checked))
    }

    fn holds(&self, name: &String, checked: &mut Checked) -> bool {
        if let Some(result) = checked.get(name) {
            return *result;
        }
        let result = match self.read::<ReadSet>(name) {
            Some(reads) => match reads.check() {
                Ok(()) => true,
                Err(path) => {
                    tracing::debug!(path = %path.display(), paths = reads.len(), "changed since the last evaluation");
                    false
                }
            },
            None => false,
        };
        checked.insert(name.clone(), result);
        result
    }

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
    fn forget_old(&self) {
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

/// Rows are found by a hash; a machine's name may be any length.
fn row_file(question: &Question, what: &str) -> String {
    sha256_of(&[question.name.as_bytes(), what.as_bytes()])
}

/// Whether the derivation is still in the store, so that it can be built.
fn is_built_on(node: &Node) -> bool {
    match node {
        Node::Exact(system) => Path::new(system.drv.as_str()).exists(),
        _ => true,
    }
}
