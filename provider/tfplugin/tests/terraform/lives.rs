//! Lives of resources, with what the user sees of them.

use std::fs;

use serde_json::json;

use crate::site::{Site, example};

#[test]
fn the_small_example_is_installed_and_lives_its_life() {
    let directory = tempfile::tempdir().unwrap();
    let here = |name: &str| directory.path().join(name);
    let package = here("mirror/registry.terraform.io/example/files/1.2.3").join(platform());
    fs::create_dir_all(&package).unwrap();
    fs::copy(example("files"), package.join("terraform-provider-files_v1.2.3")).unwrap();
    let mirror = here("mirror");
    let config =
        format!("provider_installation {{\n  filesystem_mirror {{ path = \"{}\" }}\n}}\n", mirror.display());
    fs::write(here("terraform.rc"), config).unwrap();
    let site = Site { directory, reattach: None };
    let head = "terraform {\n  \
        required_providers { files = { source = \"example/files\", version = \"~> 1.2\" } }\n}\n";
    let write = |body: &str| fs::write(site.path("main.tf"), format!("{head}{body}")).unwrap();
    let file = |content: &str| {
        format!(
            "resource \"files_file\" \"a\" {{\n  path = \"a.txt\"\n  content = {content:?}\n}}\n\
             output \"size\" {{ value = files_file.a.size }}\n"
        )
    };

    write(&file("one"));
    site.run(&["init"]).succeeds().says(&["Installed example/files v1.2.3"]);
    site.apply().says(&["size = 3"]);
    write(&file("three"));
    site.apply().says(&["1 changed", "size = 5"]);
    assert_eq!(fs::read_to_string(site.path("a.txt")).unwrap(), "three");
    site.no_changes();

    fs::remove_file(site.path("a.txt")).unwrap();
    site.run(&["plan"]).succeeds().says(&["1 to add"]);
    site.apply();

    // Forgotten, and found again.
    write("removed {\n  from = files_file.a\n  lifecycle { destroy = false }\n}\n");
    site.apply();
    assert!(site.path("a.txt").exists(), "what is forgotten is not destroyed");
    write("import {\n  to = files_file.a\n  id = \"a.txt\"\n}\n");
    site.run(&["plan", "-generate-config-out=generated.tf"]).succeeds().says(&["1 to import, 0 to add"]);
    let generated = fs::read_to_string(site.path("generated.tf")).unwrap();
    assert!(generated.contains("three") && !generated.contains("size"), "{generated}");
    site.apply();
    site.no_changes();
    site.run(&["destroy", "-auto-approve"]).succeeds();
    assert!(!site.path("a.txt").exists());
}

fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux_arm64" } else { "linux_amd64" }
}

#[test]
fn a_pot_with_everything_comes_changes_and_goes() {
    let pot = |size: u32, tags: &str, weight: u32| {
        format!(
            r#"resource "kitchen_pot" "wok" {{
                 name = "e\u0301tuve"
                 size = {size}
                 tags = [{tags}]
                 any  = {{ pi = 3.14159265358979323846264338327950288, list = [1, "x", null] }}
                 parts = {{ handle = {{ kind = "long", weight = {weight} }} }}
                 lids  = [{{ kind = "steel" }}, {{ kind = "glass", weight = 2 }}]
                 rule {{ of = "thumb" }}
                 dynamic "rule" {{
                   for_each = toset(["two"])
                   content {{ of = rule.value }}
                 }}
               }}"#
        )
    };
    let site = Site::new(&pot(3, "\"b\", \"a\"", 1));
    site.apply();
    site.no_changes();
    let state = site.resource("kitchen_pot.wok");
    assert_eq!(state["name"], "étuve", "strings are in normal form C");
    assert_eq!(state["parts"]["handle"]["serial"], "étuve/long");
    assert_eq!(state["tags"], json!(["a", "b"]));
    assert_eq!(state["rule"], json!([{ "of": "thumb" }, { "of": "two" }]));
    assert!(site.state_file().contains("3.14159265358979323846264338327950288"), "every digit is kept");
    // The order of a set is no difference; a weight is a change; another kind is another pot.
    site.write(&pot(3, "\"a\", \"b\"", 1));
    site.no_changes();
    site.write(&pot(4, "\"a\"", 2));
    site.apply().says(&["0 added, 1 changed"]);
    site.no_changes();
    site.write(&pot(4, "\"a\"", 2).replace("long", "short"));
    site.run(&["plan"]).succeeds().says(&["forces replacement", "1 to add, 0 to change, 1 to destroy"]);
    site.apply();
    site.no_changes();
    site.run(&["destroy", "-auto-approve"]).succeeds();
    assert_eq!(site.shelf()["pots"], json!({}));
}

