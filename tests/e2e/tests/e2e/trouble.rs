//! When things are missing, wrong, full or cut off.

use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::World;
use lab::HostOptions;

use crate::support::{
    HEAD, SLEEPER, apply, cat, fails_saying, machine, no_changes, one, plan, runs, says, set_up, site,
    succeeds, world,
};

#[test]
fn an_unreachable_machine_is_a_warning_at_plan_and_an_error_at_apply() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    world.lab.host("web").power_cut().unwrap();

    let quick = "provider \"nixos\" { ssh = { connect_timeout = \"2s\" } }\n";
    world.write("main.tf", &(site(&world, &["web"], "") + quick)).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["Warning: Machine \"web\" cannot be reached", "No changes."]);

    world.write("main.tf", &(site(&world, &["web"], "on_unreachable = \"fail\"") + quick)).unwrap();
    says(&plan(&world), &["1 to change"]);
    world.write("main.tf", &(site(&world, &["web"], "timeouts = { update = \"4s\" }") + quick)).unwrap();
    world.write("network.nix", &one(SLEEPER)).unwrap();
    fails_saying(&apply(&world), &["machine \"web\"", "limit of 4 s"]);

    world.lab.host("web").power_on().unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn a_limit_of_time_ends_an_evaluation_too() {
    let world = world(&["web"]);
    let control = world.lab.control();
    // Reading it takes for ever, but not before the deployment has an id.
    control.exec(&["mkfifo", "/root/word"]).unwrap();
    let text =
        "{ uuid, ... }: { environment.etc.word.text = builtins.seq uuid (builtins.readFile /root/word); }";
    let main = site(&world, &["web"], "timeouts = { create = \"6s\" }");
    set_up(&world, &main, &one(&format!("imports = [ ({text}) ];")));
    fails_saying(&apply(&world), &["Cancelled", "limit of 6 s", "No machine was changed"]);
    assert!(!runs(control, "nix-instantiate"), "Nix was left behind");
    assert!(world.resource("nixos_deployment.site").is_null(), "nothing came to be");

    control.exec(&["sh", "-c", "rm /root/word; echo y > /root/word"]).unwrap();
    succeeds(&apply(&world));
    assert_eq!(cat(&world, "web", "/etc/word").trim(), "y");
    no_changes(&world);
}

#[test]
fn a_machine_that_never_answers_is_not_created() {
    let world = world(&[]);
    let main = format!(
        "{HEAD}provider \"nixos\" {{ ssh = {{ connect_timeout = \"1s\" }} }}\nresource \"nixos_machine\" \
         \"gone\" {{\n  name = \"gone\"\n  ssh = {{ host = \"10.88.0.99\" }}\n  timeouts = {{ create = \
         \"3s\" }}\n}}\n"
    );
    set_up(&world, &main, "");
    fails_saying(&apply(&world), &["Machine \"gone\" cannot be reached", "10.88.0.99", "ssh = "]);
    assert!(world.resource("nixos_machine.gone").is_null(), "nothing is in state");
}

#[test]
fn only_the_right_host_key_is_accepted() {
    let world = world(&["db", "web"]);
    let (db, web) = (world.lab.host("db"), world.lab.host("web"));
    let wrong = machine(&world, "web", "").replace(&web.host_public_key(), &db.host_public_key());
    set_up(&world, &format!("{HEAD}{wrong}"), "");
    fails_saying(&apply(&world), &["The host key of machine \"web\"", "host_public_key"]);

    // Strict is the default, and known_hosts knows nothing.
    let unpinned = format!(
        "{HEAD}resource \"nixos_machine\" \"web\" {{\n  name = \"web\"\n  ssh = {{ host = \"{}\" }}\n}}\n",
        web.address()
    );
    world.write("main.tf", &unpinned).unwrap();
    fails_saying(&apply(&world), &["The host key of machine \"web\" is not known", "accept_new"]);

    // Trust on first use, pinned from then on.
    world
        .write("main.tf", &(unpinned + "provider \"nixos\" { ssh = { host_key_policy = \"accept_new\" } }\n"))
        .unwrap();
    succeeds(&apply(&world));
    assert_eq!(world.resource("nixos_machine.web")["host_public_key"], web.host_public_key().as_str());
    no_changes(&world);
    let known = world.lab.control().exec(&["ls", "-A", "/root/.ssh"]).unwrap().stdout;
    assert!(!known.contains("known_hosts"), "the user's own known_hosts is left alone: {known}");
    web.exec(&[
        "sh",
        "-c",
        "rm /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; \
                            systemctl restart ssh",
    ])
    .unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(
        &run,
        &["Warning: The host key of machine \"web\" is not the expected one", "-replace", "No changes."],
    );
    // What is replaced is met anew.
    succeeds(&world.terraform(&["apply", "-auto-approve", "-input=false", "-replace=nixos_machine.web"]));
    assert_eq!(world.resource("nixos_machine.web")["host_public_key"], web.host_public_key().as_str());
    no_changes(&world);
}

