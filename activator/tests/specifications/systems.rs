//! What is known about a system besides its derivation: what is in it, and what was warned of.

use nixos_activator::evaluate::System;
use nixos_activator::inventory::Inventory;

use super::*;

/// The system of machine `a`, with these lines in its configuration.
fn system(nix: &Installation, body: &str) -> System {
    let network = complete(&format!("{{ a = {{ config, lib, pkgs, ... }}: {{ BASE {body} }}; }}"));
    let outcome = Site::new(&[("network.nix", network)]).evaluate(nix, &["--machines", r#"{"a":{}}"#]);
    let found = outcome.result["nodes"]["a"]["exact"].clone();
    serde_json::from_value(found)
        .unwrap_or_else(|error| panic!("{error}: {body}\n{}\n{:#}", outcome.error, outcome.result))
}

/// Of NixOS, whose D-Bus and terminfo are looked for in the tree that all packages are linked into.
fn with_packages(packages: &str, bus: &str, more: &str) -> String {
    format!(
        "environment.systemPackages = [ {packages} ];
         environment.etc.dbus-1.source = pkgs.runCommand \"dbus-1\" {{ services = [ \"${{config.system.path}}\" {bus} ]; }} \"\";
         environment.etc.terminfo.source = \"${{config.system.path}}/share/terminfo\";
         systemd.services.dbus = {{ serviceConfig.ExecStart = \"dbus\"; unitConfig.X-Reload-Triggers = \"${{config.environment.etc.dbus-1.source}}\"; }};
         system.activationScripts.etc = \"setup-etc ${{config.system.build.etc}}/etc\";
         {more}"
    )
}

#[test]
fn changes_name_what_was_changed_and_not_what_always_changes() {
    const HELLO: &str = "pkgs.hello";
    const REBUILT: &str = "(pkgs.runCommand \"hello-2.12.1\" { patched = 1; } \"\" // { pname = \"hello\"; version = \"2.12.1\"; })";
    let special =
        |patch: &str| format!("specialisation.s.configuration.environment.etc.x.text = \"{patch}\";");
    for nix in installations() {
        let inventory =
            |packages, bus, more: &str| system(&nix, &with_packages(packages, bus, more)).inventory;
        let before = inventory(HELLO, "", &special("1"));
        assert_eq!(before.kernel.as_deref(), Some("6.6.63"));
        let changes = |packages, bus, more: &str| before.changes(&inventory(packages, bus, more));
        assert_eq!(
            changes("pkgs.hello (pkgs.makePackage \"curl\" \"8.1\")", "", &special("2")),
            "+ curl 8.1"
        );
        assert_eq!(changes(REBUILT, "", &special("2")), "rebuilt: hello 2.12.1");
        assert_eq!(
            changes(HELLO, "\"more\"", &special("2")),
            "units changed: dbus.service; files changed: /etc/dbus-1"
        );
        let script = special("2") + "system.activationScripts.x = \"true\";";
        assert_eq!(changes(HELLO, "", &script), "activation scripts added: x");
        assert_eq!(changes(HELLO, "", &special("2")), "specialisations changed: s");
        assert_eq!(changes(HELLO, "", ""), "specialisations removed: s");
        let container: Inventory = inventory(HELLO, "", "boot.isContainer = true;");
        assert_eq!(container.kernel, None);
        assert!(container.summary().ends_with(" packages, 1 units"), "{}", container.summary());
    }
}

#[test]
fn a_system_comes_with_what_was_warned_of() {
    let body = "warnings = [ \"services.foo is old,\\n  use services.bar\" ]; environment.etc.x.text = lib.warn \"from lib.warn\" \"x\";
        environment.etc.y.text = builtins.trace \"only traced\" \"y\"; environment.etc.z.text = builtins.trace \"warning: of old\" \"z\";";
    for nix in installations() {
        // NixOS prints its warnings, too.
        let mut warnings = system(&nix, body).warnings;
        warnings.sort();
        assert_eq!(warnings, ["from lib.warn", "of old", "services.foo is old,\n  use services.bar"]);
        assert_eq!(system(&nix, "").warnings, [""; 0]);
    }
}

/// Each machine has its own, also where many are evaluated in one process.
#[test]
fn warnings_are_of_their_machines() {
    let machine = |name: &str| {
        format!("{name} = {{ lib, ... }}: {{ BASE environment.etc.x.text = lib.warn \"of {name}\" \"x\"; }};")
    };
    let network = complete(&format!(
        "{{ {} {} {} }}",
        machine("a"),
        machine("b"),
        machine("c").replace("lib.warn \"of c\"", "")
    ));
    for nix in installations() {
        let site = Site::new(&[("network.nix", network.clone())]);
        let outcome = site.evaluate(&nix, &["--workers", "1", "--memory", "100000"]);
        let warnings = |name: &str| outcome.result["nodes"][name]["exact"]["warnings"].clone();
        assert_eq!(
            ["a", "b", "c"].map(warnings),
            [json!(["of a"]), json!(["of b"]), Value::Null],
            "{:#}",
            outcome.result
        );
    }
}

/// Where Nix can only say that its stack is full, what was printed before is not taken for the cause.
#[test]
fn a_full_stack_is_said_before_what_was_printed() {
    let body = "environment.etc.x.text = let f = n: { a = f (n + 1); }; in builtins.trace \"Obsolete option\" (lib.warn \"old\" (builtins.deepSeq (f 0) \"x\"));";
    let network = complete(&format!("{{ a = {{ lib, ... }}: {{ BASE {body} }}; b = {{ BASE }}; }}"));
    for nix in installations() {
        let outcome = Site::new(&[("network.nix", network.clone())]).evaluate(&nix, &[]);
        let trace = outcome.result["nodes"]["a"]["broken"]["trace"].as_str().unwrap_or(&outcome.error);
        let (error, printed) = nixos_activator::nix::parts_of(trace);
        assert!(error.contains("stack overflow") && !error.contains("trace: "), "{trace}");
        assert!(printed.contains("trace: Obsolete option") && printed.contains("old"), "{trace}");
        assert!(outcome.result["nodes"]["b"].get("exact").is_some(), "{:#}", outcome.result);
    }
}

#[test]
fn a_specialisation_is_a_system_of_its_own() {
    let network = complete(
        "{ a = { config, lib, pkgs, ... }: { BASE
             environment.etc.of.text = lib.mkDefault \"base\"; deployment.keys.both.text = \"b\";
             specialisation.calm.configuration = { lib, ... }: { environment.etc.of.text = \"calm\"; deployment.keys.more.text = \"m\"; };
             specialisation.loud.configuration.environment.etc.of.text = \"loud\"; };
           b = { config, lib, pkgs, nodes, ... }: { BASE environment.etc.of-a.text = nodes.a.config.environment.etc.of.text; }; }",
    );
    for nix in installations() {
        let site = Site::new(&[("network.nix", network.clone())]);
        let node = |specialisations: &str, name: &str| {
            let given = ["--machines", r#"{"a":{},"b":{}}"#, "--specialisations", specialisations];
            site.evaluate(&nix, &given).result["nodes"][name].clone()
        };
        let system = |specialisations: &str, name: &str| -> System {
            serde_json::from_value(node(specialisations, name)["exact"].clone()).unwrap()
        };
        let (base, calm, loud) =
            (system("{}", "a"), system(r#"{"a":"calm"}"#, "a"), system(r#"{"a":"loud"}"#, "a"));
        assert_eq!(base.specialisation, None);
        assert_eq!(calm.specialisation.as_deref(), Some("calm"));
        assert_eq!(
            base.inventory.changes(&calm.inventory),
            "units added: more-key.service; files changed: /etc/of"
        );
        let systems = [&base.toplevel, &calm.toplevel, &loud.toplevel];
        assert_eq!(systems.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{systems:?}");
        let keys = |system: &System| system.keys.keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(
            (keys(&base), keys(&calm), keys(&loud)),
            ("both".into(), "both more".into(), "both".into())
        );
        // Others see the configuration, whatever the machine runs.
        assert_eq!(system(r#"{"a":"calm"}"#, "b").toplevel, system("{}", "b").toplevel);

        let wrong = node(r#"{"a":"clam"}"#, "a")["broken"]["trace"].as_str().unwrap().to_owned();
        assert!(
            wrong.contains("names `clam` for machine `a`, whose configuration has only `calm`, `loud`"),
            "{wrong}"
        );
        let without = node(r#"{"b":"calm"}"#, "b")["broken"]["trace"].as_str().unwrap().to_owned();
        assert!(without.contains("whose configuration has no specialisations"), "{without}");
    }
}
