//! What a plan says: exactly what it knows, nothing it does not, and clear words for what is wrong.

use crate::support::{
    HEAD, TWO, apply, fails_saying, machine, no_changes, one, plan, says, set_up, site, succeeds, world,
};

#[test]
fn an_unknown_argument_leaves_only_its_users_open() {
    let world = world(&["db", "web"]);
    let main = site(&world, &["db", "web"], "arguments = { greeting = terraform_data.late.output }")
        + "resource \"terraform_data\" \"late\" { input = \"late\" }\n";
    set_up(&world, &main, TWO);
    let plan = world.plan_json();
    let change = plan["resource_changes"]
        .as_array()
        .expect("a plan")
        .iter()
        .find(|change| change["address"] == "nixos_deployment.site")
        .unwrap()["change"]
        .clone();
    assert!(
        change["after"]["systems"]["db"]["toplevel"].is_string(),
        "db does not use the argument: {change}"
    );
    assert_eq!(change["after_unknown"]["systems"]["web"]["toplevel"], true, "web does: {change}");
    succeeds(&apply(&world));
    assert!(world.current_system("web").contains("nixos-system-web"));
    no_changes(&world);
}

/// What is not known at plan and turns out to be as before changes nothing, and no plan is broken by it.
#[test]
fn what_turns_out_to_be_as_before_changes_nothing() {
    let world = world(&["web"]);
    let host = world.lab.host("web");
    let target =
        format!("{{ host = \"{}\", host_public_key = \"{}\" }}", host.address(), host.host_public_key());
    let secret = "{ value_wo = \"hush\", version = \"1\" }";
    let check = "{ units = [\"multi-user.target\"], stable_for = \"0s\" }";
    // By attribute: what a configuration says, and the same by way of a resource that is made anew.
    let places = [
        ("machines", format!("{{ web = {target} }}"), "{ web = terraform_data.later.output.target }"),
        ("arguments", "{ word = \"same\" }".to_owned(), "{ word = terraform_data.later.output.word }"),
        (
            "secrets",
            format!("{{ token = {secret} }}"),
            "{ token = { value_wo = \"hush\", version = terraform_data.later.output.one } }",
        ),
        ("secrets", format!("{{ token = {secret} }}"), "{ token = terraform_data.later.output.secret }"),
        ("health_checks", format!("{{ up = {check} }}"), "{ up = terraform_data.later.output.check }"),
        ("network", "\"network.nix\"".to_owned(), "terraform_data.later.output.network"),
        ("specialisations", "null".to_owned(), "terraform_data.later.output.nothing"),
        ("action", "\"switch\"".to_owned(), "terraform_data.later.output.switch"),
        ("timeouts", "{ create = \"10m\" }".to_owned(), "terraform_data.later.output.timeouts"),
    ];
    let site = |run: usize, open: Option<usize>| {
        let mut said: std::collections::BTreeMap<&str, &str> =
            places.iter().map(|(name, known, _)| (*name, known.as_str())).collect();
        if let Some((name, _, open)) = open.and_then(|open| places.get(open)) {
            said.insert(name, open);
        }
        let lines: String = said.iter().map(|(name, value)| format!("  {name} = {value}\n")).collect();
        format!(
            "{HEAD}resource \"terraform_data\" \"later\" {{\n  triggers_replace = {run}\n  input = {{\n    \
             target = {target}\n    word = \"same\"\n    one = \"1\"\n    secret = {secret}\n    check = \
             {check}\n    network = \"network.nix\"\n    nothing = null\n    switch = \"switch\"\n    \
             timeouts = {{ create = \"10m\" }}\n  }}\n}}\nresource \"nixos_deployment\" \"site\" \
             {{\n{lines}}}\n"
        )
    };
    set_up(&world, &site(0, None), &one("environment.etc.word.text = arguments.word;"));
    succeeds(&apply(&world));
    let profile = || host.exec(&["readlink", "/nix/var/nix/profiles/system"]).unwrap().stdout;
    let (system, generation) = (world.current_system("web"), profile());
    for (open, (_, _, said)) in places.iter().enumerate() {
        world.write("main.tf", &site(open + 1, Some(open))).unwrap();
        let done = apply(&world);
        assert_eq!(done.code, 0, "{said}: {}", done.text);
        no_changes(&world);
        assert_eq!((world.current_system("web"), profile()), (system.clone(), generation.clone()), "{said}");
    }
}

