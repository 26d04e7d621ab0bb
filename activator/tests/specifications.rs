//! Specifications of all kinds, good and bad, through every Nix that `NIX_VERSIONS` lists (directories with `bin/nix` in each,
//! separated by `:`; `cargo xtask test` gets some), or else the one on PATH.
//!
//! They are evaluated by `examples/evaluate.rs`, which does what the provider does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// One Nix: the directory it is in comes first in this PATH.
struct Installation(OsString);

impl Installation {
    /// A command that sees the store of this Nix as its own: found on its PATH, or else a path.
    fn inside(&self, program: impl AsRef<Path>) -> Command {
        let wrapper = std::env::split_paths(&self.0).next().unwrap().join("inside");
        let program = program.as_ref();
        let mut command;
        if wrapper.exists() {
            command = Command::new(wrapper);
            command.arg(Path::new("/usr/bin").join(program)).env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        } else {
            command = Command::new(program);
            command.env("PATH", &self.0);
        }
        command
    }
}

fn installations() -> Vec<Installation> {
    let path = std::env::var_os("PATH").unwrap();
    let mut all = vec![];
    let listed = std::env::var_os("NIX_VERSIONS").unwrap_or_default();
    for directory in std::env::split_paths(&listed).filter(|directory| directory.is_absolute()) {
        let bin = std::iter::once(directory.join("bin"));
        let path = std::env::join_paths(bin.chain(std::env::split_paths(&path))).unwrap();
        all.push(Installation(path));
    }
    if all.is_empty() {
        all.push(Installation(path));
    }
    all
}

/// `examples/evaluate.rs`, where cargo puts it: beside the directory of this test.
fn example() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/evaluate")
}

/// What came of an evaluation.
struct Outcome {
    result: Value,
    error: String,
    took: Duration,
}

/// A directory with specifications in it.
struct Site(tempfile::TempDir);

