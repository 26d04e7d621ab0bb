//! States that other versions of the provider have written, which this one has to go on with.
//!
//! `tests/fixtures/states/0.1.0` has what version 0.1.0 stored of one resource of each kind, recorded from real
//! applies: `attributes` as they are in Terraform's state, and `private`, decoded; the key of fingerprints is another
//! one. A release that stores something else adds a folder of its own; the old ones stay, because states live on.

use std::path::Path;

use serde_json::{Value as Json, json};
use tfplugin::Value;
use tfplugin::testing::{Action, Harness, Stored, object};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::provider::tests::configured;

/// The recorded states, by the names of their files.
pub(crate) fn recorded() -> Vec<(String, Json)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/states/0.1.0");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), serde_json::from_str(&text).unwrap())
        })
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// What Terraform has of such a state after the provider has brought it up to date.
pub(crate) async fn stored(terraform: &Harness, recorded: &Json) -> Stored {
    let type_name = recorded["type"].as_str().unwrap().to_owned();
    let version = recorded["schema_version"].as_i64().unwrap();
    let value = terraform.upgrade(&type_name, version, &recorded["attributes"]).await.unwrap();
    let private = match &recorded["private"] {
        Json::Null => vec![],
        private => private.to_string().into_bytes(),
    };
    Stored { type_name, version, value, private, identity: None, tainted: false, deferred: false }
}

/// A provider whose block is not known yet: it looks at nothing, and keeps what it has.
async fn blind() -> Harness {
    configured(&object([("aws", Value::Unknown), ("ssh", Value::Unknown)])).await
}

/// AWS where nothing is left of what the states speak of.
async fn empty_cloud() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = String::new();
                let mut part = [0; 8192];
                // EC2 is asked by a form that names the call, S3 without a body.
                while !request.ends_with("\r\n\r\n") || request.starts_with("POST") {
                    let read = stream.read(&mut part).await.unwrap_or_default();
                    request.push_str(&String::from_utf8_lossy(&part[..read]));
                    if read == 0 || request.contains("Action=") {
                        break;
                    }
                }
                let call = request.split_once("Action=").map(|(_, rest)| rest.split('&').next().unwrap());
                let (status, body) = match call {
                    Some(call) => ("200 OK", format!("<{call}Response></{call}Response>")),
                    None => ("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>".to_owned()),
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: text/xml\r\ncontent-length: {length}\r\nconnection: \
                     close\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    format!("http://{address}")
}

pub(crate) async fn in_empty_cloud(beside: &[(&str, Value)]) -> Harness {
    let url = empty_cloud().await;
    let endpoints = object([("ec2", url.as_str().into()), ("s3", url.as_str().into())]);
    let aws = object([
        ("region", "eu-west-1".into()),
        ("access_key", "test".into()),
        ("secret_key", "test".into()),
        ("endpoints", endpoints),
        ("s3_use_path_style", true.into()),
        ("max_attempts", 1i64.into()),
        ("default_tags", object([("team", "infra".into())])),
    ]);
    let beside = beside.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    configured(&Value::Map(beside.chain([("aws".to_owned(), aws)]).collect())).await
}

/// The configuration that such a state came from.
pub(crate) async fn configuration(terraform: &Harness, stored: &Stored) -> Value {
    let Value::Map(mut config) = terraform.generate_config(stored).await.unwrap() else {
        panic!("a configuration is an object")
    };
    if config.get("generate").is_some_and(|generate| !generate.is_null()) {
        config.insert("public_key".to_owned(), Value::Null);
    }
    Value::Map(config)
}

#[tokio::test]
async fn every_resource_has_a_recorded_state() {
    let recorded = recorded();
    let mut types: Vec<_> = recorded.iter().map(|(_, state)| state["type"].as_str().unwrap()).collect();
    types.sort_unstable();
    types.dedup();
    let offered = blind().await.offers().remove("resources").unwrap();
    assert_eq!(types, offered);
    assert!(recorded.iter().any(|(_, state)| state["attributes"]["ec2"].is_object()));
    assert!(recorded.iter().any(|(_, state)| state["attributes"]["ssh"].is_object()));
}

