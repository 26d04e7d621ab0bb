//! What specifications may look like, and what is planned from them.

use crate::support::{
    HEAD, apply, cat, fails_saying, no_changes, one, output, plan, says, set_up, site, succeeds, survey,
    world,
};

/// A host key.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE";

#[test]
fn a_network_of_nixops_evaluates_unchanged() {
    let world = world(&[]);
    let arguments = "network = \"${path.module}/network.nix\"\n  arguments = { domain = \"example.org\" \
                     }\n  name = \"old\"\n  options = [\"environment.etc.greeting.text\", \
                     \"environment.etc.deployment.text\", \"environment.etc.nodes.text\", \
                     \"environment.etc.machines.text\", \"environment.etc.key.text\", \
                     \"environment.etc.\\\"a.dotted.name\\\".text\"]";
    world.write("nixops-more.nix", include_str!("../../../fixtures/networks/nixops-more.nix")).unwrap();
    world.write("nixops.nix", include_str!("../../../fixtures/networks/nixops.nix")).unwrap();
    set_up(&world, &survey(arguments), include_str!("../../../fixtures/networks/nixops.nix"));
    succeeds(&apply(&world));
    let all = output(&world, "all");
    assert_eq!(all["description"], "An old network");
    let names: Vec<&String> = all["nodes"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["cache-1.internal", "db", "web"]);

    let web = &all["deployment"]["web"];
    for (path, expected) in [
        ("/targetEnv", serde_json::json!("ec2")),
        ("/targetHost", serde_json::json!("web")),
        ("/targetPort", serde_json::json!(2222)),
        ("/targetUser", serde_json::json!("deploy")),
        ("/privilegeEscalationCommand", serde_json::json!(["doas"])),
        ("/sshOptions", serde_json::json!(["-o", "Compression=yes"])),
        ("/provisionSSHKey", serde_json::json!(false)),
        ("/hasFastConnection", serde_json::json!(true)),
        ("/alwaysActivate", serde_json::json!(false)),
        ("/owners", serde_json::json!(["ops@example.org", "web@example.org"])),
        ("/name", serde_json::json!("old")),
        ("/route53/hostName", serde_json::json!("web.example.org")),
        ("/ec2/region", serde_json::json!("eu-west-1")),
        ("/ec2/instanceType", serde_json::json!("m5.large")),
        ("/ec2/keyPair", serde_json::json!("admin")),
        ("/ec2/securityGroups", serde_json::json!(["web"])),
        ("/ec2/elasticIPv4", serde_json::json!("front")),
        ("/ec2/ebsInitialRootDiskSize", serde_json::json!(30)),
        ("/ec2/tags", serde_json::json!({ "Name": "web", "Team": "ops" })),
        ("/ec2/blockDeviceMapping/~1dev~1xvdg/size", serde_json::json!(10)),
        ("/ec2/blockDeviceMapping/~1dev~1xvdf/size", serde_json::json!(20)),
        ("/ec2/spotInstancePrice", serde_json::json!(0)),
        ("/keys/certificate/user", serde_json::json!("nginx")),
        ("/keys/certificate/path", serde_json::json!("/run/keys/certificate")),
        ("/keys/database/path", serde_json::json!("/var/keys/database")),
        ("/keys/database/keyCommand", serde_json::json!(["pass", "database"])),
    ] {
        assert_eq!(web.pointer(path), Some(&expected), "{path} of {web:#}");
    }
    let db = &all["deployment"]["db"];
    assert_eq!(db["targetUser"], "root");
    assert_eq!(db["targetPort"], 22);
    assert_eq!(db["virtualbox"]["memorySize"], 2048);
    assert_eq!(db["virtualbox"]["disks"]["disk2"]["size"], 4096);
    assert_eq!(db["virtualbox"]["sharedFolders"]["home"]["readOnly"], true);
    assert_eq!(all["deployment"]["cache-1.internal"]["libvirtd"]["networks"][0], "bridge0");

    let resources = &all["network_resources"];
    assert_eq!(resources["s3Buckets"]["assets"]["name"], "assets-example.org");
    assert_eq!(resources["s3Buckets"]["assets"]["arn"], "arn:aws:s3:::assets-example.org");
    assert_eq!(
        resources["s3Buckets"]["assets"]["policy"],
        "{\"Resource\":\"arn:aws:s3:::assets-example.org/*\"}"
    );
    assert_eq!(resources["ec2KeyPairs"]["admin"]["region"], "eu-west-1");

    let values = &all["values"];
    assert_eq!(values["web"]["environment.etc.greeting.text"], "default of web");
    assert_eq!(values["db"]["environment.etc.greeting.text"], "from the second file");
    assert_eq!(values["web"]["environment.etc.deployment.text"], "old old arn:aws:s3:::assets-example.org");
    assert_eq!(values["web"]["environment.etc.nodes.text"], "cache-1.internal db web");
    assert_eq!(values["web"]["environment.etc.machines.text"], "db");
    assert_eq!(values["web"]["environment.etc.key.text"], "/run/keys/token");
    assert_eq!(values["web"]["environment.etc.\"a.dotted.name\".text"], "found");

    let state = world.lab.control().read_file(&format!("{}/terraform.tfstate", e2e::DIRECTORY)).unwrap();
    assert!(!state.contains("not for the state"), "secrets of the network are in the state");
}

