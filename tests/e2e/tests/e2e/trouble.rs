//! When things are missing, wrong, full, cut off or interrupted.

use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::World;
use lab::HostOptions;

use crate::support::{
    HEAD, SLEEPER, apply, apply_until, cat, fails_saying, machine, no_changes, one, plan, runs, says, set_up,
    site, succeeds, world,
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
        "{HEAD}provider \"nixos\" {{ ssh = {{ connect_timeout = \"1s\" }} }}\nresource \"nixos_machine\" \"gone\" {{\n  name = \"gone\"\n  \
         ssh = {{ host = \"10.88.0.99\" }}\n  timeouts = {{ create = \"3s\" }}\n}}\n"
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
    web.exec(&["sh", "-c", "rm /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; systemctl restart ssh"]).unwrap();
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
            "rm -rf /root/bin; mkdir /root/bin; for f in /usr/bin/* /usr/local/bin/*; do ln -sf $f /root/bin/; done; rm -f /root/bin/{tool}*"
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

fn interrupt(world: &World, pattern: &str, signal: &str) {
    world.lab.control().exec(&["pkill", signal, "-f", pattern]).unwrap();
}

#[test]
fn ctrl_c_during_a_build_leaves_everything_as_it_was() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    let before = world.current_system("web");

    let slow =
        "environment.etc.slow.source = pkgs.runCommand \"slow\" {} ''/bin/busybox sleep 300; echo > $out'';";
    world.write("network.nix", &one(slow)).unwrap();
    let child = apply_until(&world, || runs(world.lab.control(), "busybox sleep 300"));
    let start = Instant::now();
    interrupt(&world, "^terraform", "-INT");
    let output = child.wait_with_output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(start.elapsed() < Duration::from_secs(20), "it took {:?} to stop", start.elapsed());
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("Cancelled"), "{text}");
    assert_eq!(world.current_system("web"), before);
    assert!(!runs(world.lab.control(), "busybox sleep 300"), "the build is gone");
    assert!(!runs(world.lab.control(), "terraform-provider-nixos"), "the provider is gone");
    assert!(!runs(world.lab.control(), "ssh -F"), "the connections are gone");

    world.write("network.nix", &one("")).unwrap();
    no_changes(&world);
}

/// A system whose activation takes a while.
const SLOW: &str = "system.activationScripts.slow = \"sleep 6\";";

#[test]
fn ctrl_c_during_activation_waits_for_the_outcome() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    world.write("network.nix", &one(SLOW)).unwrap();
    let child = apply_until(&world, || runs(world.lab.host("web"), "sleep 6"));
    interrupt(&world, "^terraform", "-INT");
    child.wait_with_output().unwrap();
    let state = world.resource("nixos_deployment.site");
    assert_eq!(
        state["systems"]["web"]["toplevel"],
        world.current_system("web").as_str(),
        "state tells the truth"
    );
    no_changes(&world);
}

#[test]
fn an_activation_survives_the_death_of_terraform_and_the_provider() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], "confirm_timeout = \"0s\""), &one(""));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    let web = world.lab.host("web");
    web.write_file("/root/hold", "").unwrap();
    let held =
        "system.activationScripts.held = \"while [ -e /root/hold ]; do : > /root/held; sleep 0.1; done\";";
    world.write("network.nix", &one(held)).unwrap();
    let child =
        apply_until(&world, || web.exec(&["test", "-e", "/root/held"]).is_ok_and(|held| held.success));
    interrupt(&world, "terraform", "-KILL");
    child.wait_with_output().unwrap();
    assert_eq!(world.current_system("web"), before, "its activation is held up");
    web.exec(&["rm", "/root/hold"]).unwrap();
    let start = Instant::now();
    while world.current_system("web") == before || runs(world.lab.host("web"), "nixos-agent run") {
        assert!(start.elapsed() < Duration::from_secs(30), "the agent goes on by itself");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(!runs(world.lab.control(), "ssh -F"), "no connection outlives the provider");
    // The killed run could not write its state, and its lock is still there; the machine's own word is what counts.
    let run = world.terraform(&["apply", "-auto-approve", "-lock=false"]);
    succeeds(&run);
    no_changes(&world);
}

#[test]
fn a_broken_connection_during_activation_is_taken_up_again() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    world.write("network.nix", &one(SLOW)).unwrap();
    let child = apply_until(&world, || runs(world.lab.host("web"), "sleep 6"));
    // As when the switch restarts the network: every connection dies, sshd comes back.
    world.lab.host("web").exec(&["pkill", "-KILL", "-f", "sshd-session"]).unwrap();
    let output = child.wait_with_output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    no_changes(&world);
}

