//! All checks, quickest first.

use std::time::Instant;

use crate::build::{HOST_TESTS, UNIT_TESTS, build, cargo, run};
use crate::nixes::nixes;
use crate::{TaskError, circles, docs, setup};

/// Runs them; with a filter only the tests that match it.
pub(crate) fn test(filter: Option<&str>) -> Result<(), TaskError> {
    setup::check_lab()?;
    if filter.is_none() {
        step("formatting", || run(&mut cargo(&["fmt", "--all", "--check"]), "cargo fmt --check"))?;
        step("lints", || {
            let lints =
                ["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
            run(&mut cargo(&lints), "cargo clippy")
        })?;
        step("circles between files", circles::check)?;
        step("documentation", || {
            let doc = ["doc", "--quiet", "--locked", "--workspace", "--no-deps", "--document-private-items"];
            run(cargo(&doc).env("RUSTDOCFLAGS", "-D warnings"), "cargo doc")
        })?;
    }
    let mut versions = vec![];
    step("versions of Nix", || {
        versions = nixes()?;
        Ok(())
    })?;
    step("unit tests", || {
        let unit = [&["test", "--quiet", "--locked"], UNIT_TESTS].concat();
        let versions =
            std::env::join_paths(&versions).map_err(|error| TaskError::Failed(error.to_string()))?;
        run(cargo(&unit).env("NIX_VERSIONS", versions).args(filter), "cargo test")
    })?;
    step("provider", || build(false).map(drop))?;
    if filter.is_none() {
        step("documentation pages", docs::check)?;
    }
    step("lab and end-to-end tests on real hosts", || {
        // `--tests` leaves out the examples, one of which a test starts.
        run(
            &mut cargo(&["build", "--quiet", "--locked", "-p", "lab", "--examples"]),
            "cargo build --examples",
        )?;
        // Each test has hosts of its own, and waits for them, for Terraform and for limits of time more than it
        // computes.
        let at_once = (2 * std::thread::available_parallelism().map_or(1, usize::from)).min(8);
        let e2e = [&["test", "--locked"], HOST_TESTS, &["--tests", "--no-fail-fast", "--"]].concat();
        // What a test says when it fails is what counts; how it got there would bury it.
        let mut tests = cargo(&e2e);
        run(
            tests.args(filter).arg(format!("--test-threads={at_once}")).env("RUST_BACKTRACE", "0"),
            "cargo test -p lab -p e2e",
        )
    })?;
    let left = lab::leftovers();
    if !left.is_empty() {
        return Err(TaskError::Failed(format!("something was left behind:\n{}", left.join("\n"))));
    }
    println!("all tests passed; no process, mount or namespace is left");
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<(), TaskError>) -> Result<(), TaskError> {
    println!("── {name}");
    let start = Instant::now();
    work()?;
    println!("   {name}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
