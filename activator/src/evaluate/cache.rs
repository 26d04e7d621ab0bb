//! What was evaluated before.
//!
//! A row is found by everything that decides about an evaluation except files: our Nix code, Nix' version and
//! settings, the environment, and the request with all arguments and facts. A *pure* evaluation reads nothing but its
//! locked flake, which the request names, so its row is right for ever. A row of any other evaluation comes with all
//! it saw of the file system, and is right as long as that looks the same. Where a pure one was watched there is a
//! second row, found without the flake's tree, with what was seen in that. A row counts only while its derivation is
//! in the store.
//!
//! Nothing here must be believed to be there: a row that is missing, old or damaged costs an evaluation.

use std::collections::HashMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::costs::{Asked, Costs};
use super::disk::Cache;
use super::question::Question;
use super::reads::{ReadSet, Until};
use super::run::{Answer, Looked, View};
use super::said::Network;
use crate::hash::{sha256, sha256_of};
use crate::{MachineName, StorePath};

/// Stands for no node.
const NETWORK: &str = "/network";

/// Read sets that were checked for one question: many rows share one.
type Checked = HashMap<String, bool>;

/// Read sets that are remembered already, by where they are in memory: many rows share one.
type Written = HashMap<*const ReadSet, Vec<String>>;

/// What was found.
#[derive(Debug)]
pub(super) struct Known<T> {
    pub(super) answer: Answer<T>,
    pub(super) missing: Vec<MachineName>,
}

/// One row.
#[derive(Debug, Serialize, Deserialize)]
struct Row<T> {
    /// The read sets that must hold; none for a pure evaluation.
    reads: Vec<String>,
    names: Option<Vec<MachineName>>,
    value: T,
}

impl<T> Known<T> {
    pub(super) fn nothing(wanted: &[MachineName]) -> Self {
        Self { answer: Answer { names: None, nodes: vec![], process: None }, missing: wanted.to_vec() }
    }
}

impl Cache {
    pub(super) fn look_up<T: View>(&self, question: &Question, wanted: &[MachineName]) -> Known<T> {
        let mut known = Known::nothing(&[]);
        let mut checked = Checked::new();
        let is_there = |drv: &StorePath| Path::new(drv.as_str()).exists();
        let is_of_use = |value: &T| value.derivation().is_none_or(is_there);
        for name in wanted {
            match self.find(question, &subject(T::ASKED, name), is_of_use, &mut checked) {
                Some(Row { names, value: node, .. }) => {
                    known.answer.names = names;
                    known.answer.nodes.push(Looked { name: name.clone(), node, reads: None });
                }
                None => known.missing.push(name.clone()),
            }
        }
        known
    }

    pub(super) fn remember<T: View>(&self, question: &Question, answer: &Answer<T>) {
        let mut written = Written::new();
        for looked in answer.nodes.iter().filter(|looked| looked.node.is_remembered()) {
            let row = Row { reads: vec![], names: answer.names.clone(), value: &looked.node };
            let what = subject(T::ASKED, &looked.name);
            self.remember_row(question, T::ASKED, &what, row, looked.reads.as_ref(), &mut written);
        }
        self.forget_old();
    }

    /// What processes of this specification were seen to cost.
    pub(super) fn costs(&self, question: &Question, asked: Asked) -> Option<Costs> {
        self.read(&file_of("costs", question, asked))
    }

    pub(super) fn remember_costs(&self, question: &Question, asked: Asked, costs: &Costs) {
        self.write(&file_of("costs", question, asked), costs);
    }

    pub(super) fn network(&self, question: &Question) -> Option<Network> {
        self.find(question, NETWORK, |_| true, &mut Checked::new()).map(|row| row.value)
    }

    /// The row that holds now.
    fn find<T: DeserializeOwned>(
        &self,
        question: &Question,
        what: &str,
        is_of_use: impl Fn(&T) -> bool,
        checked: &mut Checked,
    ) -> Option<Row<T>> {
        let by_files = question.by_files.as_ref();
        let root = by_files.map_or(Path::new("/"), |by_files| by_files.root.path());
        let names = [Some(&question.name), by_files.map(|by_files| &by_files.name)];
        names.into_iter().flatten().find_map(|name| {
            let row: Row<T> = self.read(&row_file(name, what))?;
            (self.hold(&row.reads, root, checked) && is_of_use(&row.value)).then_some(row)
        })
    }

    pub(super) fn remember_network(&self, question: &Question, network: &Network, reads: Option<&Until>) {
        let row = Row { reads: vec![], names: None, value: network };
        self.remember_row(question, Asked::Descriptions, NETWORK, row, reads, &mut Written::new());
    }

    fn remember_row<T: Serialize>(
        &self,
        question: &Question,
        asked: Asked,
        what: &str,
        row: Row<T>,
        reads: Option<&Until>,
        written: &mut Written,
    ) {
        // A description reads less than a system.
        let base = file_of("base", question, asked);
        let mut names_of = |piece: &ReadSet| {
            written.entry(piece).or_insert_with(|| self.remember_reads(&base, piece)).clone()
        };
        let reads = reads.map(|reads| reads.pieces().flat_map(&mut names_of).collect());
        let name = if question.pure {
            self.write(&row_file(&question.name, what), &row);
            question
                .by_files
                .as_ref()
                .filter(|by_files| by_files.is_of_any_tree(asked, &row.value))
                .map(|by_files| &by_files.name)
        } else {
            Some(&question.name)
        };
        // Without `reads` something was used that the tracer cannot watch: there is no row.
        if let (Some(name), Some(reads)) = (name, reads) {
            self.write(&row_file(name, what), &Row { reads, ..row });
        }
    }