#[test]
fn missing_tools_are_named() {
    let world = world(&["web"]);
    let control = world.lab.control();
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    // PATH with everything but the one tool.
    let without = |tool: &str| {
        let script = format!(
            "rm -rf /root/bin; mkdir /root/bin; for f in /usr/bin/* /usr/local/bin/*; do ln -sf $f \
             /root/bin/; done; rm -f /root/bin/{tool}*"
        );
        control.exec(&["sh", "-c", &script]).unwrap();
    };
    let path = [("PATH", "/root/bin")];
    without("nix");
    fails_saying(
        &world.terraform_with(&path, &["plan"]),
        &["Nix was not found", "2.8", "nixos.org/download"],
    );
    // Debian has no Nix that is too old any more; its version is all that is asked of this one.
    control.write_file("/root/bin/nix", "#!/bin/sh\necho 'nix (Nix) 2.3.16'\n").unwrap();
    control.exec(&["chmod", "+x", "/root/bin/nix"]).unwrap();
    fails_saying(
        &world.terraform_with(&path, &["plan"]),
        &["Nix is too old", "version 2.3; 2.8 or later is needed"],
    );
    // Nor has it this one.
    control.write_file("/root/bin/nix", "#!/bin/sh\necho 'nix (Nix) 2.15.3'\n").unwrap();
    fails_saying(
        &world.terraform_with(&path, &["plan"]),
        &["Nix 2.15 cannot be used", "nix copy", "nixos.org/download"],
    );
    without("ssh");
    let run = world.terraform_with(&path, &["apply", "-auto-approve"]);
    fails_saying(&run, &["OpenSSH's client was not found", "openssh-client"]);
}

#[test]
fn a_full_disk_stops_before_anything_is_activated() {
    let small = HostOptions { disk_bytes: Some(24 << 20), ..HostOptions::default() };
    let world = World::boot_with(&[("web", small)], &|_| {}).unwrap();
    let installed = world.current_system("web");
    set_up(
        &world,
        &site(&world, &["web"], ""),
        &one("environment.etc.big.source = pkgs.runCommand \"big\" {} \
        ''/bin/busybox dd if=/dev/urandom of=$out bs=1M count=48'';"),
    );
    fails_saying(&apply(&world), &["No space is left on machine \"web\"", "still runs what it ran before"]);
    assert_eq!(world.current_system("web"), installed);
}

#[test]
fn a_private_key_given_as_a_value_is_seen_nowhere() {
    let world = world(&["web", "gate"]);
    let control = world.lab.control();
    // The only key there is, and not where OpenSSH would find it by itself.
    control.exec(&["mv", "/root/.ssh/id_ed25519", "/root/admin-key"]).unwrap();
    let provider = "variable \"key\" {\n  type = string\n  sensitive = true\n}\n\
        provider \"nixos\" { ssh = { private_keys = { admin = var.key } } }\n";
    let address = world.lab.host("web").address();
    let gate = world.lab.host("gate");
    let bastion = format!(
        "bastion = {{ host = \"{}\", user = \"root\", key = \"admin\", host_public_key = \"{}\" }}",
        gate.address(),
        gate.host_public_key()
    );
    let main = format!("{}{provider}", site(&world, &["web"], "")).replace(
        &format!("host = \"{address}\""),
        &format!("host = \"{address}\", key = \"admin\", {bastion}"),
    );
    set_up(&world, &main, &one(""));
    let key = control.read_file("/root/admin-key").unwrap();
    let run = world
        .terraform_with(&[("TF_LOG_PROVIDER", "TRACE"), ("TF_VAR_key", &key)], &["apply", "-auto-approve"]);
    succeeds(&run);
    let through = gate.exec(&["journalctl", "-o", "cat", "-t", "sshd", "-t", "sshd-session"]).unwrap().stdout;
    assert!(through.contains("Accepted publickey for root"), "it went over the bastion: {through}");
    let secret = key.lines().nth(2).unwrap();
    assert!(run.text.contains("@module=provider.nixos"), "the provider logs where it is asked to");
    assert!(!run.text.contains(secret), "the log must not have the key");
    let found = control
        .exec(&["grep", "-rlF", secret, e2e::DIRECTORY, "/tmp", "/nix/store", "/root/.local"])
        .unwrap();
    assert_eq!(found.stdout, "", "the key was written down");
    let left = control.exec(&["find", "/tmp", "-mindepth", "1", "-not", "-name", ".*"]).unwrap();
    assert_eq!(left.stdout, "", "nothing is left in /tmp");
    let wrong = world.terraform_with(&[("TF_VAR_key", "no key at all")], &["plan"]);
    fails_saying(&wrong, &["what `private_keys` has for it is not a private key without a passphrase"]);
}

