//! The tracer from outside: what it takes down of what a program looks at.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Map, Value, json};

/// What the names of marks begin with.
const MARKS: &str = "/proc/mark-";

/// Of the content of the tree that counts.
const HASH: &str = "651dc009a6d3ea07ba8b26f5bd22fd8279cb5ae00a19bf0b71bf318818bdd83d";
/// The same tree in the store.
const COPY: &str = "xfjmdkiq3q6xj17q3glpd2j6pmg6drq3-source";

/// Runs a shell script under the tracer in `directory`.
fn watch(directory: &Path, script: &str) -> (Output, Value) {
    watch_tree("", directory, script)
}

/// Where only one tree counts, unless it is none.
fn watch_tree(root: &str, directory: &Path, script: &str) -> (Output, Value) {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().unwrap().parent().unwrap().join("examples/evaluate");
    let report = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new(program)
        .arg("--watch-evaluation")
        .arg(report.path())
        .args(["0", MARKS, root, HASH, "bash", "-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    let text = std::fs::read(report.path()).unwrap();
    (output, serde_json::from_slice(&text).unwrap())
}

/// What was seen, if that is all that mattered.
fn seen(report: &Value) -> Option<Map<String, Value>> {
    let pieces = report["pieces"].as_array().unwrap().iter();
    let seen = pieces.flat_map(|piece| piece["seen"].as_object().unwrap().clone()).collect();
    report["complete"].as_bool().unwrap().then_some(seen)
}

fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (name, text) in [("file", "one"), ("target", "two"), ("child", "three"), ("dir/inner", "four")] {
        std::fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        std::fs::write(at(name), text).unwrap();
    }
    std::os::unix::fs::symlink("target", at("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
    directory
}

#[test]
fn everything_that_is_looked_at_is_taken_down() {
    let directory = directory();
    let root = directory.path();
    let script = "cat link; [ -e missing ]; [ -e dangling ]; [ -d dir ]; cd dir; cat inner; cat ../file; ls . ; (bash -c 'cat ../child'); \
                  echo x > ../written; exit 7";
    let (output, report) = watch(root, script);
    assert_eq!(output.status.code(), Some(7), "the program's own exit code");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "twofouroneinner\nthree");
    let seen = seen(&report).expect("a report");
    let at = |name: &str| &seen[root.join(name).to_str().unwrap()];
    assert_eq!(at("link"), &json!({ "link": "target" }));
    assert_eq!(at("missing"), "absent");
    assert_eq!(at("dangling"), &json!({ "link": "nowhere" }));
    assert_eq!(at("nowhere"), "absent");
    for read in ["target", "dir/inner", "dir/../file", "dir/../child"] {
        assert!(at(read)["content"]["hash"].is_string(), "{read}: {}", at(read));
    }
    assert!(seen.values().any(|value| value["listing"].is_object()), "the directory was listed");
    assert!(!seen.contains_key(root.join("dir/../written").to_str().unwrap()), "what is written is not read");
    assert!(seen.keys().any(|path| path.ends_with("/bash")), "the programs themselves count");
    assert!(!seen.keys().any(|path| path.starts_with("/proc/")), "what is not counted");
}

#[test]
fn what_came_from_the_network_is_not_vouched_for() {
    let directory = directory();
    let (_, report) = watch(directory.path(), "cat file; exec 3<>/dev/tcp/127.0.0.1/1");
    assert_eq!(seen(&report), None);
    let (_, report) = watch(directory.path(), "mkdir -p cache; cat cache/fetcher-cache-v3.sqlite");
    assert_eq!(seen(&report), None);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_vouched_for() {
    let directory = directory();
    let (_, report) = watch(directory.path(), "cat file; echo more >> file");
    assert_eq!(seen(&report), None);
    // One that only comes to be is another matter: it was not there, and that is what is known.
    let (_, report) = watch(directory.path(), "[ -e new ]; echo new > new; cat new");
    assert_eq!(seen(&report).unwrap()[directory.path().join("new").to_str().unwrap()], "absent");
}

#[test]
fn pieces_end_where_something_is_done() {
    let directory = directory();
    // Each piece with those of our files that are new in it.
    let pieces = |script: &str| {
        let (_, report) = watch(directory.path(), script);
        let ours = |piece: &Value| {
            let seen = piece["seen"].as_object().unwrap().keys();
            seen.filter_map(|path| Path::new(path).strip_prefix(directory.path()).ok()?.to_str())
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let pieces = report["pieces"].as_array().unwrap().iter();
        let pieces = pieces.map(|piece| (piece["done"].clone(), ours(piece))).collect::<Vec<_>>();
        let costs = report["done"].as_array().unwrap();
        let [first, second] = costs.as_slice() else { panic!("two are done: {costs:?}") };
        let millis = |cost: &Value| cost["millis"].as_u64().unwrap();
        assert!(millis(first) + 100 <= millis(second), "{costs:?}");
        assert!(costs.iter().all(|cost| cost["mib"].as_u64().unwrap() > 0), "{costs:?}");
        (pieces, report["complete"].clone())
    };
    let done = |name: &str| format!("[ -e {MARKS}done-{name} ];");
    let (a, b) = (done("a"), done("b"));
    let expected = |pieces: &[(Option<&str>, &[&str])]| -> Vec<(Value, Vec<String>)> {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        pieces.iter().map(|(done, files)| (json!(done), names(files))).collect()
    };

    let found = pieces(&format!(
        "read x < file; [ -e child ]; {a} read x < file; read x < child; sleep 0.1; {b} [ -e dir ]"
    ));
    let all: &[(Option<&str>, &[&str])] =
        &[(Some("a"), &["child", "file"]), (Some("b"), &["child"]), (None, &["dir"])];
    let why = "what was only looked at is in a later piece again when it is read";
    assert_eq!(found, (expected(all), json!(true)), "{why}");

    for (why, between) in [
        ("the network comes after a", "exec 3<>/dev/tcp/127.0.0.1/1; read x < child"),
        ("the second file changed", "read x < child; echo more >> child"),
    ] {
        let found = pieces(&format!("read x < file; {a} {between}; sleep 0.1; {b} [ -e dir ]"));
        assert_eq!(found, (expected(&[(Some("a"), &["file"])]), json!(false)), "{why}");
    }
}

#[test]
fn where_one_tree_counts_nothing_else_does() {
    let directory = directory();
    let root = directory.path().join("dir");
    std::os::unix::fs::symlink("inner", root.join("link")).unwrap();
    std::fs::write(root.join("flake.nix"), "{ }").unwrap();
    let watch = |script: &str| {
        let script = format!("[ -e {MARKS}begin ]; cat dir/flake.nix; {script}");
        let (_, report) = watch_tree(root.to_str().unwrap(), directory.path(), &script);
        (seen(&report).map(|seen| seen.keys().cloned().collect::<Vec<_>>()), report)
    };
    let everything =
        "cat file dir/link; ls dir >/dev/null; [ -e dir/none ]; [ -e child ]; exec 3<>/dev/tcp/127.0.0.1/1";
    let (names, report) = watch(everything);
    assert_eq!(
        names.unwrap(),
        ["", "flake.nix", "inner", "link"],
        "what is not there was listed already: {report:#}"
    );
    let (names, report) = watch("[ -e dir/none ]; cat dir/inner");
    assert_eq!(names.unwrap(), ["flake.nix", "inner", "none"], "{report:#}");
    assert_eq!(
        report["pieces"][0]["seen"]["inner"]["content"]["stamp"],
        Value::Null,
        "it is known by its content"
    );

    let (names, report) =
        watch(&format!("cat dir/inner; [ -e {MARKS}done-a ]; [ -e {MARKS}self ]; [ -e {MARKS}done-b ]"));
    assert_eq!(names, None, "somebody asked which tree it is");
    let pieces: Vec<&Value> =
        report["pieces"].as_array().unwrap().iter().map(|piece| &piece["done"]).collect();
    assert_eq!(pieces, [&json!("a")], "only a was done by then");
    // The tree may be beside itself, under another name.
    std::fs::create_dir(directory.path().join(COPY)).unwrap();
    std::fs::write(directory.path().join(COPY).join("x"), "").unwrap();
    for (script, known) in [
        (format!("cat {COPY}/x"), false),
        (format!("ls {COPY}"), false),
        // Something of it is copied.
        ("mkdir x-pages; echo x > x-pages/y; ls x-pages; cat x-pages/y".to_owned(), true),
    ] {
        let (names, report) = watch(&script);
        assert_eq!(names.is_some(), known, "{script}: {report:#}");
    }
    // Who does not see what everybody looks at sees nothing.
    for script in ["cat dir/flake.nix".to_owned(), format!("[ -e {MARKS}begin ]; cat dir/inner")] {
        let (_, report) = watch_tree(root.to_str().unwrap(), directory.path(), &script);
        assert_eq!((&report["pieces"], &report["complete"]), (&json!([]), &json!(false)), "{script}");
    }
}

#[test]
fn what_is_in_a_listed_directory_is_not_taken_down_again() {
    let directory = directory();
    let root = directory.path().display();
    let (_, report) = watch(
        directory.path(),
        &format!("ls {root}; [ -e {root}/child ]; [ -e {root}/missing ]; cat {root}/file {root}/link"),
    );
    let seen = seen(&report).unwrap();
    // As paths: the directory may be called `.` there.
    let at = |name: &str| {
        let path = directory.path().join(name);
        let found = seen.iter().find(|(known, _)| Path::new(known) == path);
        found.map(|(_, seen)| seen.as_object().unwrap().keys().next().unwrap().as_str())
    };
    assert_eq!(
        ["", "file", "link", "target"].map(at),
        [Some("listing"), Some("content"), Some("link"), Some("content")]
    );
    assert_eq!(["child", "missing"].map(at), [None, None], "the listing says so");

    // Somebody is at work there meanwhile.
    let (_, report) =
        watch(directory.path(), "ls >/dev/null; mv child away; [ -e child ]; mv away child; [ -d link/ ]");
    let seen = self::seen(&report).unwrap();
    let at = |name: &str| {
        let path = directory.path().join(name);
        seen.iter().find(|(known, _)| Path::new(known) == path).map(|(_, seen)| seen)
    };
    assert_eq!(at("child"), Some(&json!("absent")), "the listing says something else");
    assert_eq!(at("link"), Some(&json!({ "link": "target" })));
    assert_eq!(at("target"), None, "a listed file, and no directory");
}

#[test]
fn every_link_of_a_chain_is_taken_down() {
    let directory = directory();
    // One leads out again of what is not counted.
    let uncounted = tempfile::tempdir_in("/dev/shm").unwrap();
    let hop = uncounted.path().join("hop");
    std::os::unix::fs::symlink(directory.path().join("file"), &hop).unwrap();
    std::os::unix::fs::symlink(&hop, directory.path().join("away")).unwrap();
    std::os::unix::fs::symlink("/dev/../proc/self/status", directory.path().join("procfs")).unwrap();
    for (link, target) in
        [("first", "second"), ("second", "dir/../link"), ("round", "about"), ("about", "round")]
    {
        std::os::unix::fs::symlink(target, directory.path().join(link)).unwrap();
    }
    let (output, report) =
        watch(directory.path(), "cat first; cat round; cat away; [ -e procfs ]; [ -d link/ ]; cat link");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "twoonetwo");
    let seen = seen(&report).unwrap();
    let at = |name: &str| &seen[directory.path().join(name).to_str().unwrap()];
    for (link, target) in
        [("first", "second"), ("second", "dir/../link"), ("dir/../link", "target"), ("round", "about")]
    {
        assert_eq!(at(link), &json!({ "link": target }));
    }
    assert!(at("dir/../target")["content"].is_object());
    assert!(at("file")["content"].is_object(), "it is read through a link that is not counted");
    assert!(at("target")["content"].is_object(), "asked for as a directory first, then read");
    assert!(
        !seen.keys().any(|path| path.contains("status")),
        "what is in /proc is not counted, whatever leads there"
    );
}

#[test]
fn a_name_that_is_no_text_is_not_vouched_for() {
    let directory = directory();
    // Some file systems do not have such names.
    if std::fs::write(directory.path().join(OsStr::from_bytes(b"caf\xe9")), "").is_err() {
        return;
    }
    let (output, report) = watch(directory.path(), "echo x > $'caf\\xe9'; cat $'caf\\xe9'");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"x\n"[..]));
    assert_eq!(seen(&report), None);
}

#[test]
fn signals_and_threads_go_their_way() {
    let directory = directory();
    let (output, _) = watch(directory.path(), "trap 'echo caught' USR1; kill -USR1 $$; kill -TERM $$");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "caught\n");
    assert_eq!(output.status.code(), Some(128 + 15));
    let (output, report) = watch(directory.path(), "for n in $(seq 50); do cat file & done; wait");
    assert_eq!(output.stdout.len(), 50 * 3);
    assert!(seen(&report).is_some());
}
