//! States that were written by others: an older version, or another type.

use serde_json::json;
use tfplugin::Value;
use tfplugin::testing::{Action, MovedFrom, object};

use crate::{kitchen, number, said};

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
async fn a_resource_with_private_data_of_a_later_version_is_read_planned_changed_and_deleted() {
    let (terraform, _) = kitchen().await;
    let config = object([("name", "wok".into()), ("size", number(2))]);
    let mut pot = terraform.create("kitchen_pot", &config).await;
    pot.private = br#"{"format":1,"version":7,"data":{"owner":{"name":"wok"},"recipes":3}}"#.to_vec();
    let pot = terraform.refresh(&pot).await.unwrap().expect("it is there");
    assert_eq!(terraform.plan("kitchen_pot", Some(&pot), &config).await.unwrap().action, Action::NoOp);
    let mut pot = terraform.update(&pot, &object([("name", "wok".into()), ("size", number(3))])).await;
    pot.private = b"{\"format\":9}".to_vec();
    terraform.destroy(&pot).await;
}
