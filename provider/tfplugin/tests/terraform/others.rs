//! Functions and ephemeral resources.

use crate::site::{Run, Site};

#[test]
fn functions_are_called() {
    let site = Site::new(
        r#"
        locals { any = { a = [1, 0.1, "x", null], b = tomap({ k = toset(["z", "y"]) }) } }
        output "same" { value = provider::kitchen::echo(local.any) == local.any }
        output "digits" { value = tostring(provider::kitchen::echo(1e40 + 0.1)) }
        output "joined" { value = provider::kitchen::join("-", 1, 2, 3) }
        "#,
    );
    site.apply().says(&[
        "same = true",
        "digits = \"10000000000000000000000000000000000000000.1\"",
        "joined = \"1-2-3\"",
    ]);
    site.write("output \"x\" { value = provider::kitchen::join(\"-\", 1, 300) }");
    site.run(&["plan"]).fails().says(&["Invalid value for \"numbers\" parameter", "300"]);
    site.write("output \"x\" { value = provider::kitchen::burn(\"everything\") }");
    site.run(&["plan"]).fails().says(&["CallFunction of burn panicked"]);
}

#[test]
fn an_ephemeral_value_goes_into_a_write_only_attribute_and_nowhere_else() {
    let site = Site::new(
        r#"
        ephemeral "kitchen_fire" "camp" { fuel = "wood" }
        resource "kitchen_pot" "wok" {
          name           = "wok"
          secret         = ephemeral.kitchen_fire.camp.heat
          secret_version = 1
        }
        "#,
    );
    let secret = "heat of wood";
    site.run(&["plan", "-out=saved.plan"]).succeeds();
    let apply = site.command(&["apply", "saved.plan"]).env("TF_LOG_PROVIDER", "TRACE").output().unwrap();
    let apply = Run::of(apply).succeeds();
    assert_eq!(site.shelf()["pots"]["wok"]["secret_length"], secret.len());
    let done = site.done();
    assert!(done.contains(&"open wood".to_owned()) && done.contains(&"close wood".to_owned()), "{done:?}");
    for (what, text) in [("state", site.state_file()), ("log", apply.text)] {
        assert!(!text.contains(secret), "the secret is in the {what}");
    }
    let plan = site.run(&["show", "-json", "saved.plan"]).text;
    assert!(!plan.contains(secret), "the secret is in the plan");
    site.no_changes();
}

#[test]
fn what_is_open_is_renewed_while_a_run_lasts() {
    let site = Site::new(
        r#"
        ephemeral "kitchen_fire" "camp" {
          fuel  = "wood"
          renew = true
        }
        resource "terraform_data" "slow" {
          provisioner "local-exec" {
            command     = "sleep 2"
            environment = { HEAT = ephemeral.kitchen_fire.camp.heat }
          }
        }
        "#,
    );
    site.apply();
    let done = site.done();
    assert!(done.contains(&"renew wood".to_owned()), "{done:?}");
    // Terraform 1.11 closes with what opening has left, not with what the last renewal has.
    assert_eq!(done.last().map(|last| last.starts_with("close wood")), Some(true), "{done:?}");
}
