//! Machines that are unlike what whoever logs in expects. Each is deployed to, or one message says what is in the way.

use e2e::World;
use lab::{HostOptions, Login};

use crate::support::{HEAD, SLEEPER, apply, fails_saying, no_changes, one, set_up, site, succeeds};

fn world_of(hosts: &[(&str, HostOptions)]) -> World {
    World::boot_with(hosts, &|step| eprintln!("{step}")).unwrap()
}

/// A network in which every host runs a service, and reads a text with all that shells find special.
fn network(hosts: &[&str], text: &str) -> String {
    let nodes = hosts.iter().map(|name| {
        format!(
            "{name} = {{ pkgs, ... }}: {{ nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \
             \"24.11\"; {SLEEPER} environment.etc.motd.text = \"{text}\"; }};"
        )
    });
    format!("{{ {} }}", nodes.collect::<String>())
}

#[test]
fn login_shells_and_servers_of_all_kinds_are_deployed_to() {
    let forced = "ForceCommand /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"";
    let kinds = [
        ("fish", Login::with_shell("/usr/bin/fish")),
        ("tcsh", Login::with_shell("/bin/tcsh")),
        ("csh", Login::with_shell("/bin/csh")),
        ("german", Login::with_locale("de_DE.UTF-8")),
        (
            "strict",
            Login::with_sshd(&[
                "DisableForwarding yes",
                "PermitTTY no",
                "MaxSessions 3",
                "MaxStartups 1",
                "MaxAuthTries 1",
                "Banner /etc/ssh/ssh_config",
                "PrintMotd yes",
                forced,
            ]),
        ),
    ];
    let names = kinds.clone().map(|(name, _)| name);
    let world = world_of(&kinds);
    let health = "health_checks = { sleeps = { command = [\"sh\", \"-c\", \"test \\\"$(cat /etc/motd)\\\" = \
                  \\\"it's!! one\\\"\"] } }\nsecrets = { word = { file = \"/root/word\" } }";
    world.lab.control().write_file("/root/word", "it's!!\nsecret").unwrap();
    set_up(&world, &site(&world, &names, health), &network(&names, "it's!! one"));
    succeeds(&apply(&world));
    no_changes(&world);
    for name in names {
        let host = world.lab.host(name);
        assert_eq!(host.exec(&["cat", "/etc/motd"]).unwrap().stdout, "it's!! one", "{name}");
        assert_eq!(host.read_file("/run/keys/word").unwrap_or_default(), "", "{name}: it is in memory");
        assert_eq!(host.exec(&["cat", "/run/keys/word"]).unwrap().stdout, "it's!!\nsecret", "{name}");
    }
    // What is wrong there is told apart whatever language it is said in.
    let german = world.lab.host("german");
    german.exec(&["mount", "-t", "tmpfs", "-o", "size=64k", "none", "/var/lib/nixos-agent"]).unwrap();
    world.write("network.nix", &network(&names, "it's!! one").replace("sleeper", "other")).unwrap();
    fails_saying(&apply(&world), &["No space is left on machine \"german\""]);
}

#[test]
fn machines_that_let_nobody_work_say_which_setting_mends_it() {
    let kinds = [
        ("nologin", Login::with_shell("/usr/sbin/nologin")),
        ("false", Login::with_shell("/bin/false")),
        ("noisy", Login::with_greeting("Welcome to the machine")),
        ("one", Login::with_sshd(&["MaxSessions 1"])),
        ("two", Login::with_sshd(&["MaxSessions 2"])),
        ("sftp", Login::with_sshd(&["ForceCommand internal-sftp"])),
        ("right", HostOptions::default()),
    ];
    let names = kinds.clone().map(|(name, _)| name);
    let world = world_of(&kinds);
    let before = names.map(|name| world.current_system(name));
    let machines: Vec<String> = names
        .iter()
        .map(|name| {
            let host = world.lab.host(name);
            format!(
                "{name} = {{ host = \"{}\", host_public_key = \"{}\" }}",
                host.address(),
                host.host_public_key()
            )
        })
        .collect();
    let main = format!(
        "{HEAD}resource \"nixos_deployment\" \"site\" {{\n  network = \"${{path.module}}/network.nix\"\n  \
         machines = {{ {} }}\n}}\n",
        machines.join(", ")
    );
    set_up(&world, &main, &network(&names, "x"));
    let run = apply(&world);
    fails_saying(
        &run,
        &[
            "No connection to machine \"nologin\"",
            "This account is currently not available",
            "No connection to machine \"false\"",
            "ended without a word",
            "The login shell of machine \"noisy\" is not quiet",
            "Welcome to the machine",
            "Machine \"one\" allows too few sessions in one connection",
            "Machine \"two\" allows too few sessions in one connection",
            "`MaxSessions`",
            "No connection to machine \"sftp\"",
            "`ForceCommand`",
        ],
    );
    let after = names.map(|name| world.current_system(name));
    assert_eq!(before[..6], after[..6], "nothing is half-done");
    assert_ne!(before[6], after[6], "the others are deployed:\n{}", run.text);
}

#[test]
fn a_password_for_root_needs_a_terminal() {
    let login = Login::with_sshd(&["PermitTTY no"]);
    let world = world_of(&[("web", login)]);
    let web = world.lab.host("web");
    web.write_file("/etc/sudoers.d/deploy", "deploy ALL=(ALL) ALL\n").unwrap();
    web.exec(&["sh", "-c", "echo deploy:pw | chpasswd"]).unwrap();
    let provider = "provider \"nixos\" { ssh = { user = \"deploy\", elevate = [\"sudo\"], elevate_password \
                    = \"pw\" } }\n";
    set_up(&world, &format!("{}{provider}", site(&world, &["web"], "")), &one(""));
    let run = apply(&world);
    fails_saying(&run, &["No root login on machine \"web\"", "`PermitTTY yes`"]);
}
