//! Machines and deployments that exist before Terraform knows of them.

use crate::support::{
    HEAD, apply, fails_saying, machine, no_changes, one, plan, says, set_up, site, succeeds, world,
};

#[test]
fn what_runs_already_is_imported_without_touching_it() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    let system = world.lab.host("web").exec(&["readlink", "/nix/var/nix/profiles/system"]).unwrap().stdout;
    world.lab.control().exec(&["rm", &format!("{}/terraform.tfstate", e2e::DIRECTORY)]).unwrap();

    let trust = "provider \"nixos\" { ssh = { host_key_policy = \"accept_new\" } }\n";
    world.write("main.tf", &format!("{}{trust}", site(&world, &["web"], ""))).unwrap();
    let address = world.lab.host("web").address();
    succeeds(&world.terraform(&["import", "nixos_machine.web", &format!("root@{address}")]));
    succeeds(&world.terraform(&["import", "nixos_deployment.site", &format!("web=root@{address}")]));
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["0 added", "0 destroyed"]);
    no_changes(&world);
    let same = world.lab.host("web").exec(&["readlink", "/nix/var/nix/profiles/system"]).unwrap().stdout;
    assert_eq!(same, system, "no new generation");

    fails_saying(&world.terraform(&["import", "nixos_machine.other", "a b"]), &["nixos_machine.other"]);
    world.write("main.tf", &format!("{HEAD}{trust}{}", machine(&world, "web", ""))).unwrap();
    world.terraform(&["state", "rm", "nixos_machine.web"]);
    fails_saying(
        &world.terraform(&["import", "nixos_machine.web", "a b"]),
        &["This is not the id of a machine", "expected [user@]host[:port]"],
    );
}

#[test]
fn a_deployment_of_nixops_is_taken_over() {
    let world = world(&["db", "web"]);
    world.use_example("migrate-from-nixops").unwrap();
    let address = |name: &str| world.lab.host(name).address().to_string();
    let export = world.lab.control().read_file(&format!("{}/nixops-export.json", e2e::DIRECTORY)).unwrap();
    let export = export.replace("192.0.2.10", &address("db")).replace("192.0.2.11", &address("web"));
    world.write("nixops-export.json", &export).unwrap();
    let keys: serde_json::Map<_, _> = ["db", "web"]
        .iter()
        .map(|name| ((*name).to_owned(), world.lab.host(name).host_public_key().into()))
        .collect();
    world
        .write("terraform.tfvars.json", &serde_json::json!({ "host_public_keys": keys }).to_string())
        .unwrap();
    world.write("trust.tf", "provider \"nixos\" { ssh = { host_key_policy = \"accept_new\" } }\n").unwrap();
    succeeds(&world.terraform(&["init"]));
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["3 to import", "0 to add", "0 to destroy", "which was not deployed from here"]);
    succeeds(&apply(&world));
    no_changes(&world);
    let cat = |host: &str, path: &str| world.lab.host(host).exec(&["cat", path]).unwrap().stdout;
    assert_eq!(cat("db", "/etc/release"), "19.09", "what NixOps remembered");
    assert_eq!(cat("web", "/etc/release"), "20.03", "what NixOps remembered");
    assert_eq!(cat("web", "/etc/database"), address("db"));
    assert_eq!(world.terraform(&["output", "-json", "instance_types"]).text.trim(), r#"{"web":"t3.small"}"#);
    let state = world.lab.control().read_file(&format!("{}/terraform.tfstate", e2e::DIRECTORY)).unwrap();
    assert!(state.contains("19.09"));
}
