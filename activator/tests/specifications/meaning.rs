//! What networks mean: a row for everything they may say.

use super::*;

/// Something a NixOps network may say, and what comes of it.
pub(super) struct Row {
    pub(super) what: &'static str,
    pub(super) files: Vec<(&'static str, String)>,
    more: Vec<&'static str>,
    /// `NODE:OPTION` or a JSON pointer into the result, and the value there.
    pub(super) expected: Vec<(&'static str, Value)>,
}

pub(super) fn row(what: &'static str, network: &str) -> Row {
    Row { what, files: vec![("network.nix", complete(network))], more: vec![], expected: vec![] }
}

impl Row {
    pub(super) fn file(mut self, name: &'static str, text: &str) -> Self {
        self.files.push((name, complete(text)));
        self
    }

    pub(super) fn with(mut self, more: &[&'static str]) -> Self {
        self.more.extend(more);
        self
    }

    pub(super) fn gives(mut self, path: &'static str, value: Value) -> Self {
        self.expected.push((path, value));
        self
    }

    pub(super) fn check(&self, nix: &Installation) -> Outcome {
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
        outcome
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
             \"${name} ${uuid} ${deploymentName} ${toString (builtins.attrNames nodes)} ${toString (builtins.attrNames resources.machines)}\"; }; \
             b = { BASE }; }",
        )
        .gives(X, json!("a 00000000-0000-4000-8000-000000000000 default a b a b")),
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
            .gives("a:networking.extraHosts", json!("10.0.0.1 a a-unencrypted\n127.0.0.1 a-encrypted\n10.0.0.2 b b-unencrypted\n198.51.100.3 c c-unencrypted")),
        row("an IPv6 address", "{ a = { nodes, ... }: { BASE environment.etc.x.text = toString [ nodes.b.config.networking.publicIPv6 (nodes.a.config.networking.publicIPv6 == null) ]; }; b = { BASE }; c = { BASE }; }")
            .with(&["--machines", r#"{"a":{},"b":{"public_ipv6":"2001:db8::2"},"c":{"public_ipv4":"198.51.100.3","public_ipv6":"2001:db8::3"}}"#])
            .gives(X, json!("2001:db8::2 1"))
            .gives("a:networking.extraHosts", json!("2001:db8::2 b b-unencrypted\n198.51.100.3 c c-unencrypted")),
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