    /// The names of files that together are a read set. Nearly all of what a node reads is nixpkgs: what many read
    /// sets have in common is one file, which `pointer` names, so that it is looked at once.
    fn remember_reads(&self, pointer: &str, reads: &ReadSet) -> Vec<String> {
        let base: ReadSet =
            self.read::<String>(pointer).and_then(|name| self.read(&name)).unwrap_or_default();
        let mut common = base.common(reads);
        let mut own = ReadSet::default();
        // A base that is much larger than what is needed of it gives way, but not to the few files of one node.
        let is_base = if 2 * common.len() > reads.len() {
            own = reads.without(&common);
            4 * common.len() > base.len()
        } else {
            common = reads.clone();
            2 * common.len() > base.len()
        };
        if is_base && common != base {
            self.write(pointer, &reads_file(&common));
        }
        let parts = [common, own].into_iter().filter(|part| part.len() > 0);
        parts
            .map(|part| {
                let name = reads_file(&part);
                if !self.has(&name) {
                    self.write(&name, &part);
                }
                name
            })
            .collect()
    }

    /// Whether everything that was read still looks the same.
    fn hold(&self, names: &[String], root: &Path, checked: &mut Checked) -> bool {
        names.iter().all(|name| self.holds(name, root, checked))
    }

    fn holds(&self, name: &String, root: &Path, checked: &mut Checked) -> bool {
        if let Some(result) = checked.get(name) {
            return *result;
        }
        let result = match self.read::<ReadSet>(name) {
            Some(reads) => match reads.check(root) {
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
}

/// Rows are found by a hash; a machine's name may be any length.
fn row_file(question: &str, what: &str) -> String {
    sha256_of(&[question.as_bytes(), what.as_bytes()])
}

/// What a row is about. A machine's name has no slash.
fn subject(asked: Asked, name: &MachineName) -> String {
    match asked {
        Asked::Systems => name.to_string(),
        Asked::Descriptions => format!("/description/{name}"),
    }
}

/// Something that is known of a specification, whatever is in it.
fn file_of(what: &str, question: &Question, asked: Asked) -> String {
    match asked {
        Asked::Systems => format!("{what}-{}", question.spec),
        Asked::Descriptions => format!("{what}-description-{}", question.spec),
    }
}

/// Read sets are found by what is in them.
fn reads_file(reads: &ReadSet) -> String {
    // Texts and numbers: this cannot fail.
    format!("reads-{}", sha256(&serde_json::to_vec(reads).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::evaluate::reads::Seen;

    /// Paths of which nothing is there, as these sets say.
    fn nothing_at(paths: impl IntoIterator<Item = String>) -> ReadSet {
        ReadSet::new(paths.into_iter().map(|path| (PathBuf::from(path), Seen::Absent)).collect())
    }

    #[test]
    fn what_read_sets_have_in_common_is_one_file() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::at(root.path().join("evaluations"));
        let at = |name: &str| root.path().join(name).display().to_string();
        let nixpkgs = || (0..100).map(|n| at(&format!("nixpkgs-{n}")));
        let node = |name: &str| nothing_at(nixpkgs().chain([at(name)]));
        let remember = |reads: &ReadSet| cache.remember_reads("base", reads);
        let holds = |names: &[String]| cache.hold(names, Path::new("/"), &mut Checked::new());

        let first = remember(&node("a"));
        assert_eq!(first.len(), 1, "there was nothing to share with");
        let [b, c] = ["b", "c"].map(|name| remember(&node(name)));
        assert_eq!((b.len(), c.len()), (2, 2));
        assert_eq!(b[0], c[0]);
        let small = remember(&nothing_at([at("d")]));
        assert_eq!(remember(&node("b")), b, "few files do not become what is shared");
        for names in [&first, &b, &c, &small] {
            assert!(holds(names));
        }

        std::fs::write(at("b"), "").unwrap();
        assert_eq!([&first, &b, &c].map(|names| holds(names)), [true, false, true]);
        std::fs::write(at("nixpkgs-7"), "").unwrap();
        assert_eq!([&first, &c, &small].map(|names| holds(names)), [false, false, true]);

        // Where little of what is read is in it any more, another takes its place, though all of it still be shared.
        let own = |names: &[String]| cache.read::<ReadSet>(&names[1]).unwrap().len();
        let paths = |name: &str| -> Vec<String> {
            let kept = (40..100).map(|n| at(&format!("nixpkgs-{n}")));
            kept.chain((0..90).map(|n| at(&format!("new-{n}")))).chain([at(name)]).collect()
        };
        let grown = |name: &str| nothing_at(paths(name));
        remember(&grown("g"));
        let [one, another] = ["h", "i"].map(|name| remember(&grown(name)));
        assert_eq!((&one[0], own(&one), own(&another)), (&another[0], 1, 1));

        // One that reads much more than the others keeps them from nothing.
        remember(&nothing_at(paths("k").into_iter().chain((0..400).map(|n| at(&format!("more-{n}"))))));
        let [one, another] = ["h", "j"].map(|name| remember(&grown(name)));
        assert_eq!((&one[0], own(&another)), (&another[0], 1));

        // Another nixpkgs takes its place.
        let other = |name: &str| nothing_at((0..100).map(|n| at(&format!("other-{n}"))).chain([at(name)]));
        remember(&other("x"));
        let [one, another] = ["y", "z"].map(|name| remember(&other(name)));
        assert_eq!((one.len(), another.len(), &one[0]), (2, 2, &another[0]));
    }
}
