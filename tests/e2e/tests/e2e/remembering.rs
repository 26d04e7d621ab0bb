//! What is not evaluated twice.

use e2e::World;

use crate::support::{apply, cat, no_changes, output, plan, says, set_up, site, succeeds, survey, world};

/// How often a plan evaluates; it has to succeed and change nothing.
fn evaluations(world: &World, environment: &[(&str, &str)]) -> usize {
    let environment = [&[("TF_LOG_PROVIDER", "DEBUG")], environment].concat();
    let run = world.terraform_with(&environment, &["plan", "-input=false"]);
    succeeds(&run);
    run.text.matches("command=\"nix-instantiate --eval\"").count()
}

/// Writes a flake with one machine into a directory of control, and locks it.
fn write_locked_flake(control: &lab::Host, directory: &str) {
    let flake = "{\n  inputs.nixpkgs.url = \"path:/root/mini-nixos\";\n  outputs = { self, nixpkgs }: {\n    \
        nixosConfigurations.web = nixpkgs.lib.nixosSystem { modules = [ ({ name, ... }: {\n      \
        nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\";\n      \
        environment.etc.word.text = builtins.readFile ./word + builtins.getEnv \"WORD\"; }) ]; };\n  };\n}\n";
    control.write_file(&format!("{directory}/flake.nix"), flake).unwrap();
    control.write_file(&format!("{directory}/word"), "one").unwrap();
    let lock = ["nix", "--extra-experimental-features", "nix-command flakes", "flake", "lock"];
    let locked = control.exec(&[&lock[..], &[&format!("path:{directory}")]].concat()).unwrap();
    assert!(locked.success, "{}", locked.stderr);
}

fn of_flake(world: &World, reference: &str, machines: &[&str]) -> String {
    site(world, machines, "")
        .replace("network = \"${path.module}/network.nix\"", &format!("flake = \"{reference}\""))
}

#[test]
fn a_locked_flake_is_evaluated_once() {
    let world = world(&["web"]);
    let control = world.lab.control();
    write_locked_flake(control, "/root/flake");
    set_up(&world, &of_flake(&world, "/root/flake", &["web"]), "");
    succeeds(&apply(&world));
    // The deployment has an id by now, which a specification may ask for.
    evaluations(&world, &[]);
    assert_eq!(evaluations(&world, &[]), 0, "nothing has changed");
    assert_eq!(evaluations(&world, &[("WORD", "x")]), 0, "a pure evaluation sees no variables");
    control.write_file("/root/flake/word", "two").unwrap();
    assert!(evaluations(&world, &[]) > 0, "its content has changed");
    succeeds(&apply(&world));
    assert_eq!(cat(&world, "web", "/etc/word"), "two");
    no_changes(&world);

    // What it contains is in the store of whoever evaluates.
    let flake = control.read_file("/root/flake/flake.nix").unwrap();
    let with_key = flake.replace("environment.etc", "deployment.keys.token.text = \"word\"; environment.etc");
    control.write_file("/root/flake/flake.nix", with_key).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(
        &run,
        &["`deployment.keys` of machine \"web\" have a `text`", "copied to the Nix store", "\"token\""],
    );
}

