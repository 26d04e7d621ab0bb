//! What the user and the log are told.

use crate::site::{Run, Site};

#[test]
fn messages_stand_at_the_line_they_are_about() {
    let site = Site::new("resource \"kitchen_pot\" \"wok\" {\n  name = \"wok\"\n  size = 100\n}");
    site.run(&["validate"]).fails().says(&[
        "Invalid value for `size`",
        "on main.tf line 10, in resource \"kitchen_pot\" \"wok\":",
        "10: size = 100",
        "Found 100, expected a whole number from 1 to 99.",
    ]);
    site.write("resource \"kitchen_pot\" \"wok\" { name = \"old pot\" }");
    site.apply().says(&["Warning: This pot is old"]);
    site.write("resource \"kitchen_pot\" \"wok\" {\n  name = \"old pot\"\n  metal = \"copper\"\n}");
    site.apply();
    site.write("");
    site.run(&["plan"]).succeeds().says(&["Warning: Copper is dear", "1 to destroy"]);
}

#[test]
fn a_breach_is_told_before_terraform_blames_the_provider() {
    let site = Site::new(
        r#"
        resource "kitchen_rogue" "bad" {
          how  = "return another text"
          text = "good"
        }
        resource "kitchen_pot" "good" { name = "wok" }
        "#,
    );
    let run = site.run(&["apply", "-auto-approve"]).fails().says(&[
        "kitchen_rogue returned \"another\" for `text` where \"good\" was due",
        "kitchen_pot.good: Creation complete",
    ]);
    assert!(!run.text.contains("inconsistent result after apply"), "ours comes first:\n{}", run.text);
    site.write(
        "resource \"kitchen_rogue\" \"bad\" {\n  how = \"panic in apply\"\n}\n\
         resource \"kitchen_pot\" \"good\" { name = \"pan\" }",
    );
    site.run(&["apply", "-auto-approve"])
        .fails()
        .says(&["ApplyResourceChange of kitchen_rogue panicked", "kitchen_pot.good: Creation complete"]);
}

#[test]
fn logs_are_those_of_a_provider() {
    let site = Site::new("resource \"kitchen_pot\" \"wok\" {\n  name = \"wok\"\n  secret = \"hush\"\n}");
    let apply = |level: &str| {
        let output =
            site.command(&["apply", "-auto-approve"]).env("TF_LOG_PROVIDER", level).output().unwrap();
        Run::of(output).succeeds().text
    };
    let log = apply("TRACE");
    let line = log
        .lines()
        .find(|line| line.contains("call ends") && line.contains("tf_rpc=ApplyResourceChange"))
        .unwrap_or_else(|| panic!("no such line:\n{log}"));
    for field in [
        "[TRACE]",
        "tf_resource_type=kitchen_pot",
        "tf_provider_addr=example/kitchen",
        "tf_req_id=",
        "took_ms=",
        "failed=false",
    ] {
        assert!(line.contains(field), "{field} not in {line}");
    }
    assert!(!log.contains("hush"), "a value is in the log");
    assert!(!apply("WARN").contains("tf_rpc"), "what nobody asked for is not logged");
}
