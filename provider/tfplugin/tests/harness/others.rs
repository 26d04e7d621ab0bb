//! Everything but managed resources: functions, data sources, ephemeral resources, lists and actions.

use std::time::{Duration, Instant};

use serde_json::json;
use tfplugin::testing::object;
use tfplugin::{Number, Value};

use crate::{kitchen, number, said};

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
async fn an_action_ends_even_if_something_keeps_the_means_to_say_more() {
    let (terraform, kitchen) = kitchen().await;
    kitchen.shelf().pots.insert("samovar".into(), json!({}));
    let samovar = object([("pot", "samovar".into())]);
    let boiling = terraform.invoke("kitchen_boil", &samovar);
    let boiled =
        tokio::time::timeout(Duration::from_secs(5), boiling).await.expect("an action ends").unwrap();
    assert_eq!(boiled.lines, ["filling", "heating", "boiling"]);
}
