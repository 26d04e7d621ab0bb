//! Networks as NixOps' own examples are written: what refers to what, and what of it gets to Terraform.

use super::meaning::{Row, row};
use super::*;

const NO_MACHINES: [&str; 2] = ["--machines", "{}"];

fn references() -> Vec<Row> {
    vec![
        row(
            "a machine in a resource is its name",
            "{ a = { BASE networking.hostName = \"other\"; environment.etc.secret.text = \"hidden\"; };
               resources.route53HealthChecks.h = { resources, nodes, config, ... }: {
                 ipAddress = resources.machines.a; machines = [ nodes.a resources.machines.a ];
                 alarm = { bucket = resources.s3Buckets.b; itself = config; };
               };
               resources.s3Buckets.b = { region = \"r\"; policy.document.options.config = 1; }; }",
        )
        .gives("/described/resources/route53HealthChecks/h/ipAddress", json!("a"))
        .gives("/described/resources/route53HealthChecks/h/machines", json!(["a", "a"]))
        .gives("/described/resources/route53HealthChecks/h/alarm/bucket", json!("b"))
        .gives("/described/resources/route53HealthChecks/h/alarm/itself", json!("h"))
        .gives("/described/resources/s3Buckets/b/region", json!("r")),
        row(
            "what is no value is null, and what stands for something is that",
            "{ a = { config, options, pkgs, lib, ... }: { BASE environment.etc.secret.text = \"hidden\"; deployment.ec2.physicalProperties = {
                 inherit config pkgs lib; tree = options; inner = [ config { inherit options; } ]; f = x: x; functor = { __functor = self: x: x; };
                 option = options.environment.etc; type = lib.types.str; package = pkgs.hello; named = { __toString = self: \"s\"; };
                 flake = { outPath = \"/nix/store/x-source\"; legacyPackages = throw \"not asked for\"; }; path = /some/path; n = null; b = true; }; }; }",
        )
        .gives(
            "/described/nodes/a/deployment/ec2/physicalProperties",
            json!({
                "config": "a", "tree": null, "pkgs": null, "lib": null, "inner": ["a", { "options": null }], "f": null,
                "functor": null, "option": null, "type": null, "package": "HELLO", "named": "s", "flake": "/nix/store/x-source",
                "path": "/some/path", "n": null, "b": true
            }),
        ),
        row(
            "places that refer to machines and resources",
            "{ a = { resources, ... }: { BASE deployment.container.host = resources.machines.b; deployment.gce.network = resources.gceNetworks.n;
                 deployment.ec2.subnetId = resources.vpcSubnets.s; };
               b = { BASE networking.hostName = \"other\"; }; resources.gceNetworks.n = { }; resources.vpcSubnets.s = { }; }",
        )
        .gives("/described/nodes/a/deployment/container/host", json!("b"))
        .gives("/described/nodes/a/deployment/gce/network", json!("n"))
        .gives("/described/nodes/a/deployment/ec2/subnetId", json!("s")),
        row(
            "a resource knows its deployment",
            "{ a = { BASE }; resources.datadogMonitors.m = { config, ... }: { query = config.deployment.name + config.deployment.uuid
                 + config.deployment.arguments.tag; }; }",
        )
        .with(&["--arguments", r#"{"tag":"-t"}"#])
        .gives("/described/resources/datadogMonitors/m/query", json!("default00000000-0000-4000-8000-000000000000-t"))
        .gives("/described/resources/datadogMonitors/m/deployment", Value::Null),
        row(
            "its own names are in the table of hosts of a machine, unless it is alone",
            "{ a = { BASE }; b = { BASE }; }",
        )
        .with(&["--machines", r#"{"a":{"public_ipv4":"198.51.100.1"},"b":{}}"#])
        .gives("a:networking.extraHosts", json!(""))
        .gives("b:networking.extraHosts", json!("198.51.100.1 a a-unencrypted")),
    ]
}

/// Resources are modules, as machines are.
fn modules_of_resources() -> Vec<Row> {
    vec![
        row(
            "modules of resources are files, functions, sets with imports, and what `mkIf` and `mkMerge` make",
            "{ a = { BASE };
               resources.sshKeyPairs = {
                 file = ./key.nix;
                 imported = { lib, ... }: { imports = [ ./key.nix ./key.nix ]; };
                 required = { require = [ ./key.nix ]; };
                 merged = { lib, ... }: lib.mkMerge [ { publicKey = lib.mkDefault \"weak\"; } { publicKey = \"strong\"; } ];
                 none = { lib, ... }: lib.mkIf false { publicKey = \"no\"; };
                 some = { lib, ... }: lib.mkIf true { publicKey = \"yes\"; };
               }; }",
        )
        .file("key.nix", "{ config, name, ... }: { publicKey = \"file of ${name}\"; }")
        .gives("/described/resources/sshKeyPairs/file/publicKey", json!("file of file"))
        .gives("/described/resources/sshKeyPairs/imported/publicKey", json!("file of imported"))
        .gives("/described/resources/sshKeyPairs/imported/imports", Value::Null)
        .gives("/described/resources/sshKeyPairs/required/publicKey", json!("file of required"))
        .gives("/described/resources/sshKeyPairs/merged/publicKey", json!("strong"))
        .gives("/described/resources/sshKeyPairs/none/_name", json!("none"))
        .gives("/described/resources/sshKeyPairs/some/publicKey", json!("yes")),
        row(
            "what modules of a resource define is merged as options are",
            "{ require = [ ./more.nix ]; a = { BASE };
               resources.ec2SecurityGroups.g = { lib, ... }: { rules = lib.mkBefore [ \"first\" ]; description = lib.mkOverride 10 \"d\"; };
               resources.ec2SecurityGroups.h = { rules = [ \"here\" ]; };
               resources.vpc.v = { lib, ... }: { tags.W = \"strong\"; tags.C = lib.mkIf false \"no\"; tags.Y = lib.mkIf true \"yes\"; }; }",
        )
        .file(
            "more.nix",
            "{ resources.ec2SecurityGroups.g = { rules = [ \"second\" ]; description = \"other\"; };
               resources.ec2SecurityGroups.h = { rules = [ \"there\" ]; };
               resources.vpc.v = { lib, ... }: { tags.W = lib.mkDefault \"weak\"; tags.Z = \"z\"; }; }",
        )
        .gives("/described/resources/ec2SecurityGroups/g/rules", json!(["first", "second"]))
        .gives("/described/resources/ec2SecurityGroups/g/description", json!("d"))
        // As nixpkgs merges lists of machines.
        .gives("/described/resources/ec2SecurityGroups/h/rules", json!(["there", "here"]))
        .gives("/described/resources/vpc/v/tags", json!({ "W": "strong", "Y": "yes", "Z": "z" })),
        row(
            "a machine sees a resource that a condition has made",
            "{ a = { resources, ... }: { BASE environment.etc.x.text = resources.sshKeyPairs.k.publicKey; };
               resources.sshKeyPairs.k = { lib, ... }: lib.mkIf true { imports = [ ]; publicKey = \"pub\"; }; }",
        )
        .gives("a:environment.etc.x.text", json!("pub")),
        row(
            "resources of NixOps 1.7 say of machines what it had found out",
            "{ a = { BASE deployment.targetHost = \"a.example.org\"; networking.publicIPv4 = \"198.51.100.7\"; };
               resources.sshKeyPairs.k = { nodes, ... }: { publicKey = \"${nodes.a.targetHost} ${nodes.a.publicIPv4} ${nodes.a.config.networking.publicIPv4}\";
                 machine = nodes.a; }; }",
        )
        .gives("/described/resources/sshKeyPairs/k/publicKey", json!("a.example.org 198.51.100.7 198.51.100.7"))
        .gives("/described/resources/sshKeyPairs/k/machine", json!("a")),
        row(
            "names of resources are those that NixOps gave them",
            "{ a = { BASE }; resources = { gceNetworks.n = { }; gceRoutes.n = { }; vpc.n = { }; ec2KeyPairs.n = { }; azureTables.n = { };
                 vaultApprole.n = { }; datadogMonitors.n = { }; }; }",
        )
        .gives("/described/resources/gceNetworks/n/name", json!("n-00000000000040008000000000000000-n"))
        .gives("/described/resources/gceRoutes/n/name", json!("route-00000000-0000-4000-8000-000000000000-n"))
        .gives("/described/resources/vpc/n/name", json!("nixops-00000000-0000-4000-8000-000000000000-n"))
        .gives("/described/resources/ec2KeyPairs/n/name", json!("charon-00000000-0000-4000-8000-000000000000-n"))
        .gives("/described/resources/azureTables/n/name", json!("nixops00000000000040008000000000000000n"))
        .gives(
            "/described/resources/vaultApprole/n/name",
            json!("vault-approle-00000000-0000-4000-8000-000000000000-n"),
        )
        .gives(
            "/described/resources/datadogMonitors/n/name",
            json!("datadog-monitor-00000000-0000-4000-8000-000000000000-n"),
        ),
        row(
            "a machine may say anything about places that it is not meant for",
            "{ a = { resources, ... }: { BASE deployment.targetEnv = \"virtualbox\"; deployment.virtualbox.memorySize = 1024;
                 deployment.ec2.elasticIPv4 = resources.elasticIPs.balancer; deployment.gce.region = throw \"not on Google's\"; }; }",
        )
        .gives("/described/nodes/a/deployment/virtualbox/memorySize", json!(1024))
        .gives("/described/nodes/a/deployment/ec2", json!({}))
        .gives("/described/nodes/a/deployment/hasFastConnection", json!(true)),
        row(
            "there may be no resources of a type, and they may be asked for",
            "{ a = { lib, resources, ... }: { BASE environment.etc.x.text = toString (lib.attrNames resources.elasticIPs); }; }",
        )
        .gives("a:environment.etc.x.text", json!(""))
        .gives("/described/resources", json!({})),
        row(
            "a machine knows its name in the network",
            "{ a = { config, nodes, ... }: { BASE environment.etc.x.text = \"${config._name} ${config._type} ${nodes.a.config._name}\"; }; }",
        )
        .gives("a:environment.etc.x.text", json!("a machine a")),
        row(
            "of what several files say about the network NixOps took the last description and the first nixpkgs",
            "{ require = [ ./more.nix ]; network.description = \"first\"; network.nixpkgs = import <nixpkgs> { } // { marker = \"mine\"; };
               a = { BASE }; resources.sshKeyPairs.k = { pkgs, ... }: { publicKey = pkgs.marker; }; }",
        )
        .file("more.nix", "{ network.description = \"second\"; network.nixpkgs = throw \"not asked for\"; }")
        .gives("/described/description", json!("second"))
        .gives("/described/resources/sshKeyPairs/k/publicKey", json!("mine")),
        row(
            "a shared key is a secret",
            "{ a = { BASE }; resources.azureGatewayConnections.c = { sharedKey = \"hidden\"; kind = \"IPsec\"; }; }",
        )
        .gives("/described/resources/azureGatewayConnections/c/kind", json!("IPsec"))
        .gives("/described/resources/azureGatewayConnections/c/sharedKey", Value::Null),
    ]
}

fn disks() -> Vec<Row> {
    vec![
        row(
            "disks of Amazon's cloud",
            "{ a = { BASE fileSystems.\"/data\" = { device = \"/dev/mapper/xvdg\"; fsType = \"btrfs\"; ec2.size = 10; };
                 fileSystems.\"/kept\" = { device = \"/dev/xvdh\"; ec2.disk = \"vol-1\"; }; }; }",
        )
        .gives("/described/nodes/a/deployment/ec2/blockDeviceMapping/~1dev~1xvdg/fsType", json!("btrfs"))
        .gives("/described/nodes/a/deployment/ec2/blockDeviceMapping/~1dev~1xvdg/deleteOnTermination", json!(true))
        .gives("/described/nodes/a/deployment/ec2/blockDeviceMapping/~1dev~1xvdh/deleteOnTermination", json!(false))
        .gives("/described/nodes/a/deployment/ec2/blockDeviceMapping/~1dev~1xvdh/fsType", json!("ext4"))
        .gives("a:fileSystems.\"/data\".device", json!("/dev/mapper/xvdg")),
        row(
            "disks of Google's cloud",
            "{ a = { resources, ... }: { BASE fileSystems.\"/data/db\" = { fsType = \"ext4\"; gce.size = 10; };
                 fileSystems.\"/shared\".gce.disk = resources.gceDisks.shared; deployment.gce.machineName = \"m\"; };
               b = { BASE fileSystems.\"/data\".gce = { disk_name = \"d\"; size = 1; }; }; resources.gceDisks.shared = { name = \"s\"; }; }",
        )
        .gives(
            "/described/nodes/a/deployment/gce/blockDeviceMapping/~1dev~1disk~1by-id~1scsi-0Google_PersistentDisk_m-data-db/deleteOnTermination",
            json!(true),
        )
        .gives(
            "/described/nodes/a/deployment/gce/blockDeviceMapping/~1dev~1disk~1by-id~1scsi-0Google_PersistentDisk_s/deleteOnTermination",
            json!(false),
        )
        .gives("a:fileSystems.\"/data/db\".device", json!("/dev/disk/by-id/scsi-0Google_PersistentDisk_m-data-db"))
        .gives("a:fileSystems.\"/shared\".device", json!("/dev/disk/by-id/scsi-0Google_PersistentDisk_s"))
        .gives(
            "b:fileSystems.\"/data\".device",
            json!("/dev/disk/by-id/scsi-0Google_PersistentDisk_n-00000000000040008000000000000000-b-d"),
        )
        .gives(
            "/described/nodes/a/deployment/gce/blockDeviceMapping/~1dev~1disk~1by-id~1scsi-0Google_PersistentDisk_m-data-db/disk_name",
            json!("data-db"),
        ),
        row(
            "disks of Microsoft's cloud",
            "{ a = { BASE fileSystems.\"/data\".azure = { size = 10; lun = 2; }; deployment.azure.location = \"West US\"; }; b = { BASE }; }",
        )
        .gives("a:fileSystems.\"/data\".device", json!("/dev/disk/by-lun/2"))
        .gives("/described/nodes/a/deployment/azure/location", json!("West US"))
        .gives("/described/nodes/a/deployment/azure/blockDeviceMapping/~1dev~1disk~1by-lun~12/name", json!("data"))
        .gives("/described/nodes/b/deployment/azure", json!({})),
        row(
            "encryption by the cloud itself, and of disks that are not the machine's",
            "{ a = { BASE deployment.targetEnv = \"ec2\"; deployment.ec2.blockDeviceMapping.\"/dev/xvdg\" = { encrypt = true; encryptionType = \"ebs\"; }; };
               b = { BASE deployment.targetEnv = \"virtualbox\"; deployment.ec2.blockDeviceMapping.\"/dev/xvdg\".encrypt = true; }; }",
        )
        .gives("/nodes/a/exact/system", json!("x86_64-linux"))
        .gives("/nodes/b/exact/system", json!("x86_64-linux")),
    ]
}

fn without_machines() -> Vec<Row> {
    let platform = std::env::consts::ARCH.to_owned() + "-linux";
    vec![
        row(
            "packages are those for this computer while there is no machine",
            "{ a = { pkgs, ... }: { deployment.ec2.region = pkgs.lib.mkDefault \"eu-west-1\"; deployment.targetHost = pkgs.system; }; }",
        )
        .with(&NO_MACHINES)
        .gives("/described/nodes/a/deployment/ec2/region", json!("eu-west-1"))
        .gives("/described/nodes/a/deployment/targetHost", json!(platform)),
        row(
            "what takes a fact that is not there is null, whatever else there is",
            "{ d, ... }: { a = { config, nodes, lib, ... }: { options.deployment.owner = lib.mkOption { type = lib.types.str; };
                 config = { deployment.targetHost = config.networking.privateIPv4; deployment.owners = [ nodes.b.config.networking.privateIPv4 \"x\" ];
                   deployment.ec2.tags = { inherit d; e = \"e\"; }; }; };
               b = { }; resources.t.r = { nodes, ... }: { ip = nodes.b.config.networking.privateIPv4; x = 1; }; }",
        )
        .with(&NO_MACHINES)
        .with(&["--arguments", r#"{"d":{"__unknown":"arguments.d"}}"#])
        .gives("/described/nodes/a/deployment/targetHost", Value::Null)
        .gives("/described/nodes/a/deployment/owners", json!([null, "x"]))
        .gives("/described/nodes/a/deployment/ec2/tags", Value::Null)
        .gives("/described/nodes/a/deployment/owner", Value::Null)
        .gives("/described/resources/t/r/ip", Value::Null)
        .gives("/described/resources/t/r/x", json!(1))
        .gives("a:networking.privateIPv4", Value::Null)
        .gives("a:deployment.owner", Value::Null)
        .gives("a:no.such", Value::Null),
        row("a fact that a machine does not have", "{ a = { config, ... }: { BASE deployment.targetHost = config.networking.privateIPv4; }; }")
            .with(&["--machines", r#"{"a":{}}"#])
            .gives("/described/nodes/a/deployment/targetHost", Value::Null),
    ]
}

#[test]
fn networks_of_nixops_refer_to_what_they_did() {
    for nix in installations() {
        let rows = [references(), modules_of_resources(), disks(), without_machines()];
        for mut row in rows.into_iter().flatten() {
            for (_, expected) in &mut row.expected {
                if let Some(package) = expected.get_mut("package") {
                    *package = hello(&nix);
                }
            }
            let outcome = row.check(&nix);
            assert!(
                !outcome.result["described"].to_string().contains("hidden"),
                "{}: {:#}",
                row.what,
                outcome.result
            );
        }
    }
}

/// Where a package of mini-nixos is.
fn hello(nix: &Installation) -> Value {
    let nixpkgs =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/mini-nixos").canonicalize().unwrap();
    let expression = format!(
        "builtins.unsafeDiscardStringContext (import {} {{ system = \"x86_64-linux\"; }}).hello.outPath",
        nixpkgs.display()
    );
    let mut command = Command::new("nix-instantiate");
    let output =
        command.args(["--eval", "--json", "--expr", &expression]).env("PATH", &nix.0).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What is a mistake is said, where a machine may be missing, too, and with the name of the file.
#[test]
fn a_mistake_is_no_missing_value() {
    let cases = [
        (
            "{ a = { BASE deployment.ec2.instanceTyp = \"x\"; }; }",
            &["deployment.ec2.instanceTyp", "network.nix"][..],
        ),
        (
            "{ a = { BASE deployment.ec2.instanceType = 5; }; }",
            &["deployment.ec2.instanceType", "network.nix"],
        ),
        ("{ a = { BASE deployment.ec2.region = throw \"MY MISTAKE\"; }; }", &["MY MISTAKE", "network.nix"]),
        ("{ a = { ... }: { BASE deployment.ec2.tags.x = { }.missing; }; }", &["missing", "network.nix"]),
        ("{ a = { BASE deployment.owners = [ \"x\" (throw \"MY MISTAKE\") ]; }; }", &["MY MISTAKE"]),
        ("{ a = { BASE }; resources.t.r.x = throw \"MY MISTAKE\"; }", &["MY MISTAKE", "network.nix"]),
        (
            "{ a = { BASE deployment.container.host = { none = 1; }; }; }",
            &["stands for nothing that has a name", "`a`"],
        ),
        (
            "{ a = { BASE deployment.ec2.physicalProperties = let x = { inherit x; }; in x; }; }",
            &["physicalProperties.x.x", "contain itself"],
        ),
        (
            "{ a = { BASE }; resources.t.r = let x = [ x ]; in { inherit x; }; }",
            &["resources.t.r.x.0.0", "contain itself"],
        ),
        (
            "{ a = { BASE deployment.ec2.physicalProperties.p = builtins.listToAttrs (builtins.genList (n: { name = toString n; value = n; }) 9999); }; }",
            &["ec2.physicalProperties.p", "9999 attributes"],
        ),
        // Before anything is said about it.
        ("{ network = \"meh\"; a = { BASE }; }", &["expected a set such as"]),
        ("{ a = { config, ... }: { BASE imports = [ config.x ]; }; }", &["infinite recursion"]),
        // An option without a value is none; what needs it is.
        (
            "{ a = { config, lib, ... }: { options.deployment.owner = lib.mkOption { type = lib.types.str; }; config = { BASE deployment.targetHost = config.deployment.owner; }; }; }",
            &["deployment.owner", "used but not defined"],
        ),
    ];
    for nix in installations() {
        for (text, says) in cases {
            let outcome = Site::new(&[("network.nix", complete(text))]).evaluate(&nix, &NO_MACHINES);
            for said in says {
                assert!(
                    outcome.error.contains(said),
                    "{text}\n does not say {said:?}:\n{}\n{:#}",
                    outcome.error,
                    outcome.result
                );
            }
            assert!(!outcome.error.contains("lib/nodes.nix'"), "our own file is named: {}", outcome.error);
        }
    }
}

/// With several files the question is which.
#[test]
fn mistakes_are_in_files() {
    let unknown = "environment.etc.x.noSuch = 1;";
    for (first, second, names) in [
        (format!("{{ require = [ ./b.nix ]; a = {{ BASE {unknown} }}; }}"), "{ }".to_owned(), "network.nix"),
        (
            format!("{{ require = [ ./b.nix ]; a = {{ ... }}: {{ BASE imports = [ {{ {unknown} }} ]; }}; }}"),
            "{ }".to_owned(),
            "network.nix",
        ),
        (
            "{ require = [ ./b.nix ]; a = { BASE }; }".to_owned(),
            format!("{{ a = {{ lib, ... }}: {{ {unknown} }}; }}"),
            "b.nix",
        ),
        (
            "{ require = [ ./b.nix ]; a = { BASE }; }".to_owned(),
            format!("{{ defaults = {{ lib, ... }}: {{ {unknown} }}; }}"),
            "b.nix",
        ),
        (
            "{ require = [ ./b.nix ]; a = { BASE }; }".to_owned(),
            "{ a = { imports = [ ./c.nix ]; }; }".to_owned(),
            "c.nix",
        ),
    ] {
        for nix in installations() {
            let files = [
                ("network.nix", complete(&first)),
                ("b.nix", second.clone()),
                ("c.nix", format!("{{ {unknown} }}")),
            ];
            let site = Site::new(&files);
            let outcome = site.evaluate(&nix, &["--machines", r#"{"a":{}}"#]);
            let file = site.0.path().canonicalize().unwrap().join(names);
            let shown = format!("{}{:#}", outcome.error, outcome.result);
            assert!(shown.contains(&format!("- In `{}'", file.display())), "{first} {second}\n{shown}");
        }
    }
}

#[test]
fn disks_that_nobody_would_open_are_refused() {
    for (body, says) in [
        (
            "fileSystems.\"/secret\" = { device = \"/dev/mapper/xvdg\"; ec2.encrypt = true; };",
            "`encrypt` of /dev/xvdg",
        ),
        (
            "deployment.targetEnv = \"ec2\"; deployment.ec2.blockDeviceMapping.\"/dev/xvdh\".encrypt = true;",
            "`encrypt` of /dev/xvdh",
        ),
        (
            "deployment.targetEnv = \"gce\"; deployment.gce.machineName = \"m\"; fileSystems.\"/s\".gce = { size = 1; encrypt = true; };",
            "PersistentDisk_m-s",
        ),
        ("fileSystems.\"/s\".azure = { lun = 1; encrypt = true; };", "/dev/disk/by-lun/1"),
        ("deployment.azure.blockDeviceMapping.\"/dev/sdc\".encrypt = true;", "/dev/sdc"),
    ] {
        for nix in installations() {
            let network = complete(&format!("{{ a = {{ BASE {body} }}; }}"));
            let outcome =
                Site::new(&[("network.nix", network)]).evaluate(&nix, &["--machines", r#"{"a":{}}"#]);
            let trace =
                outcome.result["nodes"]["a"]["broken"]["trace"].as_str().unwrap_or_default().to_owned();
            assert!(
                trace.contains(says) && trace.contains("autoLuks"),
                "{body}\n{}\n{:#}",
                outcome.error,
                outcome.result
            );
        }
    }
}
