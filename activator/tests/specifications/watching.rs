//! What whoever watches an evaluation sees.

use super::*;

#[test]
fn whoever_watches_sees_when_a_node_is_done() {
    for nix in installations() {
        let site = Site::new(&[("one", "1".to_owned()), ("two", "2".to_owned())]);
        let at = |name: &str| site.0.path().join(name).display().to_string();
        let done = |name: &str| format!("builtins.pathExists \"/proc/mark-done-{name}\"");
        let (one, two) = (at("one"), at("two"));
        let (a, b) = (done("a"), done("b"));
        let expression = format!(
            "[ (builtins.seq (import {one}) ({a})) (builtins.seq (import {two}) ({b})) (import {one}) ]"
        );
        let report = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(example());
        command.arg("--watch-evaluation").arg(report.path()).args(["0", "/proc/mark-", "", ""]);
        command.args(["nix-instantiate", "--eval", "--strict", "--json", "--expr", &expression]);
        let output = command.env("PATH", &nix.0).env("HOME", site.0.path()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "[false,false,1]", "{error}");
        let report: Value = serde_json::from_slice(&std::fs::read(report.path()).unwrap()).unwrap();
        let pieces = report["pieces"].as_array().unwrap();
        let done: Vec<&Value> = pieces.iter().map(|piece| &piece["done"]).collect();
        assert_eq!(done, [&json!("a"), &json!("b"), &json!(null)], "{report:#}");
        let seen = |piece: usize, path: &str| pieces[piece]["seen"].get(path).is_some();
        assert!(seen(0, &one) && !seen(0, &two) && seen(1, &two), "{report:#}");
    }
}

/// When the tree of a flake has changed only those nodes are evaluated that read what has.
#[test]
fn nodes_of_a_flake_are_remembered_by_what_they_read() {
    let nixpkgs =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/mini-nixos").canonicalize().unwrap();
    let flake = format!(
        "{{\n  inputs.nixpkgs.url = \"path:{}\";\n  outputs = {{ self, nixpkgs }}: let\n    \
         machine = module: nixpkgs.lib.nixosSystem {{ modules = [ module {{ {BASE} }} ]; }};\n  in {{\n    \
         nixosConfigurations = builtins.mapAttrs (_: machine) {{ a = ./a.nix; b = ./b.nix; c = ./c.nix; d = ./d.nix; }};\n  }};\n}}\n",
        nixpkgs.display()
    );
    let mut tried = 0;
    for nix in installations() {
        // A release that is older than this computer may have a C library that is too old for what was compiled here.
        let alone = nix.inside(example()).output().unwrap();
        let error = String::from_utf8_lossy(&alone.stderr);
        if error.contains("GLIBC_") {
            println!("left out: {error}");
            continue;
        }
        tried += 1;
        let site = Site::new(&[]);
        let at = |name: &str| site.0.path().join(name);
        std::fs::create_dir(at("flake")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(at("flake").join(name), text).unwrap();
        write("flake.nix", &flake);
        write(
            "a.nix",
            "{ environment.etc.page.source = ./page.html; environment.etc.pages.text = \"${./pages}\"; }",
        );
        write("b.nix", "{ environment.etc.x.text = \"x\"; }");
        write("page.html", "one");
        std::fs::create_dir(at("flake/pages")).unwrap();
        // Nothing that the store has already.
        write("pages/first", &at("flake").display().to_string());
        write(
            "c.nix",
            "{ environment.etc.tree.text = \"${builtins.path { path = ./.; name = \"config\"; }}\"; }",
        );
        write(
            "d.nix",
            "let copy = builtins.path { path = ./.; name = \"config-source\"; }; \
             in { environment.etc.tree.text = builtins.concatStringsSep \" \" (builtins.attrNames (builtins.readDir copy)); }",
        );
        let reference = format!("path:{}", at("flake").display());
        let features = ["--extra-experimental-features", "nix-command flakes"];
        let run = |command: &mut Command| {
            let output =
                command.env("HOME", site.0.path()).env("XDG_CACHE_HOME", at("cache")).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        run(nix.inside("nix").args(features).args(["flake", "lock", &reference]));
        let remembered = || {
            let files = std::fs::read_dir(at("cache/nixos-activator/evaluations")).into_iter().flatten();
            files.filter(|file| file.as_ref().unwrap().file_name().len() == 64).count()
        };
        // What the nodes are, and how many were evaluated.
        let evaluate = |arguments: &str| {
            let before = remembered();
            let mut command = nix.inside(example());
            command.args([
                "--cache",
                "read_set",
                "--machines",
                "{\"a\":{},\"b\":{}}",
                "--arguments",
                arguments,
            ]);
            let nodes = run(command.arg(&reference));
            let [a, b] = nodes.lines().collect::<Vec<_>>().try_into().unwrap();
            assert!([a, b].iter().all(|node| node.contains("-nixos-system-")), "{nodes}");
            ([a.to_owned(), b.to_owned()], remembered() - before)
        };

        // Each for its tree, and for what it read there.
        let (first, evaluated) = evaluate("{}");
        assert_eq!(evaluated, 4);
        assert_eq!(evaluate("{}"), (first.clone(), 0));
        write("README.md", "not read");
        assert_eq!(evaluate("{}"), (first.clone(), 0));
        // The same tree for another question: what Nix knows of it already was read all the same.
        assert_eq!(evaluate("{ \"x\": 1 }").1, 4);
        let mut before = first;
        for (what, changed) in [
            ("page.html", [true, false]),
            ("pages/first", [true, false]),
            ("pages/second", [true, false]),
            ("b.nix", [false, true]),
        ] {
            write(what, "{ environment.etc.x.text = \"y\"; }");
            assert_eq!(evaluate("{ \"x\": 1 }").1, 1, "{what}");
            let (nodes, evaluated) = evaluate("{}");
            assert_eq!(evaluated, 1, "{what}");
            assert_eq!([0, 1].map(|n| nodes[n] != before[n]), changed, "{what}");
            assert_eq!(evaluate("{}"), (nodes.clone(), 0), "{what}");
            before = nodes;
        }

        // A copy of all of it under another name, which newer versions of Nix make without a look at what is in it:
        // where it is, and what is there.
        let copied = |machines: &str, arguments: &str| {
            let mut command = nix.inside(example());
            command.args(["--cache", "read_set", "--machines", machines, "--arguments", arguments]);
            run(command.arg(&reference))
        };
        for (node, new) in [("c", "README.md"), ("d", "LICENSE")] {
            let machines = format!("{{\"{node}\":{{}}}}");
            let (first, _) = (copied(&machines, "{}"), copied(&machines, "{ \"x\": 1 }"));
            write(new, "another");
            assert_ne!(copied(&machines, "{ \"x\": 1 }"), first, "{node}");
        }
    }
    assert!(tried > 0, "every Nix was left out");
}