#[test]
fn what_is_null_or_unknown_keeps_its_type_where_any_may_be() {
    let site = Site::new(
        r#"
        resource "terraform_data" "x" {}
        resource "kitchen_pot" "null" {
          name = "null"
          any  = tostring(null)
        }
        resource "kitchen_pot" "unknown" {
          name = "unknown"
          any  = terraform_data.x.id
        }
        "#,
    );
    site.apply();
    site.no_changes();
    assert_eq!(site.resource("kitchen_pot.unknown")["any"], site.resource("terraform_data.x")["id"]);
}

#[test]
fn an_import_block_writes_the_configuration() {
    let site = Site::new("import {\n  to = kitchen_pot.wok\n  id = \"wok\"\n}");
    let shelf = json!({ "pots": { "wok": { "size": 7, "metal": "iron" } }, "done": [] });
    fs::write(site.path("shelf.json"), shelf.to_string()).unwrap();
    site.run(&["plan", "-generate-config-out=generated.tf"]).succeeds().says(&["1 to import, 0 to add"]);
    site.apply().says(&["1 imported, 0 added, 0 changed"]);
    site.no_changes();
    site.run(&["import", "kitchen_pot.other", ""]).fails();
    site.write(
        "import {\n  to = kitchen_pot.ghost\n  id = \"ghost\"\n}\n\
         resource \"kitchen_pot\" \"ghost\" { name = \"ghost\" }",
    );
    site.run(&["plan"]).fails().says(&["Cannot import non-existent remote object"]);
}

#[test]
fn modules_tell_what_they_cook() {
    let meta = "terraform {\n  provider_meta \"kitchen\" { recipe = \"soup\" }\n}\n";
    let site = Site::new(&format!("{meta}resource \"kitchen_pot\" \"wok\" {{ name = \"wok\" }}"));
    site.apply();
    assert!(site.done().contains(&"plan by soup".to_owned()), "{:?}", site.done());
}

#[test]
fn what_is_unknown_in_the_plan_is_replaced_in_the_plan_already() {
    let main = |input: &str, stand: &str| {
        format!(
            "resource \"terraform_data\" \"x\" {{ input = \"{input}\" }}\n\
             resource \"kitchen_pot\" \"wok\" {{\n  name = \"wok\"\n  {stand}\n}}\n"
        )
    };
    let late =
        |wood: &str, other: &str| format!("stand = terraform_data.x.output == \"wood\" ? {wood} : {other}");
    let kinds = late("{ kind = \"wood\" }", "{ kind = \"steel\" }");
    let site = Site::new(&main("wood", &kinds));
    site.apply();
    // Whatever it turns out to be, apply does what was planned.
    for input in ["steel", "steel again", "wood"] {
        site.write(&main(input, &kinds));
        site.run(&["plan"]).succeeds().says(&["1 to add, 1 to change, 1 to destroy", "forces replacement"]);
        site.apply();
        site.no_changes();
    }
    // One that may come, and one that may go.
    site.write(&main("wood", ""));
    site.apply();
    let maybe = late("null", "{ kind = \"steel\" }");
    for input in ["steel", "wood"] {
        site.write(&main(input, &maybe));
        site.apply();
        site.no_changes();
    }
    // A whole map of them.
    let parts = |input: &str| {
        main(
            input,
            &late("{ a = { kind = \"wood\" } }", "{ a = { kind = \"steel\" } }").replace("stand", "parts"),
        )
    };
    for input in ["wood", "steel"] {
        site.write(&parts(input));
        site.apply();
        site.no_changes();
    }
}
