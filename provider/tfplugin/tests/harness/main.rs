//! The provider of examples/kitchen, driven as Terraform would, within this process and as a program.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../../examples/kitchen/provider/mod.rs"]
mod provider;

mod deferral;
mod ends;
mod lives;
mod others;
mod rules;
mod sizes;
mod states;

use std::path::PathBuf;

use provider::Kitchen;
use serde_json::json;
use tfplugin::testing::{Harness, Stored, object};
use tfplugin::{Diagnostics, Provider as _, Value};

async fn kitchen() -> (Harness, Kitchen) {
    let kitchen = Kitchen::default();
    let harness = Harness::of(kitchen.clone()).await.unwrap();
    harness.configure(&object([])).await.unwrap();
    (harness, kitchen)
}

/// An example that cargo has built beside this test.
fn example(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let directory = here.ancestors().find(|path| path.join("examples").is_dir()).unwrap();
    let program = directory.join("examples").join(name);
    assert!(program.is_file(), "{} is built by `cargo test -p tfplugin` as a whole", program.display());
    program
}

fn texts(items: &[&str]) -> Value {
    Value::List(items.iter().map(|text| (*text).into()).collect())
}

fn number(number: i64) -> Value {
    number.into()
}

/// A pot with something in every attribute.
fn pot(name: &str, size: i64, tags: &[&str]) -> Value {
    let part = |kind: &str| object([("kind", kind.into()), ("weight", number(3))]);
    let any = json!({ "π": 3, "list": [1, "x", null], "deep": { "a": true } });
    object([
        ("name", name.into()),
        ("size", number(size)),
        ("metal", "iron".into()),
        ("secret", "hush".into()),
        ("tags", texts(tags)),
        ("parts", object([("handle", part("long")), ("spout", part("short"))])),
        ("lids", Value::List(vec![part("glass"), part("steel")])),
        ("any", any.into()),
        ("rule", Value::List(vec![object([("of", "thumb".into())])])),
    ])
}

fn rogue(how: &str, text: &str) -> Value {
    object([("how", how.into()), ("text", text.into())])
}

fn with(config: &Value, name: &str, value: impl Into<Value>) -> Value {
    let Value::Map(mut entries) = config.clone() else { panic!("a configuration is an object") };
    entries.insert(name.to_owned(), value.into());
    Value::Map(entries)
}

fn said(diagnostics: &Diagnostics) -> String {
    diagnostics.iter().map(|one| format!("{}: {}\n", one.summary, one.detail)).collect()
}

/// What exists by this configuration, whatever applying it has said.
async fn applied(terraform: &Harness, prior: Option<&Stored>, rogue: &Value) -> (Stored, String) {
    let plan = terraform.plan("kitchen_rogue", prior, rogue).await.unwrap();
    let applied = terraform.apply(plan).await;
    (applied.state.expect("what was made is there"), said(&applied.diagnostics))
}

#[test]
fn the_schemas_keep_all_rules() {
    assert_eq!(tfplugin::problems(&Kitchen::default()), [""; 0]);
}

#[test]
fn every_kind_of_thing_is_offered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let offers = runtime.block_on(async { Harness::of(Kitchen::default()).await.unwrap().offers() });
    assert!(offers.values().all(|names| !names.is_empty()), "{offers:?}");
    assert_eq!(Kitchen::NAME, "kitchen");
}