#[test]
fn what_would_be_dangerous_to_ignore_is_refused() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one("deployment.encryptedLinksTo = [ \"db\" ];"));
    fails_saying(&plan(&world), &["machine \"web\" does not evaluate", "encryptedLinksTo", "in the clear"]);
}

#[test]
fn the_physical_part_of_an_old_network_drives_its_machines() {
    let world = world(&["db", "web"]);
    let keys: Vec<String> = ["db", "web"]
        .iter()
        .map(|name| format!("{name} = \"{}\"", world.lab.host(name).host_public_key()))
        .collect();
    let main = format!(
        "{HEAD}data \"nixos_network\" \"site\" {{ network = \"${{path.module}}/network.nix\" }}\nlocals {{ \
         keys = {{ {} }} }}\nresource \"nixos_machine\" \"this\" {{\n  for_each = \
         data.nixos_network.site.deployment\n  name = each.key\n  ssh = {{ host = each.value.targetHost, \
         user = each.value.targetUser, port = each.value.targetPort, host_public_key = \
         local.keys[each.key] }}\n}}\nresource \"nixos_deployment\" \"site\" {{\n  network = \
         \"${{path.module}}/network.nix\"\n  machines = {{ for name, machine in nixos_machine.this : name \
         => machine.target }}\n}}\n",
        keys.join(", ")
    );
    let network = format!(
        "{{ network.description = \"two\"; defaults = {{ nixpkgs.hostPlatform = \"x86_64-linux\"; \
         system.stateVersion = \"24.11\"; }};\ndb.deployment.targetHost = \"{}\"; \
         web.deployment.targetHost = \"{}\"; }}",
        world.lab.host("db").address(),
        world.lab.host("web").address()
    );
    set_up(&world, &main, &network);
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["3 to add"]);
    succeeds(&apply(&world));
    no_changes(&world);
    let hosts = cat(&world, "web", "/etc/hosts");
    assert!(hosts.contains("10.88.0.2 db db-unencrypted"), "{hosts}");
}

#[test]
fn every_broken_machine_is_named_and_the_others_too() {
    let world = world(&["a", "b", "c"]);
    let network = |b: &str, c: &str| {
        format!(
            "{{ defaults = {{ nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\"; }};\n\
             a = {{ }};\nb = {{ ... }}: {b};\nc = {{ lib, ... }}: {c};\n}}"
        )
    };
    // One error that Nix can catch, one that it cannot.
    set_up(
        &world,
        &site(&world, &["a", "b", "c"], ""),
        &network(
            "{ environment.etc.x.text = throw \"b is to blame\"; }",
            "{ environment.etc.x.text = lib.noSuchThing; }",
        ),
    );
    fails_saying(
        &plan(&world),
        &[
            "machine \"b\" does not evaluate",
            "b is to blame",
            "machine \"c\" does not evaluate",
            "attribute 'noSuchThing' missing",
        ],
    );
    world.write("network.nix", &network("{ }", "{ }")).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);

    // What they say about themselves is asked apart from their systems.
    world.write("main.tf", &survey("network = \"${path.module}/network.nix\"")).unwrap();
    let broken = network("{ deployment.targetHost = { }.noSuchName; }", "{ imports = [ ./no-such.nix ]; }");
    world.write("network.nix", &broken).unwrap();
    let run = plan(&world);
    let expected = [
        "machine \"b\" does not evaluate",
        "attribute 'noSuchName' missing",
        "machine \"c\" does not evaluate",
        "no-such.nix",
    ];
    fails_saying(&run, &expected);
    assert!(!run.text.contains("machine \"a\""), "{}", run.text);
    // What Nix can catch is said, too, also of a single option.
    let broken = network("throw \"b is to blame\"", "{ deployment.targetHost = throw \"and so is c\"; }");
    world.write("network.nix", &broken).unwrap();
    let run = plan(&world);
    fails_saying(
        &run,
        &[
            "machine \"b\" does not evaluate",
            "b is to blame",
            "machine \"c\" does not evaluate",
            "and so is c",
        ],
    );
    assert!(!run.text.contains("machine \"a\""), "{}", run.text);

    // One that all share is said once.
    let shared = network("{ }", "{ }").replacen(
        "defaults = {",
        "defaults = { deployment.targetHost = { }.noSuchName; environment.etc.x.text = { }.noSuchName;",
        1,
    );
    world.write("network.nix", &shared).unwrap();
    for main in [survey("network = \"${path.module}/network.nix\""), site(&world, &["a", "b", "c"], "")] {
        world.write("main.tf", &main).unwrap();
        let run = plan(&world);
        let expected =
            ["machines \"a\", \"b\" and 1 more do not evaluate", "it is the same for \"b\", \"c\""];
        fails_saying(&run, &expected);
        assert_eq!(run.text.matches("Error: ").count(), 1, "{}", run.text);
    }
}

