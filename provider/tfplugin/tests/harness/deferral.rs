//! What is put off until something else is known.

use tfplugin::Value;
use tfplugin::testing::{Harness, Stored, object};

use crate::provider::Kitchen;
use crate::{kitchen, rogue, said, with};

#[tokio::test]
async fn what_cannot_be_planned_yet_is_put_off_where_that_is_possible() {
    let open = object([("shelf", Value::Unknown)]);
    let wok = object([("name", "wok".into())]);
    let terraform = Harness::of(Kitchen::default()).await.unwrap();
    terraform.configure(&open).await.unwrap();
    let errors = terraform.plan("kitchen_pot", None, &wok).await.unwrap_err();
    assert!(said(&errors).contains("cannot put it off"), "{}", said(&errors));
    let terraform = terraform.saying(|client| client.deferral_allowed = true);
    assert!(terraform.plan("kitchen_pot", None, &wok).await.unwrap().deferred);
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

    let terraform = terraform.saying(|client| client.deferral_allowed = true);
    let plan = terraform.plan("kitchen_rogue", None, &rogue("put it off", "a")).await.unwrap();
    assert_eq!((plan.deferred, plan.planned.get("text")), (true, Some(&"another".into())));
    let read = terraform.refresh(&as_if("put it off")).await.unwrap().unwrap();
    assert_eq!((read.deferred, read.get("out")), (true, &Value::Unknown));
    let imported = terraform.import("kitchen_rogue", "put it off").await.unwrap();
    assert_eq!((imported.deferred, imported.get("out")), (true, &Value::Unknown));
}

#[tokio::test]
async fn an_action_is_put_off_for_the_provider_only() {
    let terraform = Harness::of(Kitchen::default()).await.unwrap();
    let terraform = terraform.saying(|client| client.deferral_allowed = true);
    terraform.configure(&object([("shelf", Value::Unknown)])).await.unwrap();
    let boiled = terraform.invoke("kitchen_boil", &object([("pot", "wok".into())])).await.unwrap();
    assert!(boiled.deferred && boiled.lines.is_empty());

    terraform.configure(&object([])).await.unwrap();
    let errors = terraform.invoke("kitchen_boil", &object([("pot", "pot of tomorrow".into())])).await;
    let text = said(&errors.unwrap_err());
    assert!(text.contains("kitchen_boil: it puts itself off, which an action may do only while"), "{text}");
}
