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
    succeeds(&world.terraform(&["init"]));
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["3 to import", "0 to add", "0 to destroy", "which was not deployed from here"]);
    succeeds(&apply(&world));
    no_changes(&world);
    let uuid = "3ae3c1d4-0f4c-11ef-8d7a-0242ac110002";
    assert_eq!(world.resource("nixos_deployment.site")["id"], uuid, "modules see the uuid that NixOps gave");
    let cat = |host: &str, path: &str| world.lab.host(host).exec(&["cat", path]).unwrap().stdout;
    assert_eq!(cat("db", "/etc/release"), "19.09", "what NixOps remembered");
    assert_eq!(cat("web", "/etc/release"), "20.03", "what NixOps remembered");
    assert_eq!(cat("web", "/etc/database"), address("db"));
    assert_eq!(world.terraform(&["output", "-json", "instance_types"]).text.trim(), r#"{"web":"t3.small"}"#);
    let state = world.lab.control().read_file(&format!("{}/terraform.tfstate", e2e::DIRECTORY)).unwrap();
    assert!(state.contains("19.09"));
}

/// What the configuration says, as the id of its import, so that nothing is left to do afterwards.
#[test]
fn importing_a_configuration_leaves_nothing_to_change() {
    let world = world(&["web"]);
    let host = world.lab.host("web");
    let (address, key) = (host.address(), host.host_public_key());
    let main = |imports: &str| {
        format!(
            "{HEAD}
locals {{
  web = {{
    name       = \"web\"
    ssh        = {{ host = \"{address}\", user = \"root\", host_public_key = \"{key}\" }}
    target_env = \"none\"
  }}
  site = {{
    network         = [\"${{path.module}}/network.nix\"]
    arguments       = {{ word = \"hello\", ports = [80, 443] }}
    machines        = {{ web = nixos_machine.web.target }}
    confirm_timeout = \"20s\"
    health_checks   = {{ up = {{ tcp = \"127.0.0.1:22\" }} }}
    specialisations = {{ web = \"loud\" }}
  }}
}}
resource \"nixos_machine\" \"web\" {{
  name       = local.web.name
  ssh        = local.web.ssh
  target_env = local.web.target_env
}}
resource \"nixos_deployment\" \"site\" {{
  network         = local.site.network
  arguments       = local.site.arguments
  machines        = local.site.machines
  confirm_timeout = local.site.confirm_timeout
  health_checks   = local.site.health_checks
  specialisations = local.site.specialisations
}}
{imports}"
        )
    };
    let network = one(
        "environment.etc.word.text = arguments.word; environment.etc.id.text = config.deployment.arguments.word;
         specialisation.loud.configuration.environment.etc.loud.text = \"!\";",
    );
    set_up(&world, &main(""), &network.replace("{ ... }: { web", "{ word, ports }: { web"));
    succeeds(&apply(&world));
    no_changes(&world);
    let id = world.resource("nixos_deployment.site")["id"].as_str().unwrap().to_owned();
    let system = world.current_system("web");
    world.lab.control().exec(&["rm", &format!("{}/terraform.tfstate", e2e::DIRECTORY)]).unwrap();

    let imports = format!(
        "import {{\n  to = nixos_machine.web\n  id = jsonencode(local.web)\n}}\nimport {{\n  to = \
         nixos_deployment.site\n  id = jsonencode(merge(local.site, {{ id = \"{id}\" }}))\n}}\n"
    );
    world.write("main.tf", &main(&imports)).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["Plan: 2 to import, 0 to add, 0 to change, 0 to destroy."]);
    succeeds(&apply(&world));
    no_changes(&world);
    assert_eq!(world.resource("nixos_deployment.site")["id"], id.as_str());
    assert_eq!(world.current_system("web"), system);

    for (written, said) in [
        ("{", &["The id is not JSON"][..]),
        ("{ \"name\": \"web\" }", &["ssh", "missing"]),
        (
            "{ \"name\": \"web\", \"ssh\": { \"hots\": \"x\" } }",
            &["`ssh`: there is no attribute \"hots\", only", "host_public_key"],
        ),
        (
            "{ \"name\": \"web\", \"ec2\": { \"region\": \"r\", \"instance_type\": \"t\" } }",
            &["A machine on EC2 is imported by the id of its instance"],
        ),
    ] {
        world.terraform(&["state", "rm", "nixos_machine.web"]);
        world.write("main.tf", &main("")).unwrap();
        fails_saying(&world.terraform(&["import", "nixos_machine.web", written]), said);
    }
}