#[test]
fn one_configuration_serves_many_machines() {
    let world = world(&["db", "web"]);
    let main = site(&world, &["db", "web"], "arguments = { word = \"both\" }").replace(
        "network = \"${path.module}/network.nix\"",
        "configuration = \"${path.module}/configuration.nix\"",
    );
    world
        .write(
            "configuration.nix",
            "{ name, nodes, arguments, ... }: {\n  nixpkgs.hostPlatform = \"x86_64-linux\"; \
             system.stateVersion = \"24.11\";\n  environment.etc.word.text = \"${name} of ${toString \
             (builtins.attrNames nodes)}: ${arguments.word}\";\n}\n",
        )
        .unwrap();
    set_up(&world, &main, "");
    succeeds(&apply(&world));
    assert_eq!(cat(&world, "db", "/etc/word"), "db of db web: both");
    assert_eq!(cat(&world, "web", "/etc/word"), "web of db web: both");
    no_changes(&world);
}

/// A flake's machines are as the flake builds them: a new one among them changes only those that ask for the names of
/// all others.
#[test]
fn a_new_machine_of_a_flake_changes_no_other() {
    let world = world(&[]);
    let control = world.lab.control();
    let flake = "{\n  inputs.nixpkgs.url = \"path:/root/mini-nixos\";\n  outputs = { self, nixpkgs }: \
                 let\n    machine = body: nixpkgs.lib.nixosSystem { modules = [ body {\n      \
                 nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\"; } ]; };\n  in \
                 {\n    nixosConfigurations = builtins.mapAttrs (_: machine) {\n      a = { lib, ... }: { \
                 networking.hostName = lib.mkDefault \"web\"; }; b = { };\n      c = { \
                 deployment.peers.hosts.enable = true; }; d = { }; };\n  };\n}\n";
    control.write_file("/root/flake/flake.nix", flake).unwrap();
    let systems = |names: &[&str]| {
        let machines: String = names
            .iter()
            .enumerate()
            .map(|(index, name)| {
                format!(
                    "{name} = {{ host = \"192.0.2.{index}\", private_ipv4 = \"10.0.0.{index}\", \
                     host_public_key = \"{KEY}\" }}\n"
                )
            })
            .collect();
        let deployment = format!(
            "resource \"nixos_deployment\" \"site\" {{\n  flake = \"/root/flake\"\n  machines = \
             {{\n{machines}}}\n}}\n"
        );
        set_up(&world, &format!("{HEAD}{deployment}"), "");
        let plan = world.plan_json();
        let changes = plan["resource_changes"].as_array().unwrap_or_else(|| panic!("{plan}")).clone();
        changes[0]["change"]["after"]["systems"].clone()
    };
    let (three, four) = (systems(&["a", "b", "c"]), systems(&["a", "b", "c", "d"]));
    let toplevel =
        |systems: &serde_json::Value, name: &str| systems[name]["toplevel"].as_str().unwrap().to_owned();
    for name in ["a", "b"] {
        assert_eq!(toplevel(&three, name), toplevel(&four, name), "{name} does not know the others");
    }
    assert_ne!(toplevel(&three, "c"), toplevel(&four, "c"), "c asks for the others");
    for name in ["a", "b"] {
        let place = format!("path:/root/flake#nixosConfigurations.{name}.config.system.build.toplevel");
        let features = ["--extra-experimental-features", "nix-command flakes"];
        let own = control.exec(&[&["nix"], &features[..], &["eval", "--raw", &place]].concat()).unwrap();
        assert_eq!(own.stdout, toplevel(&four, name), "{}", own.stderr);
    }
}