#[test]
fn a_killed_agent_goes_on_where_it_was() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], "confirm_timeout = \"4s\""), &one(""));
    succeeds(&apply(&world));
    let web = world.lab.host("web");
    let kill = || web.exec(&["pkill", "-KILL", "-f", "nixos-agent run"]).unwrap();
    // While it activates, and while it installs the boot loader.
    for (network, at) in [(SLOW, "sleep 6"), ("testing.bootLoader = \"sleep 7\";", "sleep 7")] {
        world.write("network.nix", &one(network)).unwrap();
        let child = apply_until(&world, || runs(web, at));
        kill();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(0), "{at}: {text}");
        no_changes(&world);
        let boots = web.read_file("/boot/default-system").unwrap();
        assert_eq!(boots.trim(), world.current_system("web"), "{at}");
    }

    // Also with nobody left to wait for it; another one does not get in its way.
    world.write("network.nix", &one(&SLOW.replace("sleep 6", "sleep 6; true"))).unwrap();
    let child = apply_until(&world, || runs(web, "sleep 6"));
    kill();
    interrupt(&world, "terraform", "-KILL");
    child.wait_with_output().unwrap();
    let again = || world.terraform(&["apply", "-auto-approve", "-lock=false"]);
    fails_saying(&again(), &["Another activation"]);
    let start = Instant::now();
    while runs(web, "nixos-agent run") {
        assert!(start.elapsed() < Duration::from_secs(30), "the agent comes to its end");
        std::thread::sleep(Duration::from_millis(100));
    }
    succeeds(&again());
    no_changes(&world);
}

#[test]
fn an_activation_that_nobody_ends_is_ended_by_systemd() {
    let world = world(&["web"]);
    let main = site(&world, &["web"], "activation_timeout = \"8s\"\n  confirm_timeout = \"2s\"");
    set_up(&world, &main, &one(""));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    let web = world.lab.host("web");
    world.write("network.nix", &one(SLOW)).unwrap();
    let child = apply_until(&world, || runs(web, "sleep 6"));
    // Stopped in order, it is not started again; its switch goes on by itself.
    web.exec(&["systemctl", "stop", "nixos-agent-????????-*.service"]).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("did not come to an end. The machine went back to"), "{text}");
    assert_eq!(world.current_system("web"), before);
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn a_system_that_locks_us_out_goes_back_by_itself() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let (address, control) = (web.address(), world.lab.control().address());
    set_up(&world, &site(&world, &["web"], "confirm_timeout = \"6s\""), &one(""));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    for (what, start, stop) in [
        ("sshd does not run", "systemctl stop ssh ssh.socket".to_owned(), "systemctl start ssh".to_owned()),
        ("its network is down", "ip link set eth0 down".to_owned(), "ip link set eth0 up".to_owned()),
        (
            "it answers us no more",
            format!("ip route add prohibit {control}"),
            format!("ip route del prohibit {control}"),
        ),
        (
            "it has another address",
            format!("ip address add 10.88.0.77/24 dev eth0; ip address del {address}/24 dev eth0"),
            format!("ip address add {address}/24 dev eth0; ip address del 10.88.0.77/24 dev eth0"),
        ),
        (
            "our key is gone",
            "mv /root/.ssh/authorized_keys /root/.ssh/away".to_owned(),
            "mv /root/.ssh/away /root/.ssh/authorized_keys".to_owned(),
        ),
    ] {
        let unit = format!(
            "systemd.services.lockout = {{ wantedBy = [ \"multi-user.target\" ]; serviceConfig = {{ Type = \"oneshot\"; \
             RemainAfterExit = true; ExecStart = \"/bin/sh -c '{start}'\"; ExecStop = \"/bin/sh -c '{stop}'\"; \
             Environment = [ \"PATH=/usr/sbin:/usr/bin:/sbin:/bin\" ]; }}; }};"
        );
        world.write("network.nix", &one(&unit)).unwrap();
        let run = apply(&world);
        fails_saying(
            &run,
            &[
                "was rolled back on machine \"web\"",
                "No login confirmed the new system within 6 s",
                "went back to",
            ],
        );
        assert_eq!(world.current_system("web"), before, "{what}");
        says(&plan(&world), &["units added: lockout.service", "1 to change"]);
    }
    let timers = web.exec(&["systemctl", "list-timers", "--all", "nixos-agent-*"]).unwrap();
    assert!(timers.stdout.contains("0 timers"), "{}", timers.stdout);
    world.write("network.nix", &one("")).unwrap();
    no_changes(&world);
}

