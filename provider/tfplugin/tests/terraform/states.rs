//! States that were written by others: an older version, or another type.

use std::fs;

use base64::Engine as _;
use serde_json::{Value as Json, json};

use crate::site::Site;

#[test]
fn a_state_of_version_0_is_brought_up_to_date() {
    let site = Site::new("resource \"kitchen_pot\" \"wok\" {\n  name = \"wok\"\n  size = 3\n}");
    let state = json!({
        "version": 4, "terraform_version": "1.9.0", "serial": 1, "lineage": "x", "outputs": {},
        "resources": [{
            "mode": "managed", "type": "kitchen_pot", "name": "wok",
            "provider": "provider[\"registry.terraform.io/example/kitchen\"]",
            "instances": [{
                "schema_version": 0,
                "attributes": { "id": "pot:wok", "name": "wok", "litres": "3", "stamp": "s" }
            }]
        }]
    });
    fs::write(site.path("terraform.tfstate"), state.to_string()).unwrap();
    fs::write(site.path("shelf.json"), json!({ "pots": { "wok": { "size": 3 } }, "done": [] }).to_string())
        .unwrap();
    site.no_changes();
    site.run(&["apply", "-refresh-only", "-auto-approve"]).succeeds();
    let state: Json = serde_json::from_str(&site.state_file()).unwrap();
    assert_eq!(state["resources"][0]["instances"][0]["schema_version"], 1);
    assert_eq!(state["resources"][0]["instances"][0]["attributes"]["size"], 3);
    // What cannot be read is refused, not lost.
    let broken = site.state_file().replace("\"schema_version\": 1", "\"schema_version\": 0");
    fs::write(site.path("terraform.tfstate"), &broken).unwrap();
    site.run(&["plan"]).fails().says(&["This state is not of version 0"]);
    assert_eq!(site.state_file(), broken);
}

#[test]
fn what_was_of_another_type_is_moved() {
    let site = Site::new("resource \"kitchen_kettle\" \"old\" { name = \"wok\" }");
    site.apply();
    site.write(
        "resource \"kitchen_pot\" \"new\" { name = \"wok\" }\n\
         moved {\n  from = kitchen_kettle.old\n  to = kitchen_pot.new\n}",
    );
    site.apply().says(&["0 added, 0 changed, 0 destroyed"]);
    assert_eq!(site.resource("kitchen_pot.new")["id"], "pot:wok");
    site.no_changes();
    // What cannot be taken over is refused, and the state is as it was.
    site.write(
        "resource \"kitchen_rogue\" \"x\" { how = \"behave\" }\n\
         moved {\n  from = kitchen_pot.new\n  to = kitchen_rogue.x\n}",
    );
    site.run(&["plan"]).fails().says(&["kitchen_pot cannot become kitchen_rogue"]);
    // From another provider.
    let data = Site::new("resource \"terraform_data\" \"old\" { input = \"pan\" }");
    data.apply();
    fs::write(data.path("shelf.json"), json!({ "pots": { "pan": { "size": 1 } }, "done": [] }).to_string())
        .unwrap();
    data.write(
        "resource \"kitchen_pot\" \"new\" { name = \"pan\" }\n\
         moved {\n  from = terraform_data.old\n  to = kitchen_pot.new\n}",
    );
    data.apply().says(&["0 added, 0 changed, 0 destroyed"]);
    assert_eq!(data.resource("kitchen_pot.new")["name"], "pan");
}

#[test]
fn private_data_of_others_make_no_resource_unusable() {
    let main =
        |size: u32| format!("resource \"kitchen_pot\" \"wok\" {{\n  name = \"wok\"\n  size = {size}\n}}");
    let site = Site::new(&main(1));
    site.apply();
    let remembered = || {
        let state: Json = serde_json::from_str(&site.state_file()).unwrap();
        let text = state["resources"][0]["instances"][0]["private"].as_str().unwrap().to_owned();
        base64::engine::general_purpose::STANDARD.decode(text).unwrap()
    };
    let remember = |bytes: &[u8]| {
        let mut state: Json = serde_json::from_str(&site.state_file()).unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        state["resources"][0]["instances"][0]["private"] = text.into();
        fs::write(site.path("terraform.tfstate"), state.to_string()).unwrap();
    };
    let lost = "What kitchen_pot remembers beside its state cannot be read";
    let cases: [(&[u8], bool); 5] = [
        // A newer version's, an older one's, and what the Go SDK writes.
        (br#"{"format":2,"version":9,"data":{"owner":"wok","plans":1,"later":[1]},"more":{}}"#, false),
        (br#"{"format":1,"data":"wok"}"#, false),
        (br#"{"cook":"wok"}"#, false),
        (br#"{"schema_version":"1","e2bfb730-ecaa-11e6-8f88-34363bc7c4c0":{"create":60}}"#, true),
        (b"\x00\xff", true),
    ];
    for (size, (bytes, warns)) in (2..).zip(cases) {
        remember(bytes);
        site.no_changes();
        site.write(&main(size));
        let run = site.apply().says(&["1 changed"]);
        assert_eq!(run.text.contains(lost), warns, "{}", run.text);
        let now = String::from_utf8(remembered()).unwrap();
        assert!(now.contains(r#""version":1"#) && now.contains("plans"), "{now}");
        site.no_changes();
    }
    remember(b"nonsense");
    site.run(&["destroy", "-auto-approve", "-refresh=false"]).succeeds().says(&[lost]);
    assert_eq!(site.shelf()["pots"], json!({}));
}