#[test]
fn a_flake_in_a_directory_does_not_mind_what_else_is_in_the_repository() {
    let world = world(&["web"]);
    let control = world.lab.control();
    write_locked_flake(control, "/root/repository/machines");
    let git = |words: &[&str]| {
        let done = control.exec(&[&["git", "-C", "/root/repository"], words].concat()).unwrap();
        assert!(done.success, "{}", done.stderr);
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    for (reference, what, minds) in [
        ("path:/root/repository/machines", "only the directory counts", false),
        ("/root/repository/machines", "the whole repository is the flake's tree", true),
    ] {
        set_up(&world, &of_flake(&world, reference, &["web"]), "");
        succeeds(&apply(&world));
        evaluations(&world, &[]);
        assert_eq!(evaluations(&world, &[]), 0, "{reference}: nothing has changed");
        control.write_file("/root/repository/README.md", what).unwrap();
        git(&["add", "."]);
        assert_eq!(evaluations(&world, &[]) > 0, minds, "{reference}: {what}");
        no_changes(&world);
    }
}

#[test]
fn of_a_flake_only_those_are_evaluated_again_that_read_what_has_changed() {
    let world = world(&["db", "web"]);
    let control = world.lab.control();
    let at = |name: &str| format!("/root/repository/site/{name}");
    let write = |name: &str, text: &str| control.write_file(&at(name), text).unwrap();
    let run = |words: &[&str]| {
        let done = control.exec(words).unwrap();
        assert!(done.success, "{}", done.stderr);
        done.stdout.trim().to_owned()
    };
    let git = |words: &[&str]| {
        let who = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
        run(&[&["git", "-C", "/root/repository"], &who[..], words].concat())
    };
    let flake = |more: &str| {
        let machine = "n: nixpkgs.lib.nixosSystem { specialArgs = { inherit self; }; modules = [ (./. + \
                       \"/${n}.nix\") { nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \
                       \"24.11\"; } ]; }";
        format!(
            "{{\n  inputs.nixpkgs.url = \"path:/root/mini-nixos\";\n  outputs = {{ self, nixpkgs }}: let \
             machine = {machine}; in {{\n    nixosConfigurations = {{ db = machine \"db\"; web = machine \
             \"web\"; }};{more}\n  }};\n}}\n"
        )
    };
    let etc = |name: &str, value: &str| {
        format!("{{ self, lib, ... }}: {{ environment.etc.{name}.text = {value}; }}")
    };
    write("flake.nix", &flake(""));
    write("db.nix", &etc("word", "\"db\""));
    let web = "{ lib, ... }: { environment.etc.greeting.source = ./greeting;\n  environment.etc.word.text = \
               builtins.readFile ./word + lib.optionalString (builtins.pathExists ./more) \"more\"; }";
    write("web.nix", web);
    write("greeting", "hello");
    write("word", "one");
    let nix = ["nix", "--extra-experimental-features", "nix-command flakes"];
    run(&[&nix[..], &["flake", "lock", &format!("path:{}", at(""))]].concat());
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    let provider = "provider \"nixos\" { nix = { evaluation = { cache = \"read_set\" } } }\n";
    set_up(&world, &(of_flake(&world, "/root/repository/site", &["db", "web"]) + provider), "");
    succeeds(&apply(&world));
    evaluations(&world, &[]);
    let costs = |what: &str, expected: usize| {
        git(&["add", "."]);
        assert_eq!(evaluations(&world, &[]), expected, "{what}");
        assert_eq!(evaluations(&world, &[]), 0, "{what} is known");
    };
    costs("nothing", 0);
    write("../README.md", "not read");
    costs("a file that nobody read", 0);
    // Whether there is one can be asked without a look at it.
    git(&["commit", "--quiet", "--message", "one"]);
    costs("a first revision", 2);
    write("../README.md", "not read either");
    costs("what was known before", 0);
    git(&["commit", "--quiet", "--message", "two"]);
    costs("another revision", 0);
    write("word", "two");
    costs("a file of web", 1);
    write("more", "");
    costs("a file that web had looked for in vain", 1);
    let changes = plan(&world).text;
    assert!(changes.contains("word") && !changes.contains("greeting"), "{changes}");
    succeeds(&apply(&world));
    assert_eq!(cat(&world, "web", "/etc/word"), "twomore");
    write("flake.nix", &flake(" packages = { };"));
    costs("the flake itself", 2);

    // What asks which tree it is in is evaluated with every other tree, and knows the right one.
    let tree = "toString [ (self.rev or \"none\") (self.revCount or 0) self.lastModified ]";
    write("db.nix", &etc("tree", tree));
    costs("a file of db", 1);
    git(&["commit", "--quiet", "--message", "three"]);
    costs("a revision that db asks for, and what web has become since", 2);
    succeeds(&apply(&world));
    let expected = git(&["log", "--max-count=1", "--format=%H 3 %ct"]);
    assert_eq!(cat(&world, "db", "/etc/tree"), expected);

    // What is not there is an answer, too.
    write("db.nix", &etc("state", "self.rev or \"dirty\""));
    costs("a file of db", 1);
    succeeds(&apply(&world));
    assert_eq!(cat(&world, "db", "/etc/state"), "dirty");
    git(&["commit", "--quiet", "--message", "four"]);
    succeeds(&apply(&world));
    assert_eq!(cat(&world, "db", "/etc/state"), git(&["rev-parse", "HEAD"]));

    // So is what a path into the tree gets into.
    write("db.nix", &etc("where", "\"${toString ./db.nix} ${self}\""));
    costs("a file of db", 1);
    for text in ["another", "yet another"] {
        write("../README.md", text);
        costs("the path of the tree", 1);
        succeeds(&apply(&world));
        no_changes(&world);
        let metadata = run(&[&nix[..], &["flake", "metadata", "--json", "/root/repository/site"]].concat());
        let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
        let tree = metadata["path"].as_str().unwrap();
        assert_eq!(cat(&world, "db", "/etc/where"), format!("{tree}/site/db.nix {tree}/site"));
    }
}

#[test]
fn a_network_is_evaluated_again_when_anything_it_read_has_changed() {
    let world = world(&["db", "web"]);
    let control = world.lab.control();
    let at = |name: &str| format!("{}/{name}", e2e::DIRECTORY);
    let cached = "provider \"nixos\" { nix = { evaluation = { cache = \"read_set\" } } }\n";
    let network = "{\n  defaults = { nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \
                   \"24.11\"; };\n  db = { };\n  web = { ... }: {\n    imports = [ ./web.nix ] ++ (if \
                   builtins.pathExists ./extra.nix then [ ./extra.nix ] else [ ]);\n    \
                   environment.etc.parts.text = toString (builtins.attrNames (builtins.readDir \
                   ./parts));\n    environment.etc.page.source = ./page.html;\n    \
                   environment.etc.linked.text = builtins.readFile ./link;\n    environment.etc.word.text \
                   = builtins.getEnv \"WORD\";\n  };\n}\n";
    for (name, text) in
        [("web.nix", "{ }"), ("parts/a", ""), ("page.html", "page"), ("target", "t"), ("other", "o")]
    {
        control.write_file(&at(name), text).unwrap();
    }
    control.exec(&["ln", "-s", "target", &at("link")]).unwrap();
    set_up(&world, &(site(&world, &["db", "web"], "") + cached), network);
    succeeds(&apply(&world));
    evaluations(&world, &[]);
    assert_eq!(evaluations(&world, &[]), 0, "nothing has changed");

    control.write_file(&at("README.md"), "not read").unwrap();
    control.write_file(&at("web.nix"), "{ }").unwrap();
    assert_eq!(evaluations(&world, &[]), 0, "nothing that was read has changed");
    let edits: [(&str, &dyn Fn()); 8] = [
        ("an imported file", &|| {
            control.write_file(&at("web.nix"), "{ environment.etc.a.text = \"a\"; }").unwrap();
        }),
        ("a file that was looked for in vain", &|| control.write_file(&at("extra.nix"), "{ }").unwrap()),
        ("a directory", &|| control.write_file(&at("parts/b"), "").unwrap()),
        ("a file that is copied", &|| control.write_file(&at("page.html"), "another").unwrap()),
        ("a link", &|| {
            control.exec(&["ln", "-sfn", "other", &at("link")]).unwrap();
        }),
        ("what a link leads to", &|| control.write_file(&at("other"), "oo").unwrap()),
        ("whether a file can be executed", &|| {
            control.exec(&["chmod", "+x", &at("page.html")]).unwrap();
        }),
        ("nixpkgs itself", &|| {
            control
                .exec(&["sh", "-c", "echo '# more' >> /root/mini-nixos/nixos/modules/services.nix"])
                .unwrap();
        }),
    ];
    for (what, edit) in edits {
        edit();
        assert!(evaluations(&world, &[]) > 0, "{what} has changed");
        assert_eq!(evaluations(&world, &[]), 0, "{what} is known");
    }
    assert!(evaluations(&world, &[("WORD", "x")]) > 0, "a variable has changed");

    // Only web depends on what changed; once each was evaluated alone, db is left alone.
    control.write_file(&at("web.nix"), "{ }").unwrap();
    assert_eq!(evaluations(&world, &[]), 1, "one machine has changed");

    // What is known about a derivation that is gone is worth nothing.
    succeeds(&apply(&world));
    no_changes(&world);
    control.exec(&["sh", "-c", "rm -r /root/.local/state/nixos-activator/*; nix-collect-garbage"]).unwrap();
    assert!(evaluations(&world, &[]) > 0, "the derivation was collected");
    no_changes(&world);
}

#[test]
fn a_machine_is_remembered_with_what_was_read_until_it_was_done() {
    let names = ["a", "b", "c", "d"];
    let world = world(&names);
    let control = world.lab.control();
    let edit = |name: &str, text: &str| {
        let module = format!("{{ environment.etc.mark.text = \"{text}\"; }}");
        control.write_file(&format!("{}/{name}.nix", e2e::DIRECTORY), module).unwrap();
    };
    // A process for three of them, and then one for the last.
    let provider = "provider \"nixos\" { nix = { evaluation = { cache = \"read_set\", workers = 1, memory \
                    = \"8GiB\" } } }\n";
    let network = "{\n  defaults = { nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \
                   \"24.11\"; };\n  a.imports = [ ./a.nix ];\n  b.imports = [ ./b.nix ];\n  c.imports = [ \
                   ./c.nix ];\n  d.imports = [ ./d.nix ];\n}\n";
    for name in names {
        edit(name, name);
    }
    set_up(&world, &(site(&world, &names, "") + provider), network);
    succeeds(&apply(&world));
    let mut costs = names.map(|name| {
        // As if it were the first time.
        control.exec(&["rm", "-r", "/root/.cache/nixos-activator/evaluations"]).unwrap();
        assert_eq!(evaluations(&world, &[]), 2, "three at once, and one");
        assert_eq!(evaluations(&world, &[]), 0, "nothing has changed");
        edit(name, "another");
        let first = evaluations(&world, &[]);
        edit(name, "yet another");
        assert_eq!(evaluations(&world, &[]), 1, "what was evaluated alone is known exactly");
        first
    });
    // Which comes first in a process is up to Nix: those after it may have used what was read for it.
    costs.sort_unstable();
    assert_eq!(costs, [1, 1, 2, 3]);
    succeeds(&apply(&world));
    no_changes(&world);
    for name in names {
        assert_eq!(cat(&world, name, "/etc/mark"), "yet another");
    }
}

#[test]
fn only_those_that_changed_are_asked_again_about_themselves() {
    let world = world(&[]);
    let control = world.lab.control();
    let edit = |name: &str, text: &str| {
        let module = format!("{{ environment.etc.mark.text = \"{text}\"; }}");
        control.write_file(&format!("{}/{name}.nix", e2e::DIRECTORY), module).unwrap();
    };
    let provider = "provider \"nixos\" { nix = { evaluation = { cache = \"read_set\", workers = 1 } } }\n";
    let spec = "network = \"${path.module}/network.nix\"\n  options = [\"environment.etc.mark.text\"]";
    let network = |description: &str| {
        format!(
            "{{\n  network.description = \"{description}\";\n  defaults = {{ nixpkgs.hostPlatform = \
             \"x86_64-linux\"; system.stateVersion = \"24.11\"; }};\n  db.imports = [ ./db.nix ];\n  \
             web.imports = [ ./web.nix ];\n  mail = {{ }};\n  proxy = {{ }};\n}}\n"
        )
    };
    let marks = || {
        succeeds(&apply(&world));
        let all = output(&world, "all");
        let mark = |name: &str| all["values"][name]["environment.etc.mark.text"].clone();
        (all["description"].clone(), mark("db"), mark("web"))
    };
    edit("db", "one");
    edit("web", "one");
    set_up(&world, &(survey(spec) + provider), &network("first"));
    assert_eq!(evaluations(&world, &[]), 2, "the network, and all machines at once");
    assert_eq!(evaluations(&world, &[]), 0, "nothing has changed");
    assert_eq!(marks(), ("first".into(), "one".into(), "one".into()));

    edit("web", "two");
    let first = evaluations(&world, &[]);
    assert!((1..=3).contains(&first), "{first}");
    assert_eq!(marks(), ("first".into(), "one".into(), "two".into()));
    edit("web", "three");
    assert_eq!(evaluations(&world, &[]), 1, "the network is the same, and so are the others");
    assert_eq!(marks(), ("first".into(), "one".into(), "three".into()));

    world.write("network.nix", &network("second")).unwrap();
    assert_eq!(marks(), ("second".into(), "one".into(), "three".into()));
}
