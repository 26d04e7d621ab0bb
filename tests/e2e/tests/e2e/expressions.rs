//! Functions and ephemeral resources: what stands in expressions.

use serde_json::Value as Json;

use crate::support::{HEAD, fails_saying, machine, one, set_up, site, succeeds, world};

/// The same with numbers written in one way: Nix writes 2e-07 where others write 2e-7.
fn with_plain_numbers(value: Json) -> Json {
    match value {
        Json::Number(number) => number.as_i64().map_or_else(|| number.as_f64().into(), Json::from),
        Json::Array(items) => items.into_iter().map(with_plain_numbers).collect(),
        Json::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, with_plain_numbers(value))).collect()
        }
        other => other,
    }
}

#[test]
fn to_nix_writes_what_nix_reads() {
    let world = world(&[]);
    let value = r#"{
      "a b"  = null
      if     = true
      n      = [1, -2, 0.5, 0.0000002, -9223372036854775808]
      nested = { list = [], object = {}, set = toset(["x"]), "1" = "one" }
      text   = "\"$${x}\" $y $$$${z} \\ '' é\n\t水"
    }"#;
    let main = format!(
        "{HEAD}locals {{\n  value = {value}\n}}\noutput \"nix\" {{ value = \
         provider::nixos::to_nix(local.value) }}\noutput \"json\" {{ value = jsonencode(local.value) }}\n"
    );
    set_up(&world, &main, "{ }");
    succeeds(&world.terraform(&["apply", "-auto-approve"]));
    let output = |name: &str| world.terraform(&["output", "-raw", name]).text;
    let control = world.lab.control();
    control.write_file("/root/value.nix", output("nix")).unwrap();
    let read = control.exec(&["nix-instantiate", "--eval", "--strict", "--json", "/root/value.nix"]).unwrap();
    assert!(read.success, "{}\n{}", read.stderr, output("nix"));
    let json = |text: &str| with_plain_numbers(serde_json::from_str(text).unwrap());
    assert_eq!(json(&read.stdout), json(&output("json")), "{}", output("nix"));
    world
        .write(
            "main.tf",
            &format!("{HEAD}output \"nix\" {{ value = provider::nixos::to_nix([18446744073709551616]) }}\n"),
        )
        .unwrap();
    fails_saying(&world.terraform(&["plan"]), &["Invalid value for \"value\" parameter", "64 bits"]);
}

#[test]
fn known_hosts_are_those_that_ssh_checks() {
    let world = world(&["web"]);
    let web = machine(&world, "web", "");
    let main = format!(
        "{HEAD}{web}output \"known_hosts\" {{ value = provider::nixos::known_hosts({{ web = \
         nixos_machine.web.target }}) }}\n"
    );
    set_up(&world, &main, "{ }");
    succeeds(&world.terraform(&["apply", "-auto-approve"]));
    let control = world.lab.control();
    control.write_file("/root/known", world.terraform(&["output", "-raw", "known_hosts"]).text).unwrap();
    let login = format!("root@{}", world.lab.host("web").address());
    let options =
        ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=/root/known"];
    let done = control.exec(&[&["ssh"], &options[..], &[&login, "true"]].concat()).unwrap();
    assert!(done.success, "{}", done.stderr);
}

#[test]
fn a_machine_gets_a_key_that_nothing_else_has() {
    let world = world(&["web"]);
    let deployment = "secrets = { deploy = { machines = [\"web\"], value_wo = \
                      ephemeral.nixos_ssh_key_pair.deploy.private_key, version = 1 } }";
    let main = site(&world, &["web"], deployment) + "ephemeral \"nixos_ssh_key_pair\" \"deploy\" {}\n";
    set_up(&world, &main, &one(""));
    succeeds(&world.terraform(&["apply", "-auto-approve"]));
    let host = world.lab.host("web");
    let key = host.exec(&["cat", "/run/keys/deploy"]).unwrap().stdout;
    assert!(key.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"), "{key}");
    let body = key.lines().nth(2).unwrap();
    let state = world.lab.control().read_file(&format!("{}/terraform.tfstate", e2e::DIRECTORY)).unwrap();
    assert!(!state.contains(body), "the key is in state");
    // Another run draws another key, and the machine keeps its own.
    crate::support::no_changes(&world);
    assert_eq!(host.exec(&["cat", "/run/keys/deploy"]).unwrap().stdout, key);
}
