//! The README's table of calls says the truth: each call of the protocol is in it, and each test that it names is
//! there.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One line of the table.
struct Row {
    calls: String,
    tests: String,
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of the table below the heading "Calls".
fn rows() -> Vec<Row> {
    let readme = read(here("README.md"));
    let (_, section) = readme.split_once("\n## Calls\n").expect("the README has a section on calls");
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let rows = section.lines().filter_map(|line| {
        let columns: Vec<&str> =
            line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let [calls, _, tests] = columns.as_slice() else { panic!("a row has three columns: {line}") };
        Some(Row { calls: (*calls).to_owned(), tests: (*tests).to_owned() })
    });
    // Below the head and the line that rules it off.
    rows.skip(2).collect()
}

/// The names of all tests in the files of a test target.
fn tests(target: &str) -> Vec<String> {
    let mut names = vec![];
    for entry in fs::read_dir(here("tests").join(target)).unwrap() {
        let text = read(entry.unwrap().path());
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            match function.and_then(|rest| rest.split_once('(')) {
                Some((name, _)) if is_test => names.push(name.to_owned()),
                _ => {}
            }
            is_test = line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        }
    }
    names
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn each_call_of_the_protocol_is_in_the_table() {
    let proto = read(here("proto/tfplugin6.proto"));
    let (_, service) = proto.split_once("service Provider {").expect("the protocol has a service");
    let (service, _) = service.split_once('}').expect("the service ends");
    let calls: Vec<&str> = service
        .lines()
        .filter_map(|line| line.trim().strip_prefix("rpc ")?.split_once('(').map(|(name, _)| name.trim()))
        .collect();
    assert!(calls.contains(&"ApplyResourceChange"), "the service was read: {calls:?}");
    let rows = rows();
    let is_named = |call: &str| {
        let words = |row: &Row| row.calls.split(|c: char| !c.is_alphanumeric()).any(|word| word == call);
        rows.iter().any(words)
    };
    let missing: Vec<_> = calls.into_iter().filter(|call| !is_named(call)).collect();
    assert_eq!(missing, [""; 0], "the README does not name them");
}

#[test]
fn each_test_that_the_table_names_is_there_once() {
    let of = BTreeMap::from([("H", tests("harness")), ("T", tests("terraform"))]);
    assert!(of.values().all(|names| names.len() > 10), "the tests were read: {of:?}");
    let mut named = 0;
    for Row { calls, tests } in rows() {
        // "H `one`, `two`; T `three`": the letters before a name say where it is.
        for part in tests.split(';').map(str::trim) {
            let before = part.split('`').next().unwrap_or_default();
            let targets =
                || before.split(|c: char| !c.is_alphanumeric()).filter(|word| of.contains_key(word));
            for name in quoted(part) {
                assert!(targets().count() > 0, "{calls}: where is `{name}`?");
                for target in targets() {
                    let fits = |test: &&String| match name.strip_suffix('…') {
                        Some(start) => test.starts_with(start),
                        None => *test == name,
                    };
                    let found: Vec<_> = of[target].iter().filter(fits).collect();
                    assert_eq!(found.len(), 1, "{calls}: `{name}` of {target} is one test, not {found:?}");
                    named += 1;
                }
            }
        }
    }
    assert!(named > 30, "the names were read: {named}");
}

#[test]
fn each_file_that_the_readme_links_to_is_there() {
    let readme = read(here("README.md"));
    let targets = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let missing: Vec<_> =
        targets.filter(|target| !target.contains("://") && !here(target).exists()).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn the_whole_provider_in_the_readme_is_the_example() {
    let example = format!("```rust\n{}```\n", read(here("examples/files.rs")));
    assert!(read(here("README.md")).contains(&example), "copy examples/files.rs to the README");
    assert!(example.lines().count() < 100, "a whole provider is seen at a glance");
}