#[tokio::test]
async fn states_of_version_0_1_0_are_read_and_need_no_change() {
    let (blind, terraform) = (blind().await, in_empty_cloud(&[]).await);
    for (name, recorded) in recorded() {
        let before = stored(&blind, &recorded).await;
        let after = blind.refresh(&before).await.unwrap().unwrap_or_else(|| panic!("{name} is gone"));
        assert_eq!(after.value, before.value, "{name}");
        // What a deployment evaluates to is tested with Nix.
        if before.type_name != "nixos_deployment" {
            let config = configuration(&terraform, &after).await;
            let plan = terraform.plan(&after.type_name, Some(&after), &config).await;
            let plan = plan.unwrap_or_else(|errors| panic!("{name}: {errors:#?}"));
            if before.type_name == "nixos_machine" {
                // Targets have come to say less of the provider's defaults, and more of what identifies a machine.
                assert_eq!(beside_identity(&plan.planned), beside_identity(&after.value), "{name}");
            } else {
                assert_eq!(plan.action, Action::NoOp, "{name}: {:#?}", plan.planned);
            }
        }
    }
}

/// A machine without what its target says of the login's user and of the machine's identity.
fn beside_identity(machine: &Value) -> Value {
    let Value::Map(mut machine) = machine.clone() else { panic!("a machine is an object") };
    if let Some(Value::Map(target)) = machine.get_mut("target") {
        for name in ["user", "machine_id", "instance_id"] {
            target.remove(name);
        }
    }
    Value::Map(machine)
}

#[tokio::test]
async fn what_version_0_1_0_remembered_is_not_lost() {
    let terraform = blind().await;
    for (name, recorded) in recorded() {
        let before = stored(&terraform, &recorded).await;
        let after = terraform.refresh(&before).await.unwrap().unwrap();
        let private: Json = serde_json::from_slice(&after.private).unwrap();
        // Before there was anything to remember of a machine, nothing was.
        let expected = if recorded["private"]["data"].is_null() {
            json!({})
        } else {
            recorded["private"]["data"].clone()
        };
        assert_eq!(private["data"], expected, "{name}");
    }
}

#[tokio::test]
async fn resources_of_version_0_1_0_are_deleted() {
    let terraform = in_empty_cloud(&[]).await;
    for (name, recorded) in recorded() {
        let stored = stored(&terraform, &recorded).await;
        let plan = terraform.plan_destroy(&stored).await.unwrap();
        let applied = terraform.apply(plan).await;
        assert!(
            applied.state.is_none() && !applied.diagnostics.has_errors(),
            "{name}: {:#?}",
            applied.diagnostics
        );
    }
}

#[tokio::test]
async fn states_of_a_later_version_are_used_as_far_as_they_are_understood() {
    let terraform = in_empty_cloud(&[]).await;
    let (blind, later) = (blind().await, json!({ "deep": [1, { "a": null }] }));
    for (name, mut recorded) in recorded() {
        recorded["attributes"]["added_later"] = later.clone();
        let private = &mut recorded["private"];
        *private = json!({ "format": 1, "version": 9, "data": private["data"], "added_later": later });
        if private["data"].is_object() {
            private["data"]["added_later"] = later.clone();
        }
        for private in [recorded["private"].clone(), json!({ "schema_version": "1" }), json!([1])] {
            let with = json!({
                "type": recorded["type"], "schema_version": recorded["schema_version"],
                "attributes": recorded["attributes"], "private": private
            });
            let before = stored(&blind, &with).await;
            let after = blind.refresh(&before).await.unwrap_or_else(|errors| panic!("{name}: {errors:#?}"));
            assert_eq!(after.unwrap().value, before.value, "{name}");
            let plan = terraform.plan_destroy(&before).await.unwrap();
            let applied = terraform.apply(plan).await;
            assert!(applied.state.is_none(), "{name}: {:#?}", applied.diagnostics);
        }
    }
}
