//! What `cargo xtask fuzz` has learnt and found, once more: the corpus and every case that was a finding.

use std::path::{Path, PathBuf};

use tfplugin::fuzzing::TARGETS;

/// The cases of a target below `fuzz/`, each by its file.
fn cases(kind: &str, target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files(&Path::new("fuzz").join(kind).join(target));
    let read = |file: PathBuf| std::fs::read(&file).map(|bytes| (file, bytes));
    files.into_iter().filter_map(|file| read(file).ok()).collect()
}

/// The files of a directory of this crate; none where it is not there.
fn files(directory: &Path) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    std::fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[test]
fn the_corpus_and_all_former_findings_pass() {
    for (target, check) in TARGETS {
        let corpus = cases("corpus", target);
        assert!(!corpus.is_empty(), "the corpus of {target} is missing");
        for (file, bytes) in corpus.into_iter().chain(cases("regressions", target)) {
            println!("{}", file.display());
            check(&bytes);
        }
    }
}

#[test]
fn every_target_is_built_by_the_fuzzer() {
    let targets = files(Path::new("fuzz/fuzz_targets"));
    let mut built: Vec<_> = targets.iter().filter_map(|file| file.file_stem()?.to_str()).collect();
    built.sort_unstable();
    assert_eq!(built, TARGETS.map(|(name, _)| name));
}