#[test]
fn flakes_of_nixops_and_colmena_are_read() {
    let world = world(&["web"]);
    let machine = "nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\";";
    let outputs = [
        (
            "nixopsConfigurations",
            format!(
                "nixopsConfigurations.default = {{ inherit nixpkgs; network.description = \"n\"; defaults \
                 = {{ {machine} }};\n      web = {{ name, arguments, ... }}: {{ environment.etc.word.text \
                 = \"nixops ${{name}} ${{arguments.word}}\"; }}; }};"
            ),
            "nixops web x",
        ),
        (
            "colmena",
            format!(
                "colmena = {{ meta = {{ nixpkgs = import nixpkgs {{ system = \"x86_64-linux\"; }}; \
                 specialArgs.extra = \"special\"; }};\n      defaults = {{ {machine} deployment.tags = [ \
                 \"all\" ]; }};\n      web = {{ name, extra, ... }}: {{ deployment.buildOnTarget = false; \
                 environment.etc.word.text = \"colmena ${{name}} ${{extra}}\"; }}; }};"
            ),
            "colmena web special",
        ),
        (
            "colmenaHive",
            format!(
                "colmenaHive.nodes.web = nixpkgs.lib.nixosSystem {{ specialArgs.name = \"web\"; modules = \
                 [ ({{ lib, name, ... }}: {{\n      options.deployment.targetHost = lib.mkOption {{ type = \
                 lib.types.str; default = \"somewhere\"; }};\n      config = {{ {machine} \
                 environment.etc.word.text = \"hive ${{name}}\"; }}; }}) ]; }};"
            ),
            "hive web",
        ),
    ];
    let control = world.lab.control();
    let all: String = outputs.iter().map(|(_, text, _)| format!("    {text}\n")).collect();
    control
        .write_file(
            "/root/flake/flake.nix",
            format!(
                "{{\n  inputs.nixpkgs.url = \"path:/root/mini-nixos\";\n  outputs = {{ self, nixpkgs }}: \
                     {{\n{all}  }};\n}}\n"
            ),
        )
        .unwrap();
    let lock = ["nix", "--extra-experimental-features", "nix-command flakes", "flake", "lock", "/root/flake"];
    let locked = control.exec(&lock).unwrap();
    assert!(locked.success, "{}", locked.stderr);
    let main = |output: &str| {
        site(&world, &["web"], "arguments = { word = \"x\" }")
            .replace("network = \"${path.module}/network.nix\"", &format!("flake = \"/root/flake{output}\""))
    };
    set_up(&world, &main(""), "");
    // Without a name the first in the documented order.
    succeeds(&apply(&world));
    assert_eq!(cat(&world, "web", "/etc/word"), "nixops web x");
    for (output, _, word) in &outputs {
        world.write("main.tf", &main(&format!("#{output}"))).unwrap();
        succeeds(&apply(&world));
        assert_eq!(cat(&world, "web", "/etc/word"), *word);
        no_changes(&world);
    }
    world.write("main.tf", &main("#nixosConfigurations")).unwrap();
    fails_saying(&plan(&world), &["does not evaluate", "has no `nixosConfigurations`", "flake = "]);
    world.write("main.tf", &main("#packages")).unwrap();
    fails_saying(&plan(&world), &["`#packages` is not a specification", "nixopsConfigurations"]);
}

#[test]
fn a_plan_builds_nothing_unless_it_may() {
    let world = world(&["web"]);
    let network =
        one("environment.etc.word.text = builtins.readFile (pkgs.writeText \"built\" \"at plan\");");
    set_up(&world, &site(&world, &["web"], ""), &network);
    fails_saying(
        &plan(&world),
        &["machine \"web\" does not evaluate", "has to be built first", "import_from_derivation = true"],
    );
    world.write("main.tf", &site(&world, &["web"], "import_from_derivation = true")).unwrap();
    succeeds(&apply(&world));
    assert_eq!(cat(&world, "web", "/etc/word"), "at plan");
    no_changes(&world);
}