#[test]
fn for_each_and_target_work_as_everywhere() {
    let world = world(&["db", "web"]);
    let main = format!(
        "{HEAD}variable \"machines\" {{ type = map(object({{ host = string, host_public_key = string }})) \
         }}\nresource \"nixos_machine\" \"this\" {{\n  for_each = var.machines\n  name = each.key\n  ssh = \
         each.value\n}}\nresource \"nixos_deployment\" \"site\" {{\n  network = \
         [\"${{path.module}}/network.nix\"]\n  machines = {{ for name, machine in nixos_machine.this : \
         name => machine.target }}\n}}\n"
    );
    world.write("terraform.tfvars.json", &world.machines(&["db", "web"])).unwrap();
    set_up(&world, &main, TWO);
    let run = world.terraform(&["apply", "-auto-approve", "-target=nixos_machine.this[\"db\"]"]);
    succeeds(&run);
    says(&run, &["1 added"]);
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn a_specification_feeds_the_machines_it_describes() {
    let world = world(&["web"]);
    let host = world.lab.host("web");
    let main = format!(
        "{HEAD}data \"nixos_network\" \"spec\" {{\n  network = \"${{path.module}}/network.nix\"\n  options \
         = [\"services.openssh.ports\"]\n}}\nresource \"nixos_machine\" \"this\" {{\n  for_each = \
         data.nixos_network.spec.nodes\n  name = each.key\n  ssh = {{ host = each.value.target_host, \
         host_public_key = \"{}\" }}\n}}\nresource \"nixos_deployment\" \"site\" {{\n  network = \
         \"${{path.module}}/network.nix\"\n  machines = {{ for name, machine in nixos_machine.this : name \
         => machine.target }}\n}}\noutput \"ports\" {{ value = \
         data.nixos_network.spec.values.web[\"services.openssh.ports\"] }}\n",
        host.host_public_key()
    );
    set_up(&world, &main, &one(&format!("deployment.targetHost = \"{}\";", host.address())));
    succeeds(&apply(&world));
    let ports = world.terraform(&["output", "-json", "ports"]);
    assert_eq!(ports.text.trim(), "[22]");
    no_changes(&world);
}

#[test]
fn a_flake_is_a_specification_too() {
    let world = world(&["web"]);
    let control = world.lab.control();
    let main = format!(
        "{HEAD}{}resource \"nixos_deployment\" \"site\" {{\n  flake = \"/root/flake\"\n  machines = {{ web = \
         nixos_machine.web.target }}\n  arguments = {{ word = \"flaky\" }}\n}}\n",
        machine(&world, "web", "")
    );
    let flake = "{\n  inputs.nixpkgs.url = \"path:/root/mini-nixos\";\n  outputs = { self, nixpkgs }: {\n    \
        nixosConfigurations.web = nixpkgs.lib.nixosSystem { modules = [ ({ arguments, name, ... }: {\n      \
        nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\";\n      \
        environment.etc.word.text = \"${name}: ${arguments.word}\"; }) ]; };\n  };\n}\n";
    control.write_file("/root/flake/flake.nix", flake).unwrap();
    set_up(&world, &main, "");
    succeeds(&apply(&world));
    assert_eq!(world.lab.host("web").exec(&["cat", "/etc/word"]).unwrap().stdout, "web: flaky");
    no_changes(&world);
}

#[test]
fn mistakes_in_the_specification_are_shown_where_they_are() {
    let world = world(&["db", "web"]);
    set_up(&world, &site(&world, &["web"], ""), "{ web = { ");
    fails_saying(
        &plan(&world),
        &["The specification does not evaluate", "syntax error", "network.nix", "network = "],
    );

    world.write("network.nix", &one("environment.etc.x.text = 42;")).unwrap();
    fails_saying(
        &plan(&world),
        &[
            "The configuration of machine \"web\" does not evaluate",
            "environment.etc.x.text",
            "is not of type",
        ],
    );
    world.write("network.nix", &one("environment.etc.x.text = throw \"on purpose\";")).unwrap();
    fails_saying(
        &plan(&world),
        &["The configuration of machine \"web\" does not evaluate", "on purpose", "while evaluating"],
    );
    world.write("network.nix", &one("no.such.option = true;")).unwrap();
    fails_saying(&plan(&world), &["does not exist"]);
    world
        .write("network.nix", &one("assertions = [ { assertion = false; message = \"two is three\"; } ];"))
        .unwrap();
    fails_saying(&plan(&world), &["Failed assertions", "two is three"]);

    world.write("network.nix", "{ needed, ... }: { web = { }; }").unwrap();
    fails_saying(&plan(&world), &["takes the argument `needed`", "arguments"]);

    world.write("network.nix", "{ other = { }; }").unwrap();
    fails_saying(&plan(&world), &["The specification has no node \"web\"", "`other`"]);

    world.write("main.tf", &site(&world, &["web"], "").replace("/network.nix", "/nowhere.nix")).unwrap();
    fails_saying(&plan(&world), &["The network file cannot be read", "nowhere.nix", "No such file"]);

    // web looks at db, which has no machine.
    world.write("network.nix", TWO).unwrap();
    world.write("main.tf", &site(&world, &["web"], "")).unwrap();
    fails_saying(
        &plan(&world),
        &[
            "Node \"web\" needs machine \"db\", which is not in `machines`",
            "private_ipv4",
            "db = nixos_machine.db.target",
        ],
    );
    // db alone does not; the other node is mentioned.
    world.write("main.tf", &site(&world, &["db"], "")).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["Some nodes have no machine", "\"web\""]);
}

