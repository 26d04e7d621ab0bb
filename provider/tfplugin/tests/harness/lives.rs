//! Lives of pots: made, changed, replaced, looked at, imported, destroyed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tfplugin::testing::{Action, Harness, Stored, object};
use tfplugin::{Type, Value};

use crate::{example, kitchen, number, pot, said, texts, with};

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
async fn the_second_plan_sees_what_the_first_has_left_where_terraform_stores_it() {
    let plans = |private: &[u8]| {
        let private: serde_json::Value = serde_json::from_slice(private).unwrap();
        private["data"]["plans"].as_u64().unwrap()
    };
    let (terraform, _) = kitchen().await;
    let stored = terraform.create("kitchen_pot", &object([("name", "wok".into())])).await;
    assert_eq!(plans(&stored.private), 1, "the second plan knows nothing of the first");
    let (terraform, _) = kitchen().await;
    let newest = terraform.saying(|client| client.stores_planned_private = true);
    let stored = newest.create("kitchen_pot", &object([("name", "wok".into())])).await;
    assert_eq!(plans(&stored.private), 2);
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
