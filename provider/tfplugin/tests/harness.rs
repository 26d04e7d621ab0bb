//! The provider of examples/kitchen, driven as Terraform would, within this process and as a program.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../examples/kitchen/provider/mod.rs"]
mod provider;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use proptest::prelude::*;
use provider::{Kitchen, Shelf};
use serde_json::json;
use tfplugin::testing::{Action, Harness, MovedFrom, Stored, object};
use tfplugin::{Client, Diagnostics, Number, Provider as _, Type, Value};

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

fn with(config: &Value, name: &str, value: impl Into<Value>) -> Value {
    let Value::Map(mut entries) = config.clone() else { panic!("a configuration is an object") };
    entries.insert(name.to_owned(), value.into());
    Value::Map(entries)
}

fn said(diagnostics: &Diagnostics) -> String {
    diagnostics.iter().map(|one| format!("{}: {}\n", one.summary, one.detail)).collect()
}

/// The life of a pot, the same wherever the provider runs.
async fn life(terraform: &Harness) -> Stored {
    let pot_of = |size, tags: &[&str]| pot("wok", size, tags);
    let made = terraform.create("kitchen_pot", &pot_of(3, &["b", "a"])).await;
    assert_eq!(made.get("id"), &"pot:wok".into());
    assert_eq!(made.get("tags"), &texts(&["a", "b"]), "a set has no order of its own");
    assert_eq!(made.get("secret"), &Value::Null);
    assert_eq!(made.identity, Some(object([("name", "wok".into())])));

    let bigger = terraform.update(&made, &pot_of(4, &["a", "c"])).await;
    assert_eq!(bigger.get("id"), made.get("id"));
    let serial = |pot: &Stored| pot.get("parts").get("spout").unwrap().get("serial").cloned();
    assert_eq!(serial(&bigger), Some("wok/short".into()));
    assert_ne!(bigger.get("stamp"), made.get("stamp"), "what is computed changes with any change");

    let imported = terraform.import("kitchen_pot", "wok").await.unwrap();
    let same = terraform.import_identity("kitchen_pot", &object([("name", "wok".into())])).await.unwrap();
    assert_eq!(imported.value, same.value);
    let config = terraform.generate_config(&imported).await.unwrap();
    assert_eq!(config.get("id"), Some(&Value::Null), "what is computed is in no configuration");
    let again = terraform.plan("kitchen_pot", Some(&imported), &config).await.unwrap();
    assert_eq!(again.action, Action::NoOp, "what is imported is what the generated configuration says");
    bigger
}

#[tokio::test]
async fn a_life_within_the_process() {
    let (terraform, kitchen) = kitchen().await;
    let wok = life(&terraform).await;
    assert_eq!(kitchen.shelf().pots["wok"]["secret_length"], 4, "apply has the write-only value");
    terraform.destroy(&wok).await;
    assert_eq!(kitchen.shelf().done, ["create wok", "update wok", "delete wok"]);
}

#[tokio::test]
async fn the_same_life_of_a_program() {
    let terraform = Harness::start(&example("kitchen")).await.unwrap();
    terraform.configure(&object([])).await.unwrap();
    let wok = life(&terraform).await;
    terraform.destroy(&wok).await;
}

#[test]
fn the_schemas_keep_all_rules() {
    assert_eq!(tfplugin::problems(&Kitchen::default()), [""; 0]);
}