impl Site {
    fn new(files: &[(&str, String)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        Self(directory)
    }

    fn evaluate(&self, nix: &Installation, more: &[&str]) -> Outcome {
        let nixpkgs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/mini-nixos");
        let start = Instant::now();
        let mut command = Command::new(example());
        command.arg("--path").arg(format!("nixpkgs={}", nixpkgs.canonicalize().unwrap().display()));
        command.args(["--cache", "off", "--json"]).args(more).arg(self.0.path().join("network.nix"));
        command.env("PATH", &nix.0).env("HOME", self.0.path());
        let output = command.output().unwrap();
        Outcome {
            result: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: start.elapsed(),
        }
    }
}

const BASE: &str = "nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\";";

fn complete(text: &str) -> String {
    text.replace("BASE", BASE)
}

/// Something a NixOps network may say, and what comes of it.
struct Row {
    what: &'static str,
    files: Vec<(&'static str, String)>,
    more: Vec<&'static str>,
    /// `NODE:OPTION` or a JSON pointer into the result, and the value there.
    expected: Vec<(&'static str, Value)>,
}

fn row(what: &'static str, network: &str) -> Row {
    Row { what, files: vec![("network.nix", complete(network))], more: vec![], expected: vec![] }
}

impl Row {
    fn file(mut self, name: &'static str, text: &str) -> Self {
        self.files.push((name, complete(text)));
        self
    }

    fn with(mut self, more: &[&'static str]) -> Self {
        self.more.extend(more);
        self
    }

    fn gives(mut self, path: &'static str, value: Value) -> Self {
        self.expected.push((path, value));
        self
    }

    fn check(&self, nix: &Installation) {
        let options: Vec<&str> =
            self.expected.iter().filter_map(|(path, _)| Some(path.split_once(':')?.1)).collect();
        let options = options.join(",");
        let mut more = self.more.clone();
        if !options.is_empty() {
            more.extend(["--options", &options]);
        }
        let outcome = Site::new(&self.files).evaluate(nix, &more);
        for (path, expected) in &self.expected {
            let found = match path.split_once(':') {
                Some((node, option)) => outcome.result["described"]["nodes"][node]["options"][option].clone(),
                None => outcome.result.pointer(path).cloned().unwrap_or_default(),
            };
            let Outcome { error, result, .. } = &outcome;
            assert_eq!(found, *expected, "{}: {path}\n{error}\n{result:#}", self.what);
        }
    }
}

/// The option that most rows set.
const X: &str = "a:environment.etc.x.text";

fn arguments_and_files() -> Vec<Row> {
    vec![
        row("a plain set", "{ a = { BASE environment.etc.x.text = \"x\"; }; }").gives(X, json!("x")),
        row(
            "a function of arguments",
            "{ w, o ? \"o\" }: { a = { BASE environment.etc.x.text = w + o; }; }",
        )
        .with(&["--arguments", r#"{"w":"w","unused":1}"#])
        .gives(X, json!("wo")),
        row("a function of all arguments", "all: { a = { BASE environment.etc.x.text = all.w; }; }")
            .with(&["--arguments", r#"{"w":"w"}"#])
            .gives(X, json!("w")),
        row(
            "arguments of every kind",
            "{ a = { arguments, ... }: { BASE environment.etc.x.text = builtins.toJSON arguments; }; }",
        )
        .with(&["--arguments", r#"{"b":true,"f":1.5,"i":7,"l":[1,"2",null],"n":null,"o":{"y":"${z} \"q\" \\ ü"}}"#])
        .gives(X, json!(r#"{"b":true,"f":1.5,"i":7,"l":[1,"2",null],"n":null,"o":{"y":"${z} \"q\" \\ ü"}}"#)),
        row(
            "defaults before the machine",
            "{ defaults = { lib, name, ... }: { BASE environment.etc.x.text = lib.mkDefault name; };\
             a = { }; b = { environment.etc.x.text = \"own\"; }; }",
        )
        .gives(X, json!("a"))
        .gives("b:environment.etc.x.text", json!("own")),
        row("a machine as a path", "{ a = ./a.nix; }")
            .file("a.nix", "{ ... }: { BASE environment.etc.x.text = \"file\"; }")
            .gives(X, json!("file")),
        row("require, each file once", "{ require = [ ./b.nix ./c.nix ]; a = { BASE }; }")
            .file("b.nix", "{ require = [ ./c.nix ]; a = { environment.etc.x.text = \"b\"; }; }")
            .file("c.nix", "{ require = [ ./b.nix ]; c = { BASE }; }")
            .gives(X, json!("b"))
            .gives("/described/nodes/c/deployment/targetHost", json!("c")),
        row(
            "what is not a machine",
            "{ network = { description = \"d\"; enableRollback = true; storage.legacy = { }; lock.noop = { }; }; a = { BASE }; }",
        )
        .gives("/described/description", json!("d"))
        .gives("/nodes/network", Value::Null),
        row("nixpkgs of the network, as a path", "{ network.nixpkgs = <nixpkgs>; a = { BASE }; }")
            .gives("/nodes/a/exact/system", json!("x86_64-linux")),
        row("nixpkgs of the network, imported", "{ network.nixpkgs = import <nixpkgs> { }; a = { BASE }; }")
            .gives("/nodes/a/exact/system", json!("x86_64-linux")),
        row(
            "module arguments",
            "{ a = { name, nodes, resources, uuid, deploymentName, ... }: { BASE environment.etc.x.text = \
             \"${name} ${uuid} ${deploymentName} ${toString (builtins.attrNames nodes)} ${toString (builtins.attrNames resources)}\"; }; \
             b = { BASE }; }",
        )
        .gives(X, json!("a 00000000-0000-4000-8000-000000000000 default a b machines")),
    ]
}

fn facts_and_resources() -> Vec<Row> {
    vec![
        row(
            "options of another machine",
            "{ a = { nodes, ... }: { BASE environment.etc.x.text = nodes.b.config.environment.etc.x.text; };\
             b = { BASE environment.etc.x.text = \"b\"; }; }",
        )
        .gives(X, json!("b")),
        row("host names", "{ a = { BASE }; b = { BASE networking.hostName = \"other\"; }; }")
            .gives("a:networking.hostName", json!("a"))
            .gives("b:networking.hostName", json!("other")),
        row(
            "addresses",
            "{ a = { nodes, ... }: { BASE environment.etc.x.text = with nodes.b.config.networking; \"${privateIPv4} ${publicIPv4}\"; };\
             b = { BASE }; }",
        )
        .with(&["--machines", r#"{"a":{},"b":{"private_ipv4":"10.0.0.2","public_ipv4":"198.51.100.2"}}"#])
        .gives(X, json!("10.0.0.2 198.51.100.2")),
        row("the hosts table", "{ a = { BASE }; b = { BASE }; c = { BASE }; }")
            .with(&[
                "--machines",
                r#"{"a":{"private_ipv4":"10.0.0.1"},"b":{"private_ipv4":"10.0.0.2"},"c":{"public_ipv4":"198.51.100.3"}}"#,
            ])
            .gives("a:networking.extraHosts", json!("10.0.0.2 b b-unencrypted\n198.51.100.3 c c-unencrypted")),
        row("known hosts", "{ a = { BASE }; b = { BASE }; }")
            .with(&[
                "--machines",
                r#"{"a":{"private_ipv4":"10.0.0.1"},"b":{"private_ipv4":"10.0.0.2","host_public_key":"ssh-ed25519 B"}}"#,
            ])
            .gives("a:environment.etc.ssh/ssh_known_hosts.text", json!("\nb,b-unencrypted,10.0.0.2 ssh-ed25519 B")),
        row("known hosts beside those of the configuration", "{ a = { BASE services.openssh.knownHosts.c.publicKey = \"ssh-rsa C\"; }; b = { BASE }; }")
            .with(&["--machines", r#"{"a":{},"b":{"host_public_key":"ssh-ed25519 B"}}"#])
            .gives("a:environment.etc.ssh/ssh_known_hosts.text", json!("c ssh-rsa C\nb,b-unencrypted ssh-ed25519 B"))
            .gives("a:services.openssh.knownHosts.c.publicKey", json!("ssh-rsa C")),
        row("the state version of the first visit", "{ a = { nixpkgs.hostPlatform = \"x86_64-linux\"; }; }")
            .with(&["--machines", r#"{"a":{"state_version":"19.09"}}"#])
            .gives("a:system.stateVersion", json!("19.09")),
        row("what NixOps gave machines on EC2", "{ a = { BASE }; b = { BASE }; c = { BASE }; }")
            .with(&["--machines", r#"{"a":{"target_env":"ec2"},"b":{"target_env":"none"},"c":{}}"#])
            .gives("a:environment.etc.amazon-image.text", json!("nixpkgs' own, HVM"))
            .gives("b:environment.etc.amazon-image.text", Value::Null)
            .gives("c:environment.etc.amazon-image.text", Value::Null),
        row(
            "resources as modules",
            "{ resources.sqsQueues.q = { config, lib, ... }: { name = lib.mkDefault \"q\"; url = \"https://${config.name}\"; };\
             a = { resources, ... }: { BASE environment.etc.x.text = resources.sqsQueues.q.url; }; }",
        )
        .gives(X, json!("https://q"))
        .gives("/described/resources/sqsQueues/q/_name", json!("q")),
        row(
            "names that resources have by themselves",
            "{ resources.s3Buckets.b = { }; resources.vpc.v = { }; a = { resources, ... }: { BASE environment.etc.x.text = \
             \"${resources.s3Buckets.b.name} ${resources.vpc.v.name}\"; }; }",
        )
        .gives(
            X,
            json!("charon-00000000-0000-4000-8000-000000000000-b nixops-00000000-0000-4000-8000-000000000000-v"),
        ),
        row(
            "secrets of resources",
            "{ resources.rdsDbInstances.shop = { engine = \"postgres\"; masterPassword = \"hidden\"; };\
             resources.sshKeyPairs.text = { privateKey = \"hidden\"; }; a = { BASE deployment.ec2.privateKey = \"/root/id\"; \
             deployment.keys.password.text = \"hidden\"; }; }",
        )
        .gives("/described/resources/rdsDbInstances/shop/engine", json!("postgres"))
        .gives("/described/resources/rdsDbInstances/shop/masterPassword", Value::Null)
        .gives("/described/resources/sshKeyPairs/text/_name", json!("text"))
        .gives("/described/resources/sshKeyPairs/text/privateKey", Value::Null)
        .gives("/described/nodes/a/deployment/keys/password/user", json!("root"))
        .gives("/described/nodes/a/deployment/keys/password/text", Value::Null)
        .gives("/described/nodes/a/deployment/ec2/privateKey", json!("/root/id")),
        row(
            "keys as they were written before 1.5",
            "{ a = { config, ... }: { BASE deployment.keys.k = \"secret\"; environment.etc.x.text = config.deployment.keys.k.path; }; }",
        )
        .gives(X, json!("/run/keys/k"))
        .gives("/described/nodes/a/deployment/keys/k/user", json!("root"))
        .gives("/described/nodes/a/deployment/keys/k/text", Value::Null)
        .gives("/nodes/a/exact/keys/k/path", json!("/run/keys/k"))
        .gives("/nodes/a/exact/keys/k/text", json!(true)),
        row(
            "a reference to another machine",
            "{ a = { nodes, ... }: { BASE deployment.container.host = nodes.b; }; b = { BASE }; }",
        )
        .gives("/described/nodes/a/deployment/container/host", json!("b")),
        row(
            "open ports and users",
            "{ a = { BASE networking.firewall.enable = true; networking.firewall.allowedTCPPorts = [ 80 ]; users.users.alice = { }; }; }",
        )
        .gives("/nodes/a/exact/ports", json!({ "tcp/80": "" }))
        .gives("/nodes/a/exact/users", json!({ "alice": "" })),
        row(
            "a machine that was not given",
            "{ a = { BASE }; b = { nodes, ... }: { BASE environment.etc.x.text = nodes.c.config.networking.privateIPv4; }; c = { BASE }; }",
        )
        .with(&["--machines", r#"{"a":{},"b":{}}"#])
        .gives("/nodes/b/no_machine/of", json!("c"))
        .gives("/nodes/a/exact/system", json!("x86_64-linux")),
        row(
            "a value that is not known yet",
            "{ d, ... }: { a = { BASE }; b = { BASE environment.etc.x.text = d; }; }",
        )
        .with(&["--arguments", r#"{"d":{"__unknown":"arguments.d"}}"#])
        .gives("/nodes/b/waits/on", json!("arguments.d"))
        .gives("/nodes/a/exact/system", json!("x86_64-linux")),
    ]
}

#[test]
fn networks_mean_what_they_meant() {
    for nix in installations() {
        for row in arguments_and_files().into_iter().chain(facts_and_resources()) {
            row.check(&nix);
        }
    }
}

/// What we add to a configuration is there to be asked for; by itself it changes nothing.
#[test]
fn a_system_is_what_nixpkgs_itself_makes_of_it() {
    let body = complete("{ BASE environment.etc.x.text = \"x\"; }");
    let site = Site::new(&[
        ("network.nix", "{ a = ./a.nix; }".to_owned()),
        ("a.nix", body),
        (
            "plain.nix",
            "(import <nixpkgs/nixos/lib/eval-config.nix> { system = null; modules = [ ./a.nix { networking.hostName = \"a\"; } ]; \
             }).config.system.build.toplevel"
                .to_owned(),
        ),
    ]);
    let nixpkgs =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/mini-nixos").canonicalize().unwrap();
    for nix in installations() {
        let outcome = site.evaluate(&nix, &[]);
        let mut plain = Command::new("sh");
        plain.args(["-c", "exec nix-instantiate \"$0\""]).arg(site.0.path().join("plain.nix"));
        plain.env("PATH", &nix.0).env("NIX_PATH", format!("nixpkgs={}", nixpkgs.display()));
        let plain = plain.output().unwrap();
        let drv = String::from_utf8_lossy(&plain.stdout).trim().to_owned();
        assert!(drv.contains(".drv"), "{}", String::from_utf8_lossy(&plain.stderr));
        let ours = outcome.result["nodes"]["a"]["exact"]["drv"].as_str().unwrap_or(&outcome.error);
        assert_eq!(drv, ours);
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
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

/// A program that does something first and then is the real one of this Nix.
fn stand_in(nix: &Installation, directory: &Path, program: &str, first: &str) {
    let real =
        std::env::split_paths(&nix.0).map(|directory| directory.join(program)).find(|path| path.exists());
    let path = directory.join(program);
    std::fs::write(&path, format!("#!/bin/sh\n{first}\nexec '{}' \"$@\"\n", real.unwrap().display()))
        .unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// A node with an error that nothing catches does not make the others of its process be evaluated one by one.
#[test]
fn an_error_costs_a_process_and_not_one_for_each_of_the_others() {
    let node = |name: &str, what: &str| format!("{name} = {{ {BASE} {what} }};");
    for nix in installations() {
        let tools = tempfile::tempdir().unwrap();
        let counted = tools.path().join("counted");
        for program in ["nix", "nix-instantiate", "nix-store"] {
            let count = if program == "nix-instantiate" {
                format!("echo >> '{}'", counted.display())
            } else {
                String::new()
            };
            stand_in(&nix, tools.path(), program, &count);
        }
        let path = std::iter::once(tools.path().to_owned()).chain(std::env::split_paths(&nix.0));
        let counting = Installation(std::env::join_paths(path).unwrap());
        let evaluate = |second: &str, fourth: &str| {
            let nodes = [("a", ""), ("b", second), ("c", ""), ("d", fourth), ("e", "")];
            let nodes: String = nodes.iter().map(|(name, what)| node(name, what)).collect();
            let site = Site::new(&[("network.nix", format!("{{ {nodes} }}"))]);
            std::fs::write(&counted, "").unwrap();
            // All in one process.
            let outcome = site.evaluate(&counting, &["--workers", "1", "--memory", "100000"]);
            let processes = std::fs::read_to_string(&counted).unwrap().lines().count();
            let broken =
                |name: &str| outcome.result["nodes"][name]["broken"]["trace"].as_str().map(str::to_owned);
            let traces = ["b", "d"].map(|name| broken(name).unwrap_or_default());
            for name in ["a", "c", "e"] {
                let is_exact = outcome.result["nodes"][name].get("exact").is_some();
                assert!(is_exact, "{name}: {:#}\n{}", outcome.result, outcome.error);
            }
            (processes, traces)
        };
        let (when_all_is_well, traces) = evaluate("", "");
        assert_eq!(traces, ["", ""]);
        let of_type = "environment.etc.x.text = \"x\" + 1;";
        let (processes, [second, fourth]) = evaluate(of_type, "environment.etc.x.text = { }.missing;");
        assert_eq!(processes, when_all_is_well + 2);
        let errors = ["error: cannot coerce an integer", "error: attribute 'missing' missing"];
        for (trace, its_own) in [(&second, [true, false]), (&fourth, [false, true])] {
            assert_eq!(errors.map(|error| trace.contains(error)), its_own, "{trace}");
        }
        for trace in [second, fourth] {
            assert!(!trace.contains("… nixos-node"), "our own is not shown: {trace}");
        }
    }
}

/// A Nix that is killed says nothing: it is not a mistake in the specification.
#[test]
fn a_nix_that_is_killed_is_no_mistake() {
    let nix = &installations()[0];
    let tools = tempfile::tempdir().unwrap();
    let path = std::iter::once(tools.path().to_owned()).chain(std::env::split_paths(&nix.0));
    let killed = Installation(std::env::join_paths(path).unwrap());
    for program in ["nix", "nix-instantiate", "nix-store"] {
        // While it evaluates nodes, as the system would when memory runs out.
        let kill = if program == "nix-instantiate" {
            "case \" $* \" in *\" nodes \"*|*\" node \"*) kill -9 $$ ;; esac"
        } else {
            ""
        };
        stand_in(nix, tools.path(), program, kill);
    }
    let site = Site::new(&[("network.nix", format!("{{ a = {{ {BASE} }}; b = {{ {BASE} }}; }}"))]);
    let outcome = site.evaluate(&killed, &["--workers", "1"]);
    assert!(outcome.error.contains("was killed"), "{}\n{:#}", outcome.error, outcome.result);
}

/// When the tree of a flake has changed only those nodes are evaluated that read what has.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
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

        // A copy of all of it under another name, which newer versions of Nix make without a look at what is in it: where it is, and what
        // is there.
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

/// Cut off anywhere, and with characters that do not belong there.
fn broken_syntax() -> Vec<(String, Option<&'static str>)> {
    let whole = "{ lib ? null, ... }:\n{\n  defaults = { nixpkgs.hostPlatform = \"x86_64-linux\"; };\n  a = { config, ... }: {\n    \
                 system.stateVersion = \"24.11\";\n    environment.etc.\"x y\".text = ''\n      ${config.networking.hostName}\n    '';\n  };\n}";
    let mut bad: Vec<_> =
        (1..whole.len()).step_by(2).map(|end| (whole[..end].to_owned(), Some("network.nix:"))).collect();
    for c in ["@@", "§", "\u{200b}", "==", "}}", "((", ";;", "\"", "${", "\\", "\u{1f980}"] {
        bad.push((whole.replacen("system", &format!("{c} system"), 1), Some("network.nix:")));
        bad.push((format!("{}{c}", &whole[..24]), Some("network.nix:")));
    }
    bad
}

/// Options of the wrong type, and options that are none.
fn broken_options() -> Vec<(String, Option<&'static str>)> {
    let mut bad = vec![];
    for option in ["system.stateVersion", "networking.hostName", "deployment.targetPort", "deployment.owners"]
    {
        for value in ["42", "true", "[ 1 ]", "{ a = 1; }", "(x: x)", "null", "1.5"] {
            // What is right after all.
            if option == "deployment.targetPort" && matches!(value, "42" | "null") {
                continue;
            }
            let used = "environment.etc.used.text = builtins.toJSON";
            bad.push((
                format!(
                    "{{ a = {{ config, lib, ... }}: {{ nixpkgs.hostPlatform = \"x86_64-linux\"; \
                     system.stateVersion = lib.mkDefault \"24.11\"; {option} = {value}; {used} config.{option}; }}; }}"
                ),
                None,
            ));
        }
    }
    for option in
        ["no.such.option", "deployment.ec3.region", "systemd.services.x.noSuch", "environment.etc.x.noSuch"]
    {
        bad.push((format!("{{ a = {{ {BASE} {option} = 1; }}; }}"), Some("does not exist")));
    }
    bad
}

/// Mistakes of other kinds, each with what its message has to say.
const MISTAKES: [(&str, Option<&str>); 26] = [
    ("let x = x; in x", Some("infinite recursion")),
    (
        "{ a = { config, ... }: { BASE networking.hostName = config.networking.hostName; }; }",
        Some("infinite recursion"),
    ),
    (
        "{ a = { nodes, ... }: { BASE environment.etc.x.text = nodes.a.config.environment.etc.x.text; }; }",
        Some("infinite recursion"),
    ),
    ("{ a = ./no-such-file.nix; }", Some("no-such-file.nix")),
    ("{ require = [ ./no-such-file.nix ]; }", Some("no-such-file.nix")),
    ("{ a = { imports = [ ./no-such-file.nix ]; }; }", Some("no-such-file.nix")),
    ("{ a = throw \"thrown\"; }", Some("thrown")),
    ("throw \"thrown\"", Some("thrown")),
    ("abort \"aborted\"", Some("aborted")),
    ("assert false; { }", Some("assertion")),
    ("{ a = { BASE environment.etc.x.text = abort \"aborted\"; }; }", Some("aborted")),
    (
        "{ a = { BASE assertions = [ { assertion = false; message = \"not like this\"; } ]; }; }",
        Some("not like this"),
    ),
    ("{ a = { BASE environment.etc.x.text = builtins.foldl' (a: b: a + b) \"\" 1; }; }", None),
    ("{ a = { BASE environment.etc.x.text = { }.missing; }; }", Some("missing")),
    ("{ a = { BASE environment.etc.x.text = undefinedName; }; }", Some("undefined variable")),
    ("{ a = { BASE environment.etc.x.text = builtins.fetchurl \"http://127.0.0.1:1/x\"; }; }", None),
    ("{ a = { BASE environment.etc.x.source = <no-such-entry>; }; }", Some("no-such-entry")),
    ("42", None),
    ("[ ]", None),
    ("\"text\"", None),
    ("{ a = 42; }", None),
    ("{ a = [ ]; }", None),
    ("{ \"machine 1\" = { BASE }; }", Some("is not the name of a machine")),
    ("{ \"../a\" = { BASE }; }", Some("is not the name of a machine")),
    ("{ needed }: { a = { BASE }; }", Some("takes the argument `needed`")),
    ("{ network.nixpkgs = ./nowhere; a = { BASE }; }", Some("nowhere")),
];

/// Two hundred ways to be wrong: none hangs, none is taken for right, and each says what and, where Nix knows it, where.
#[test]
fn whatever_is_wrong_is_said_once_and_where() {
    let mut bad = broken_syntax();
    bad.extend(broken_options());
    bad.extend(MISTAKES.iter().map(|(text, says)| (complete(text), *says)));
    // Deep, large, and of all alphabets.
    bad.push((format!("{}1{}", "[".repeat(3000), "]".repeat(3000)), None));
    bad.push((
        format!("{{ a = {{ {BASE} environment.etc.x.text = \"{}\" + 1; }}; }}", "x".repeat(200_000)),
        None,
    ));
    for word in ["ümläut", "名前", "имя", "\u{202e}reversed"] {
        bad.push((format!("{{ a = {{ {BASE} environment.etc.x.text = throw \"{word}\"; }}; }}"), Some(word)));
        bad.push((format!("{{ \"{word}\" = {{ {BASE} }}; }}"), Some("is not the name of a machine")));
    }
    assert!(bad.len() >= 200, "{}", bad.len());
    for nix in &installations() {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
                scope.spawn(|| {
                    while let Some((text, says)) = bad.get(next.fetch_add(1, Ordering::Relaxed)) {
                        check_bad(nix, text, *says);
                    }
                });
            }
        });
    }
}

fn check_bad(nix: &Installation, text: &str, says: Option<&str>) {
    let shown: String = text.chars().take(300).collect();
    let outcome = Site::new(&[("network.nix", text.to_owned())]).evaluate(nix, &[]);
    assert!(outcome.took < Duration::from_mins(1), "it hangs: {shown}");
    let nodes = outcome.result["nodes"].as_object().cloned().unwrap_or_default();
    let broken: Vec<&str> = nodes.values().filter_map(|node| node["broken"]["trace"].as_str()).collect();
    let said = if broken.is_empty() { outcome.error.clone() } else { broken.join("\n") };
    assert!(
        broken.len() == 1 || (nodes.is_empty() && said.contains("error:")),
        "it is taken for right: {shown}\n{}\n{:#}",
        outcome.error,
        outcome.result
    );
    if let Some(says) = says {
        assert!(said.contains(says), "it does not say {says:?}: {shown}\n{said}");
    }
}