#[test]
fn a_death_between_profile_and_boot_loader_is_not_forgotten() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    world.write("network.nix", &one("testing.bootLoader = \"[ -e /root/quick ] || sleep 7\";")).unwrap();
    let web = world.lab.host("web");
    let boots = || web.read_file("/boot/default-system").unwrap().trim().to_owned();
    let child = apply_until(&world, || runs(web, "sleep 7"));
    web.power_cut().unwrap();
    web.power_on().unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("The agent was killed there, or the machine was restarted"), "{text}");

    let profile = web.exec(&["readlink", "-f", "/nix/var/nix/profiles/system"]).unwrap().stdout;
    assert_ne!(boots(), profile.trim(), "the profile was set, the boot loader was not installed");
    web.write_file("/root/quick", "").unwrap();
    says(&plan(&world), &["1 to change"]);
    succeeds(&apply(&world));
    assert_eq!(boots(), profile.trim());
    no_changes(&world);
}

#[test]
fn a_machine_that_locks_us_out_while_it_activates_is_kept_in_state() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], "confirm_timeout = \"4s\""), &one(SLOW));
    let web = world.lab.host("web");
    let child = apply_until(&world, || runs(web, "sleep 6"));
    web.exec(&["mv", "/root/.ssh/authorized_keys", "/root/.ssh/away"]).unwrap();
    web.exec(&["pkill", "-KILL", "-f", "sshd-session"]).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("refused the login"), "{text}");
    assert!(text.contains("what came of it is not known"), "{text}");
    assert!(world.resource("nixos_deployment.site").is_object(), "something was done, so it is in state");

    web.exec(&["mv", "/root/.ssh/away", "/root/.ssh/authorized_keys"]).unwrap();
    let start = Instant::now();
    while runs(web, "nixos-agent run") {
        assert!(start.elapsed() < Duration::from_secs(30), "the agent comes to an end");
        std::thread::sleep(Duration::from_millis(100));
    }
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn an_agent_that_is_deleted_while_it_works_ends_the_wait() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(SLOW));
    let web = world.lab.host("web");
    let child = apply_until(&world, || runs(web, "sleep 6"));
    web.exec(&["rm", "-r", "/var/lib/nixos-agent/bin"]).unwrap();
    web.exec(&["pkill", "-KILL", "-f", "sshd-session"]).unwrap();
    let start = Instant::now();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("could not be activated on machine \"web\""), "{text}");
    assert!(start.elapsed() < Duration::from_mins(1), "it took {:?}", start.elapsed());
    while runs(web, "nixos-agent run") {
        assert!(start.elapsed() < Duration::from_mins(1), "the agent comes to an end");
        std::thread::sleep(Duration::from_millis(100));
    }
    succeeds(&apply(&world));
    no_changes(&world);
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
        "{HEAD}variable \"key\" {{\n  type = string\n  ephemeral = true\n}}\n\
         provider \"nixos\" {{ ssh = {{ private_keys = {{ admin = var.key }} }} }}\n\
         resource \"nixos_machine\" \"web\" {{\n  name = \"web\"\n  ssh = {{ host = \"10.88.0.99\", key = \"admin\", \
         host_key_policy = \"off\", bastion = {{ host = \"10.88.0.98\", key = \"admin\" }} }}\n}}\n"
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
    let script = "cd /var/lib/nixos-agent/bin && : >\"$(echo */nixos-agent)\" && mkdir old needed recent && \
        for one in old needed recent; do printf '#!/bin/sh\\n' >$one/nixos-agent; chmod 755 $one/nixos-agent; done && \
        touch -d '10 days ago' old/nixos-agent needed/nixos-agent && mkdir -p /run/systemd/transient && \
        printf '[Service]\\nExecStart=/var/lib/nixos-agent/bin/needed/nixos-agent run x\\n' >/run/systemd/transient/x.service";
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
    let hold = "for lock in /run/nixos-agent/lock /run/nixos-agent.lock; do [ -e $lock ] || exit 0; flock -n $lock true && exit 9; done; true";
    let as_user = ["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", "sh", "-c", hold];
    assert!(web.exec(&as_user).unwrap().success, "a user could hold the lock");
    let looks = web.exec(&["stat", "-c", "%a", "/run/nixos-agent", "/run/nixos-agent/lock"]).unwrap().stdout;
    assert_eq!(looks, "700\n600\n");
}
