//! Machines and deployments that exist before Terraform knows of them.

use crate::support::{
    HEAD, apply, fails_saying, machine, no_changes, one, says, set_up, site, succeeds, world,
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