#[tokio::test]
async fn a_change_that_cannot_be_made_in_place_replaces() {
    let (terraform, kitchen) = kitchen().await;
    let wok = terraform.create("kitchen_pot", &pot("wok", 3, &[])).await;
    let plan = terraform.plan("kitchen_pot", Some(&wok), &pot("other", 3, &[])).await.unwrap();
    assert_eq!(plan.action, Action::Replace);
    assert_eq!(plan.requires_replace.iter().map(ToString::to_string).collect::<Vec<_>>(), ["name"]);
    assert_eq!(plan.planned.get("id"), Some(&Value::Unknown), "another pot, another id");
    let other = terraform.update(&wok, &pot("other", 3, &[])).await;
    assert_eq!(kitchen.shelf().done, ["create wok", "delete wok", "create other"]);

    // Below a map the element is named.
    let part = |kind: &str| object([("kind", kind.into()), ("weight", number(3))]);
    let parts = object([("handle", part("long")), ("spout", part("none"))]);
    let plan = terraform
        .plan("kitchen_pot", Some(&other), &with(&pot("other", 3, &[]), "parts", parts))
        .await
        .unwrap();
    assert_eq!(plan.action, Action::Replace);
    assert_eq!(plan.requires_replace[0].to_string(), r#"parts["spout"].kind"#);
}

#[tokio::test]
async fn what_is_gone_is_made_again_and_what_has_changed_is_seen() {
    let (terraform, kitchen) = kitchen().await;
    let config = pot("wok", 3, &[]);
    let wok = terraform.create("kitchen_pot", &config).await;
    kitchen.shelf().pots.get_mut("wok").unwrap()["size"] = 9.into();
    let drifted = terraform.refresh(&wok).await.unwrap().unwrap();
    assert_eq!(drifted.get("size"), &number(9));
    let plan = terraform.plan("kitchen_pot", Some(&drifted), &config).await.unwrap();
    assert_eq!((plan.action, plan.planned.get("size")), (Action::Update, Some(&number(3))));
    kitchen.shelf().pots.clear();
    assert!(terraform.refresh(&wok).await.unwrap().is_none());
}

#[tokio::test]
async fn unknown_values_stay_unknown_until_they_are_known() {
    let (terraform, _) = kitchen().await;
    let config = pot("wok", 3, &["a"]);
    let open = [
        ("size", Value::Unknown),
        ("tags", Value::List(vec!["a".into(), Value::Unknown])),
        ("parts", Value::Unknown),
        ("any", Value::Unknown),
        ("rule", Value::Unknown),
    ];
    let open = open.into_iter().fold(config.clone(), |config, (name, value)| with(&config, name, value));
    let plan = terraform.plan("kitchen_pot", None, &open).await.unwrap();
    for name in ["size", "parts", "any", "rule", "stamp"] {
        assert_eq!(plan.planned.get(name), Some(&Value::Unknown), "{name}");
    }
    let applied = terraform.apply_with(plan, &config).await;
    assert!(applied.diagnostics.is_empty(), "{}", said(&applied.diagnostics));
    assert_eq!(applied.state.unwrap().get("size"), &number(3));
}

#[tokio::test]
async fn what_is_null_or_unknown_keeps_its_type_where_any_may_be() {
    let (terraform, _) = kitchen().await;
    let any = |value: Value| {
        let typed = Value::Dynamic(Box::new((Type::String, value)));
        object([("name", "wok".into()), ("any", typed)])
    };
    let null = terraform.create("kitchen_pot", &any(Value::Null)).await;
    assert_eq!(Some(null.get("any")), any(Value::Null).get("any"));
    let plan = terraform.plan("kitchen_pot", Some(&null), &any(Value::Unknown)).await.unwrap();
    assert_eq!(plan.planned.get("any"), any(Value::Unknown).get("any"));
    let applied = terraform.apply_with(plan, &any("x".into())).await;
    assert_eq!(applied.state.as_ref().map(|pot| pot.get("any")), any("x".into()).get("any"));
}

#[tokio::test]
async fn write_only_values_are_refused_where_they_would_be_stored() {
    let (terraform, _) = kitchen().await;
    let old = terraform.saying(Client::default());
    let errors = old.plan("kitchen_pot", None, &pot("wok", 3, &[])).await.unwrap_err();
    let text = said(&errors);
    assert!(
        text.contains("would store a secret") && text.contains("`secret`") && !text.contains("hush"),
        "{text}"
    );
    old.plan("kitchen_pot", None, &object([("name", "wok".into())])).await.unwrap();
}

#[tokio::test]
async fn bad_configurations_get_an_error_each() {
    let (terraform, _) = kitchen().await;
    let errors = |config: Value| {
        let terraform = &terraform;
        async move { said(&terraform.validate("kitchen_pot", &config).await.unwrap_err()) }
    };
    let wok = object([("name", "wok".into())]);
    assert!(
        errors(with(&wok, "size", 100i64)).await.contains("Found 100, expected a whole number from 1 to 99")
    );
    assert!(errors(with(&wok, "metal", "mud")).await.contains("one of \"iron\", \"copper\""));
    assert!(errors(with(&wok, "name", "lid")).await.contains("A lid is no pot"));
    assert!(errors(object([])).await.contains("Missing required argument"));
    let warnings = terraform.validate("kitchen_pot", &with(&wok, "name", "old pot")).await.unwrap();
    assert_eq!(said(&warnings), "This pot is old: \n", "a warning is no error");
}

#[tokio::test]
async fn a_state_of_an_older_schema_is_upgraded() {
    let (terraform, _) = kitchen().await;
    let old = json!({ "id": "pot:wok", "name": "wok", "litres": "3", "stamp": "s" });
    let value = terraform.upgrade("kitchen_pot", 0, &old).await.unwrap();
    assert_eq!((value.get("size"), value.get("tags")), (Some(&number(3)), Some(&Value::Null)));
    let same =
        terraform.upgrade("kitchen_pot", 1, &json!({ "name": "wok", "size": 3, "gone": 1 })).await.unwrap();
    assert_eq!(same.get("size"), Some(&number(3)), "what the schema has no more is dropped");
    for bad in [json!([]), json!({ "size": "three" }), json!("x"), json!({ "tags": { "a": 1 } })] {
        let errors = terraform.upgrade("kitchen_pot", 1, &bad).await.unwrap_err();
        assert!(said(&errors).contains("The stored state cannot be read"), "{bad}: {}", said(&errors));
    }
    terraform.upgrade("kitchen_pot", 0, &json!({ "litres": 3 })).await.unwrap_err();
    let identity = terraform.upgrade_identity("kitchen_pot", 0, &json!({ "title": "wok" })).await.unwrap();
    assert_eq!(identity, object([("name", "wok".into())]));
}

#[tokio::test]
async fn what_was_of_another_type_is_taken_over() {
    let (terraform, kitchen) = kitchen().await;
    kitchen.shelf().pots.insert("wok".into(), json!({ "size": 1 }));
    let state = json!({ "name": "wok" });
    let from = |type_name| MovedFrom {
        provider: "registry.terraform.io/example/kitchen",
        type_name,
        version: 0,
        state: &state,
    };
    let moved = terraform.move_state(&from("kitchen_kettle"), "kitchen_pot").await.unwrap();
    assert_eq!(moved.identity, Some(object([("name", "wok".into())])));
    let plan = terraform.plan("kitchen_pot", Some(&moved), &object([("name", "wok".into())])).await.unwrap();
    assert_eq!(plan.action, Action::NoOp);
    let errors = terraform.move_state(&from("kitchen_spoon"), "kitchen_pot").await.unwrap_err();
    assert!(said(&errors).contains("kitchen_spoon cannot become kitchen_pot"), "{}", said(&errors));
}

#[tokio::test]
async fn a_resource_may_keep_from_being_destroyed_or_warn() {
    let (terraform, _) = kitchen().await;
    let copper = |name: &str| object([("name", name.into()), ("metal", "copper".into())]);
    let dear = terraform.create("kitchen_pot", &copper("pan")).await;
    assert_eq!(said(&terraform.plan_destroy(&dear).await.unwrap().warnings), "Copper is dear: \n");
    terraform.destroy(&dear).await;
    let heirloom = terraform.create("kitchen_pot", &copper("heirloom")).await;
    let errors = terraform.plan_destroy(&heirloom).await.unwrap_err();
    assert!(said(&errors).contains("Heirlooms are not thrown away"));
}

/// What a rogue is told, what is found, and what must not be shown.
const BREACHES: &[(&str, &str)] = &[
    ("plan another text", "kitchen_rogue planned \"another\" for `text` where \"good\" was due"),
    (
        "plan another token",
        "kitchen_rogue planned a sensitive value for `token` where a sensitive value was due",
    ),
    ("plan silently", "it failed without saying why"),
    ("panic in plan", "PlanResourceChange of kitchen_rogue panicked"),
    ("return another text", "kitchen_rogue returned \"another\" for `text` where \"good\" was due"),
    ("return another token", "kitchen_rogue returned a sensitive value for `token`"),
    ("return something unknown", "for `out` where a known value was due"),
    ("fail silently", "it failed without saying why"),
    ("fail half-way", "Half of it is done"),
    ("panic in apply", "ApplyResourceChange of kitchen_rogue panicked"),
];

#[tokio::test]
async fn who_breaks_a_rule_is_named_with_place_and_values() {
    let (terraform, _) = kitchen().await;
    for (how, expected) in BREACHES {
        let rogue = object([("how", (*how).into()), ("text", "good".into()), ("token", "t0ken".into())]);
        let errors = match terraform.plan("kitchen_rogue", None, &rogue).await {
            Err(errors) => errors,
            Ok(plan) => terraform.apply(plan).await.diagnostics,
        };
        let text = said(&errors);
        assert!(text.contains(expected), "{how}: {text}");
        assert!(!text.contains("t0ken"), "{how}: {text}");
        if how.starts_with("plan") {
            assert!(text.contains("This is a rogue"), "warnings of what fails are not lost: {text}");
        }
    }
    // The provider has lived through all of it.
    terraform.create("kitchen_pot", &object([("name", "wok".into())])).await;
}

#[tokio::test]
async fn a_write_only_value_never_gets_out_again() {
    let (terraform, _) = kitchen().await;
    for how in ["plan the secret", "return the secret"] {
        let rogue = object([("how", how.into()), ("secret", "hush".into())]);
        let stored = terraform.create("kitchen_rogue", &rogue).await;
        assert_eq!(stored.get("secret"), &Value::Null, "{how}");
    }
}

#[tokio::test]
async fn a_failed_apply_leaves_what_there_is() {
    let (terraform, _) = kitchen().await;
    let rogue = |how: &str, text: &str| object([("how", how.into()), ("text", text.into())]);
    let apply = |prior: Option<Stored>, config: Value| {
        let terraform = &terraform;
        async move {
            let plan = terraform.plan("kitchen_rogue", prior.as_ref(), &config).await.unwrap();
            terraform.apply(plan).await
        }
    };
    let half = apply(None, rogue("fail half-way", "a")).await.state.unwrap();
    assert!(half.tainted, "a create that failed leaves something to be replaced");
    assert_eq!(half.get("out"), &Value::Null, "what is not known is not there");
    assert!(apply(None, rogue("panic in apply", "a")).await.state.is_none(), "nothing was made");
    let good = terraform.create("kitchen_rogue", &rogue("behave", "a")).await;
    let kept = apply(Some(good.clone()), rogue("panic in apply", "b")).await.state.unwrap();
    assert_eq!(kept.value, good.value, "after a panic the state is the one there was");
    let lost = terraform.plan("kitchen_rogue", Some(&good), &rogue("plan what cannot be", "a")).await;
    let text = said(&lost.unwrap_err());
    assert!(text.contains("replaced for `nothing`, which is in neither state nor plan"), "{text}");
    let stuck = terraform.create("kitchen_rogue", &rogue("panic in delete", "a")).await;
    let plan = terraform.plan_destroy(&stuck).await.unwrap();
    let applied = terraform.apply(plan).await;
    assert!(applied.diagnostics.has_errors());
    assert_eq!(applied.state.unwrap().value, stuck.value);
    for how in ["panic in read", "read something unknown"] {
        let read = Stored { value: with(&good.value, "how", how), ..good.clone() };
        let errors = terraform.refresh(&read).await.unwrap_err();
        assert!(said(&errors).contains(if how == "panic in read" { "panicked" } else { "`out`" }), "{how}");
    }
}

#[tokio::test]
async fn functions_take_and_return_any_value() {
    let (terraform, _) = kitchen().await;
    let long = Value::Number(Number::parse("3.14159265358979323846264338327950288").unwrap());
    for value in [
        Value::Null,
        "é, ü, 水, \u{1F35C}".into(),
        long,
        json!({ "a": [1, 2.5, { "b": null }], "": "x" }).into(),
    ] {
        let heard = terraform.call("echo", std::slice::from_ref(&value)).await.unwrap();
        assert_eq!(heard, value.into_dynamic());
    }
    assert_eq!(terraform.call("join", &["-".into(), number(1), number(2)]).await.unwrap(), "1-2".into());
    let error = terraform.call("join", &["-".into(), number(1), number(256)]).await.unwrap_err();
    assert_eq!(error.argument, Some(2), "{error:?}");
    let error = terraform.call("burn", &["toast".into()]).await.unwrap_err();
    assert_eq!((error.text.as_str(), error.argument), ("toast is burnt", Some(0)));
    let error = terraform.call("burn", &["everything".into()]).await.unwrap_err();
    assert!(error.text.contains("panicked"), "{error:?}");
}

#[tokio::test]
async fn data_sources_are_read_and_checked() {
    let (terraform, _) = kitchen().await;
    let place = |text: &str| object([("place", text.into())]);
    assert_eq!(
        terraform.read("kitchen_weather", &place("roof")).await.unwrap().get("sun"),
        Some(&true.into())
    );
    let errors = terraform.read("kitchen_weather", &place("")).await.unwrap_err();
    assert!(said(&errors).contains("Nowhere is no place"));
    let errors = terraform.read("kitchen_weather", &place("fog")).await.unwrap_err();
    assert!(said(&errors).contains("for `sun`"), "{}", said(&errors));
}

#[tokio::test]
async fn ephemeral_resources_are_opened_renewed_and_closed() {
    let (terraform, kitchen) = kitchen().await;
    let fire = object([("fuel", "wood".into()), ("renew", true.into())]);
    let open = terraform.open("kitchen_fire", &fire).await.unwrap();
    assert_eq!(open.value.get("heat"), Some(&"heat of wood".into()));
    assert!(open.renew_at.is_some());
    let open = terraform.renew(open).await.unwrap();
    terraform.close(open).await.unwrap();
    assert_eq!(kitchen.shelf().done, ["open wood", "renew wood", "close wood, renewed"]);
    let errors = terraform.open("kitchen_fire", &object([("fuel", "water".into())])).await.unwrap_err();
    assert!(said(&errors).contains("Water does not burn"));
}

#[tokio::test]
async fn lists_end_where_they_are_told_to() {
    let (terraform, kitchen) = kitchen().await;
    for n in 0..50 {
        kitchen.shelf().pots.insert(format!("pot {n:02}"), json!({}));
    }
    let all = object([]);
    let found = terraform.list("kitchen_pot", &all, 10, false).await.unwrap();
    assert_eq!(found.len(), 10);
    assert_eq!(found[3], ("the pot 03".to_owned(), object([("name", "pot 03".into())]), None));
    let enough = Instant::now();
    while !kitchen.shelf().done.contains(&"listed enough".to_owned()) {
        assert!(enough.elapsed() < Duration::from_secs(5), "nobody told the list that it is enough");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let some = object([("prefix", "pot 1".into())]);
    let found = terraform.list("kitchen_pot", &some, 100, true).await.unwrap();
    assert_eq!(found.len(), 10);
    assert_eq!(found[0].2.as_ref().unwrap().get("name"), Some(&"pot 10".into()));
    kitchen.shelf().pots.insert("broken".into(), json!({}));
    let errors = terraform.list("kitchen_pot", &all, 100, false).await.unwrap_err();
    assert!(said(&errors).contains("One pot is broken"));
}

#[tokio::test]
async fn actions_say_how_far_they_are() {
    let (terraform, kitchen) = kitchen().await;
    let boil = |pot: &str| object([("pot", pot.into())]);
    let errors = terraform.invoke("kitchen_boil", &boil("wok")).await.unwrap_err();
    assert!(said(&errors).contains("There is no pot wok"), "found at plan");
    kitchen.shelf().pots.extend([("wok".into(), json!({})), ("bomb".into(), json!({}))]);
    let done = terraform.invoke("kitchen_boil", &boil("wok")).await.unwrap();
    assert_eq!(done.lines, ["filling", "heating", "boiling"]);
    assert_eq!(said(&done.diagnostics), "It is hot: \n");
    let done = terraform.invoke("kitchen_boil", &boil("bomb")).await.unwrap();
    assert_eq!(done.lines, ["filling", "heating"]);
    assert!(said(&done.diagnostics).contains("InvokeAction of kitchen_boil panicked"));
}

#[tokio::test]
async fn what_cannot_be_planned_yet_is_put_off_where_that_is_possible() {
    let open = object([("shelf", Value::Unknown)]);
    let wok = object([("name", "wok".into())]);
    let terraform = Harness::of(Kitchen::default()).await.unwrap();
    terraform.configure(&open).await.unwrap();
    let errors = terraform.plan("kitchen_pot", None, &wok).await.unwrap_err();
    assert!(said(&errors).contains("cannot put it off"), "{}", said(&errors));
    let terraform = terraform.saying(Client {
        deferral_allowed: true,
        write_only_attributes_allowed: true,
        ..Client::default()
    });
    assert!(terraform.plan("kitchen_pot", None, &wok).await.unwrap().deferred);
}

#[tokio::test]
async fn the_second_plan_sees_what_the_first_has_left_where_terraform_stores_it() {
    let plans = |private: &[u8]| {
        let private: serde_json::Value = serde_json::from_slice(private).unwrap();
        private["data"]["plans"].as_u64().unwrap()
    };
    let (terraform, _) = kitchen().await;
    let stored = terraform.create("kitchen_pot", &object([("name", "wok".into())])).await;
    assert_eq!(plans(&stored.private), 1, "the second plan knows nothing of the first");
    let (terraform, _) = kitchen().await;
    let newest =
        Client { stores_planned_private: true, write_only_attributes_allowed: true, ..Client::default() };
    let stored = terraform.saying(newest).create("kitchen_pot", &object([("name", "wok".into())])).await;
    assert_eq!(plans(&stored.private), 2);
}

#[tokio::test]
async fn a_stopped_apply_ends_at_once_and_tells_what_there_is() {
    let (terraform, kitchen) = kitchen().await;
    let wait = object([("how", "wait".into())]);
    let plan = terraform.plan("kitchen_rogue", None, &wait).await.unwrap();
    let applying = terraform.apply(plan);
    let stopping = async {
        while !kitchen.shelf().done.contains(&"waiting".to_owned()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        terraform.stop().await;
        Instant::now()
    };
    let (applied, stopped) = tokio::join!(applying, stopping);
    assert!(stopped.elapsed() < Duration::from_secs(2));
    assert_eq!(applied.state.unwrap().get("out"), &"stopped".into());
    assert!(said(&applied.diagnostics).contains("Stopped at a safe point"));
    // A server that is attached to lives on: the next run is not stopped.
    let plan = terraform.plan("kitchen_rogue", None, &wait).await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(300), terraform.apply(plan)).await;
    assert!(waits.is_err(), "the next apply was stopped by the last one's stop");
    terraform.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_at_once() {
    let terraform = Harness::start(&example("kitchen")).await.unwrap();
    terraform.configure(&object([])).await.unwrap();
    let lives = (0..1000).map(|n| {
        let terraform = &terraform;
        async move {
            let name = format!("pot {n}");
            if n % 250 == 249 {
                let errors =
                    terraform.plan("kitchen_rogue", None, &object([("how", "panic in plan".into())])).await;
                assert!(said(&errors.unwrap_err()).contains("panicked"));
                return;
            }
            let plan = terraform.plan("kitchen_pot", None, &pot(&name, 3, &["a"])).await.unwrap();
            let applied = terraform.apply(plan).await;
            assert_eq!(applied.state.unwrap().get("id"), &format!("pot:{name}").into());
        }
    });
    futures::future::join_all(lives).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn very_large_values_go_there_and_back() {
    let (terraform, _) = kitchen().await;
    let text: Value = "x".repeat(120 << 20).into();
    let heard = terraform.call("echo", std::slice::from_ref(&text)).await.unwrap();
    assert!(heard == text.into_dynamic(), "120 MiB come back as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_may_be_as_large_as_is_promised() {
    let (terraform, _) = kitchen().await;
    // Both a plan and an apply have it twice, in the configuration and in the proposed or planned state: 250 MiB.
    let large = "x".repeat((125 << 20) - 1024);
    let plan = terraform.plan("kitchen_rogue", None, &rogue("behave", &large)).await.unwrap();
    let applied = terraform.apply(plan).await;
    assert!(applied.diagnostics.is_empty(), "{}", said(&applied.diagnostics));
    assert!(applied.state.unwrap().get("text") == &large.into(), "it comes back as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_are_an_error_that_says_so() {
    let (terraform, _) = kitchen().await;
    let mebibytes = |n: usize| "x".repeat(n << 20);
    // What cannot even be read has no diagnostics.
    let too_large = rogue("behave", &mebibytes(129));
    let refused = AssertUnwindSafe(terraform.plan("kitchen_rogue", None, &too_large)).catch_unwind().await;
    let status = refused.unwrap_err().downcast_ref::<String>().cloned().unwrap();
    assert!(status.contains("message length too large: found 27"), "{status}");

    let numbers = [number(1), number(2), number(3), number(4), number(5)];
    let join = [&[mebibytes(65).into()], &numbers[..]].concat();
    let error = terraform.call("join", &join).await.unwrap_err();
    assert!(error.text.contains("CallFunction of join would have 260 MiB"), "{:.200}", error.text);

    let (made, said) =
        applied(&terraform, None, &rogue("return far more than there was", &mebibytes(40))).await;
    assert!(said.contains("ApplyResourceChange of kitchen_rogue would have 280 MiB"), "{said:.200}");
    assert!(made.tainted && made.get("out").is_null(), "what was made is there, as it was planned");
    terraform.create("kitchen_rogue", &rogue("behave", "a")).await;
}

fn pots() -> impl Strategy<Value = Value> {
    let word = prop_oneof![Just("a"), Just("b"), Just("é"), Just("e\u{301}"), Just("")];
    let part = (word.clone(), prop::option::of(0i64..3)).prop_map(|(kind, weight)| {
        object([("kind", kind.into()), ("weight", weight.map_or(Value::Null, Value::from))])
    });
    let maybe = |strategy: BoxedStrategy<Value>| {
        prop::option::of(strategy).prop_map(|value| value.unwrap_or(Value::Null))
    };
    let set = |items: BoxedStrategy<Value>| prop::collection::vec(items, 0..4).prop_map(Value::List).boxed();
    (
        prop_oneof![Just("wok"), Just("pan")],
        maybe((1i64..5).prop_map(Value::from).boxed()),
        maybe(set(word.clone().prop_map(Value::from).boxed())),
        maybe(prop::collection::btree_map("[a-c]", part.clone(), 0..3).prop_map(Value::from).boxed()),
        maybe(set(part.boxed())),
        maybe(prop::collection::vec(word.prop_map(Value::from), 0..3).prop_map(Value::List).boxed()),
        prop::collection::vec(Just(object([("of", "thumb".into())])), 0..3),
    )
        .prop_map(|(name, size, tags, parts, lids, any, rule)| {
            object([
                ("name", name.into()),
                ("size", size),
                ("tags", tags),
                ("parts", parts),
                ("lids", lids),
                ("any", any),
                ("rule", Value::List(rule)),
            ])
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever the user writes, and whatever of it is not known at first: what is planned is what is applied, a refresh finds
    /// it, and nothing is left to do. The harness checks all of that in each step.
    #[test]
    fn any_life_keeps_all_rules(first in pots(), second in pots(), hidden in prop::collection::vec(any::<bool>(), 7)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (terraform, _) = kitchen().await;
            let made = terraform.create("kitchen_pot", &first).await;
            let Value::Map(entries) = &second else { unreachable!() };
            let open: BTreeMap<String, Value> = entries
                .iter()
                .zip(&hidden)
                .map(|((name, value), hidden)| (name.clone(), if *hidden { Value::Unknown } else { value.clone() }))
                .collect();
            let plan = terraform.plan("kitchen_pot", Some(&made), &Value::Map(open)).await.unwrap();
            let applied = terraform.apply_with(plan, &second).await;
            assert!(!applied.diagnostics.has_errors(), "{}", said(&applied.diagnostics));
            let stored = applied.state.unwrap();
            let read = terraform.refresh(&stored).await.unwrap().unwrap();
            assert_eq!(read.value, stored.value);
            let again = terraform.plan("kitchen_pot", Some(&read), &second).await.unwrap();
            assert_eq!(again.action, Action::NoOp, "{again:#?}");
            terraform.destroy(&read).await;
        });
    }
}

#[test]
fn every_kind_of_thing_is_offered() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let offers = runtime.block_on(async { Harness::of(Kitchen::default()).await.unwrap().offers() });
    assert!(offers.values().all(|names| !names.is_empty()), "{offers:?}");
    assert_eq!(Kitchen::NAME, "kitchen");
}

#[tokio::test]
async fn after_a_stop_what_is_open_can_still_be_closed() {
    let (terraform, kitchen) = kitchen().await;
    let open = terraform.open("kitchen_fire", &object([("fuel", "wood".into())])).await.unwrap();
    terraform.stop().await;
    terraform.close(open).await.unwrap();
    assert_eq!(kitchen.shelf().done, ["open wood", "close wood"], "closing is not stopped");
}

/// What exists by this configuration, whatever applying it has said.
async fn applied(terraform: &Harness, prior: Option<&Stored>, rogue: &Value) -> (Stored, String) {
    let plan = terraform.plan("kitchen_rogue", prior, rogue).await.unwrap();
    let applied = terraform.apply(plan).await;
    (applied.state.expect("what was made is there"), said(&applied.diagnostics))
}

fn rogue(how: &str, text: &str) -> Value {
    object([("how", how.into()), ("text", text.into())])
}

#[tokio::test]
async fn what_was_made_is_kept_where_the_result_does_not_fit_or_cannot_be_told() {
    let (terraform, _) = kitchen().await;
    let good = terraform.create("kitchen_rogue", &rogue("behave", "a")).await;
    for (how, expected) in [
        ("return a number for a text", "does not fit its own schema"),
        ("return what cannot be told", "NaN is not a number"),
    ] {
        let (made, said) = applied(&terraform, None, &rogue(how, "b")).await;
        assert!(said.contains(expected), "{how}: {said}");
        assert!(made.tainted, "{how}: what nobody knows is replaced");
        assert_eq!((made.get("text"), made.get("out")), (&"b".into(), &Value::Null), "{how}");
        let (changed, said) = applied(&terraform, Some(&good), &rogue(how, "b")).await;
        assert!(said.contains(expected), "{how}: {said}");
        assert_eq!((changed.get("text"), changed.get("out")), (&"b".into(), &Value::Null), "{how}");
    }
}

#[tokio::test]
async fn an_identity_may_become_complete_but_never_another() {
    let (terraform, _) = kitchen().await;
    let is = |who: Value| Some(object([("out", who)]));
    let config = rogue("become somebody", "a");
    let (nobody, _) = applied(&terraform, None, &config).await;
    assert_eq!(nobody.identity, is(Value::Null));
    let planned = terraform.plan("kitchen_rogue", Some(&nobody), &config).await.unwrap().planned;
    assert_eq!(planned.get("out"), Some(&"somebody".into()), "a plan may tell more");
    let read = terraform.refresh(&nobody).await.unwrap().unwrap();
    assert_eq!(read.identity, is("somebody".into()), "a refresh may tell more");

    let config = rogue("become another", "a");
    let (done, _) = applied(&terraform, None, &config).await;
    assert_eq!(done.identity, is("done".into()));
    let errors = terraform.plan("kitchen_rogue", Some(&done), &config).await.unwrap_err();
    assert!(said(&errors).contains("it plans another identity for the same object"), "{}", said(&errors));
    let errors = terraform.refresh(&done).await.unwrap_err();
    assert!(said(&errors).contains("it found another identity for the same object"), "{}", said(&errors));
}

#[tokio::test]
async fn what_is_put_off_breaks_no_rule_yet() {
    let (terraform, _) = kitchen().await;
    let good = terraform.create("kitchen_rogue", &rogue("behave", "a")).await;
    let as_if = |how: &str| Stored { value: with(&good.value, "how", how), ..good.clone() };
    let plan = terraform.plan("kitchen_rogue", None, &rogue("plan another text", "a")).await;
    assert!(said(&plan.unwrap_err()).contains("for `text`"), "a plan that is not put off keeps the rules");
    let read = terraform.refresh(&as_if("read something unknown")).await;
    assert!(said(&read.unwrap_err()).contains("for `out`"), "what is read is known");
    let imported = terraform.import("kitchen_rogue", "at once").await;
    assert!(said(&imported.unwrap_err()).contains("for `out`"), "what is imported is known");

    let terraform = terraform.saying(Client {
        deferral_allowed: true,
        write_only_attributes_allowed: true,
        ..Client::default()
    });
    let plan = terraform.plan("kitchen_rogue", None, &rogue("put it off", "a")).await.unwrap();
    assert_eq!((plan.deferred, plan.planned.get("text")), (true, Some(&"another".into())));
    let read = terraform.refresh(&as_if("put it off")).await.unwrap().unwrap();
    assert_eq!((read.deferred, read.get("out")), (true, &Value::Unknown));
    let imported = terraform.import("kitchen_rogue", "put it off").await.unwrap();
    assert_eq!((imported.deferred, imported.get("out")), (true, &Value::Unknown));
}

#[tokio::test]
async fn an_action_ends_even_if_something_keeps_the_means_to_say_more() {
    let (terraform, kitchen) = kitchen().await;
    kitchen.shelf().pots.insert("samovar".into(), json!({}));
    let samovar = object([("pot", "samovar".into())]);
    let boiling = terraform.invoke("kitchen_boil", &samovar);
    let boiled =
        tokio::time::timeout(Duration::from_secs(5), boiling).await.expect("an action ends").unwrap();
    assert_eq!(boiled.lines, ["filling", "heating", "boiling"]);
}

#[tokio::test]
async fn an_action_is_put_off_for_the_provider_only() {
    let may_defer = Client { deferral_allowed: true, ..Client::default() };
    let terraform = Harness::of(Kitchen::default()).await.unwrap().saying(may_defer);
    terraform.configure(&object([("shelf", Value::Unknown)])).await.unwrap();
    let boiled = terraform.invoke("kitchen_boil", &object([("pot", "wok".into())])).await.unwrap();
    assert!(boiled.deferred && boiled.lines.is_empty());

    terraform.configure(&object([])).await.unwrap();
    let errors = terraform.invoke("kitchen_boil", &object([("pot", "pot of tomorrow".into())])).await;
    let text = said(&errors.unwrap_err());
    assert!(text.contains("kitchen_boil: it puts itself off, which an action may do only while"), "{text}");
}

#[tokio::test]
async fn a_list_nobody_listens_to_any_more_ends() {
    // Nothing more is found; and so much that the connection holds it up.
    for pots in [3, 1000] {
        let (terraform, kitchen) = kitchen().await;
        let long = "x".repeat(8 << 10);
        kitchen.shelf().pots.extend((0..pots).map(|n| (format!("endless {n} {long}"), json!({}))));
        let endless = object([("prefix", "endless".into())]);
        let found = terraform.list_and_leave("kitchen_pot", &endless, 3).await.unwrap();
        assert_eq!(found.len(), 3);
        let left = Instant::now();
        while !kitchen.shelf().done.contains(&"nobody listens".to_owned()) {
            assert!(left.elapsed() < Duration::from_secs(5), "of {pots} pots: it lists on for nobody");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Applies what this rogue does in a program, which is told to end meanwhile. Gives how long that took, and what was done.
async fn ended_while_applying(how: &str) -> (Option<Duration>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let shelf = directory.path().join("shelf.json");
    let done = || -> Vec<String> {
        let shelf = std::fs::read(&shelf).ok().and_then(|text| serde_json::from_slice::<Shelf>(&text).ok());
        shelf.unwrap_or_default().done
    };
    let terraform = Harness::start(&example("kitchen")).await.unwrap();
    terraform.configure(&object([("shelf", shelf.to_str().unwrap().into())])).await.unwrap();
    let plan = terraform.plan("kitchen_rogue", None, &rogue(how, "a")).await.unwrap();
    // Whether there still is an answer is of no interest: Terraform does not wait for it.
    let applying = AssertUnwindSafe(terraform.apply(plan)).catch_unwind();
    let start = Instant::now();
    let ending = async {
        while !done().contains(&"waiting".to_owned()) {
            assert!(start.elapsed() < Duration::from_secs(20), "the apply did not begin");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        terraform.end().await
    };
    let (_, took) = tokio::join!(applying, ending);
    (took, done())
}

#[tokio::test]
async fn what_is_running_at_the_end_comes_to_a_safe_point() {
    let (took, done) = ended_while_applying("need half a second to stop").await;
    assert_eq!(done, ["waiting", "told to stop", "at a safe point"], "it took {took:?}");
    assert!(took.is_some_and(|took| took < Duration::from_millis(1300)), "nobody waits any longer: {took:?}");
}

#[tokio::test]
async fn what_never_stops_does_not_hold_up_the_end() {
    let (took, done) = ended_while_applying("never stop").await;
    assert_eq!(done, ["waiting"]);
    assert!(took.is_some(), "it had to be killed, and nothing was put away");
}

#[tokio::test]
async fn what_has_nothing_to_do_ends_at_once() {
    let terraform = Harness::start(&example("kitchen")).await.unwrap();
    terraform.configure(&object([])).await.unwrap();
    let took = terraform.end().await;
    assert!(took.is_some_and(|took| took < Duration::from_millis(500)), "{took:?}");
}