#[test]
fn a_provider_that_is_killed_leaves_no_key_behind() {
    let world = world(&[]);
    let control = world.lab.control();
    let key = control.read_file("/root/.ssh/id_ed25519").unwrap();
    let secret = key.lines().nth(2).unwrap();
    // Nobody has this address: the provider tries to connect for as long as it is let.
    let main = format!(
        "{HEAD}variable \"key\" {{\n  type = string\n  ephemeral = true\n}}\nprovider \"nixos\" {{ ssh = \
         {{ private_keys = {{ admin = var.key }} }} }}\nresource \"nixos_machine\" \"web\" {{\n  name = \
         \"web\"\n  ssh = {{ host = \"10.88.0.99\", key = \"admin\", host_key_policy = \"off\", bastion = \
         {{ host = \"10.88.0.98\", key = \"admin\" }} }}\n}}\n"
    );
    world.write("main.tf", &main).unwrap();
    succeeds(&world.terraform(&["init"]));
    let mut command =
        world.terraform_command(&[("TF_VAR_key", &key)], &["apply", "-auto-approve", "-input=false"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !(runs(control, "ssh -F /tmp/nixos-ssh-") && runs(control, "ssh-agent")) {
        assert!(start.elapsed() < Duration::from_mins(1), "it does not try to connect");
        std::thread::sleep(Duration::from_millis(20));
    }
    control.exec(&["pkill", "-KILL", "-f", "terraform-provider-nixos"]).unwrap();
    child.wait().unwrap();
    let found = control.exec(&["grep", "-rlF", secret, "/tmp", "/run", "/dev/shm", "/root/site"]).unwrap();
    assert_eq!(found.stdout, "", "the key is on a disk");
    let there = control.exec(&["sh", "-c", "ls /tmp/nixos-ssh-*"]).unwrap().stdout;
    assert!(there.contains("key.pub"), "it was killed before it could tidy up: {there}");
    let start = Instant::now();
    while runs(control, "ssh-agent") || runs(control, "ssh -F /tmp/nixos-ssh-") {
        assert!(start.elapsed() < Duration::from_secs(30), "what has the key goes with the provider");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_agent_that_is_not_whole_is_brought_again_and_old_ones_go() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    // What a power cut may leave: the shell takes an empty file for a program that succeeds.
    let script = "cd /var/lib/nixos-agent/bin && : >\"$(echo */nixos-agent)\" && mkdir old needed recent \
                  && for one in old needed recent; do printf '#!/bin/sh\\n' >$one/nixos-agent; chmod 755 \
                  $one/nixos-agent; done && touch -d '10 days ago' old/nixos-agent needed/nixos-agent && \
                  mkdir -p /run/systemd/transient && printf \
                  '[Service]\\nExecStart=/var/lib/nixos-agent/bin/needed/nixos-agent run x\\n' \
                  >/run/systemd/transient/x.service";
    let made = web.exec(&["sh", "-c", script]).unwrap();
    assert!(made.success, "{}", made.stderr);
    for text in ["a", "b"] {
        world.write("network.nix", &one(&format!("environment.etc.{text}.text = \"\";"))).unwrap();
        succeeds(&apply(&world));
    }
    let left = web.exec(&["sh", "-c", "cd /var/lib/nixos-agent/bin && ls -d [nor]*"]).unwrap().stdout;
    assert_eq!(left, "needed\nrecent\n");
    no_changes(&world);
}

#[test]
fn users_of_a_machine_cannot_keep_deployments_away() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    let hold = "for lock in /run/nixos-agent/lock /run/nixos-agent.lock; do [ -e $lock ] || exit 0; flock \
                -n $lock true && exit 9; done; true";
    let as_user = ["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", "sh", "-c", hold];
    assert!(web.exec(&as_user).unwrap().success, "a user could hold the lock");
    let looks = web.exec(&["stat", "-c", "%a", "/run/nixos-agent", "/run/nixos-agent/lock"]).unwrap().stdout;
    assert_eq!(looks, "700\n600\n");
}