#[test]
fn mistakes_in_the_configuration_name_the_attribute() {
    let world = world(&["web"]);
    let with = |deployment: &str| {
        world.write("main.tf", &site(&world, &["web"], deployment)).unwrap();
        plan(&world)
    };
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    fails_saying(
        &with("action = \"swich\""),
        &["Invalid value for `action`", "Found \"swich\", expected one of \"switch\""],
    );
    fails_saying(&with("arguments = \"x\""), &["`arguments` is not an object"]);
    fails_saying(
        &with("timeouts = { create = \"soon\" }"),
        &["`timeouts.create`", "a duration such as \"90s\""],
    );
    fails_saying(&with("flake = \".\""), &["Only one of `network`, `flake`, `configuration` can be set"]);
    let unknown = format!("{HEAD}{}", machine(&world, "web", "").replace("ssh =", "tags ="));
    world.write("main.tf", &unknown).unwrap();
    fails_saying(&plan(&world), &["An argument named \"tags\" is not expected here"]);
    let bad = format!("{HEAD}resource \"nixos_machine\" \"web\" {{ name = \"web 1\" }}\n");
    world.write("main.tf", &bad).unwrap();
    fails_saying(
        &plan(&world),
        &["One of `ssh`, `ec2` is missing", "Invalid value for `name`", "Found \"web 1\""],
    );
    let bad = format!(
        "{HEAD}resource \"nixos_machine\" \"web\" {{\n  name = \"web\"\n  ssh = {{ host = \"10.88.0.2\", \
         key = \"admin\" }}\n}}\n"
    );
    world.write("main.tf", &bad).unwrap();
    fails_saying(&apply(&world), &["There is no private key \"admin\"", "ssh.private_keys"]);
}

#[test]
fn the_examples_pass_their_own_tests() {
    for (example, passed) in [
        ("quickstart", "2 passed, 0 failed"),
        ("migrate-from-nixops", "1 passed, 0 failed"),
        ("two-regions", "1 passed, 0 failed"),
    ] {
        let world = world(&["db", "web"]);
        world.use_example(example).unwrap();
        succeeds(&world.terraform(&["init"]));
        succeeds(&world.terraform(&["fmt", "-check", "-diff"]));
        succeeds(&world.terraform(&["validate"]));
        let run = world.terraform(&["test"]);
        succeeds(&run);
        says(&run, &[passed]);
    }
}

#[test]
fn every_attribute_is_described_and_secrets_are_marked() {
    let world = world(&[]);
    set_up(&world, HEAD, "");
    let schema = world.terraform(&["providers", "schema", "-json"]);
    let schema: serde_json::Value = serde_json::from_str(&schema.text).expect("a schema");
    let provider = &schema["provider_schemas"][e2e::SOURCE];
    let mut missing = vec![];
    let mut count = 0;
    undescribed(&provider["provider"]["block"], "provider", &mut missing, &mut count);
    for kind in ["resource_schemas", "data_source_schemas"] {
        for (name, schema) in provider[kind].as_object().expect("schemas") {
            undescribed(&schema["block"], name, &mut missing, &mut count);
        }
    }
    assert!(count > 80, "only {count} attributes were found");
    assert_eq!(missing, Vec::<String>::new(), "attributes without a description");
    let keys =
        &provider["provider"]["block"]["attributes"]["ssh"]["nested_type"]["attributes"]["private_keys"];
    assert_eq!(keys["sensitive"], true);
}

fn undescribed(object: &serde_json::Value, path: &str, missing: &mut Vec<String>, count: &mut usize) {
    for (name, attribute) in object["attributes"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        *count += 1;
        if attribute["description"].as_str().unwrap_or_default().is_empty() {
            missing.push(path.clone());
        }
        undescribed(&attribute["nested_type"], &path, missing, count);
    }
}

#[test]
fn options_that_are_known_later_are_waited_for() {
    let world = world(&["web"]);
    let options = "options = [\"ServerAliveInterval=${terraform_data.seconds.output}\"], host_public_key";
    let machine = machine(&world, "web", "").replace("host_public_key", options);
    set_up(
        &world,
        &format!("{HEAD}resource \"terraform_data\" \"seconds\" {{\n  input = \"5\"\n}}\n{machine}"),
        "",
    );
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn settings_of_nix_that_are_known_later_are_waited_for() {
    let world = world(&["web"]);
    let provider = "resource \"terraform_data\" \"nixpkgs\" {\n  input = \"/root/mini-nixos\"\n}\nprovider \
                    \"nixos\" {\n  nix = { nix_path = [\"nixpkgs=${terraform_data.nixpkgs.output}\"] \
                    }\n}\n";
    set_up(&world, &format!("{}{provider}", site(&world, &["web"], "")), &one(""));
    says(&plan(&world), &["+ toplevel = (known after apply)"]);
    succeeds(&apply(&world));
    no_changes(&world);
}
