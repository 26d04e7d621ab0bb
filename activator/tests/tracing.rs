//! The tracer from outside: what it takes down of what a program looks at.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Runs a shell script under the tracer in `directory`.
fn watch(directory: &Path, script: &str) -> (Output, Value) {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().unwrap().parent().unwrap().join("examples/evaluate");
    let report = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new(program)
        .arg("--watch-evaluation")
        .arg(report.path())
        .args(["0", "bash", "-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    let text = std::fs::read(report.path()).unwrap();
    (output, serde_json::from_slice(&text).unwrap_or_default())
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
    let seen = report["seen"].as_object().expect("a report").clone();
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
    assert_eq!(report, Value::Null);
    let (_, report) = watch(directory.path(), "mkdir -p cache; cat cache/fetcher-cache-v3.sqlite");
    assert_eq!(report, Value::Null);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_not_vouched_for() {
    let directory = directory();
    let (_, report) = watch(directory.path(), "cat file; echo more >> file");
    assert_eq!(report, Value::Null);
    // One that only comes to be is another matter: it was not there, and that is what is known.
    let (_, report) = watch(directory.path(), "[ -e new ]; echo new > new; cat new");
    assert_eq!(report["seen"][directory.path().join("new").to_str().unwrap()], "absent");
}

#[test]
fn signals_and_threads_go_their_way() {
    let directory = directory();
    let (output, _) = watch(directory.path(), "trap 'echo caught' USR1; kill -USR1 $$; kill -TERM $$");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "caught\n");
    assert_eq!(output.status.code(), Some(128 + 15));
    let (output, report) = watch(directory.path(), "for n in $(seq 50); do cat file & done; wait");
    assert_eq!(output.stdout.len(), 50 * 3);
    assert!(report["seen"].is_object());
}
