//! Machines behind a bastion whose SSH server has the limits that OpenSSH has by itself.

use std::time::{Duration, Instant};

use e2e::World;
use lab::Host;

use crate::support::{
    HEAD, apply, apply_until, fails_saying, machine, no_changes, one, plan, runs, says, set_up, site,
    succeeds, world,
};

/// How many machines there are behind one bastion.
const MACHINES: usize = 64;
const ROUNDS: usize = 10;

/// How often somebody has logged in to a host by now.
fn logins(host: &Host) -> usize {
    let said = host.exec(&["journalctl", "-o", "cat", "-t", "sshd-session", "-t", "sshd"]).unwrap().stdout;
    said.matches("Accepted publickey").count()
}

/// One host that answers at the addresses of many, which only `jump` reaches.
fn many_behind(world: &World) {
    let (jump, web) = (world.lab.host("jump"), world.lab.host("web"));
    web.exec(&["ip", "route", "add", "local", "10.99.0.0/24", "dev", "lo"]).unwrap();
    // It stands for many, who would not be so shy. The bastion has nothing but OpenSSH's defaults.
    web.write_file("/etc/ssh/sshd_config.d/many.conf", "MaxStartups 100\n").unwrap();
    web.exec(&["systemctl", "reload", "ssh"]).unwrap();
    jump.exec(&["ip", "route", "add", "10.99.0.0/24", "via", &web.address().to_string()]).unwrap();
}

fn bastion(world: &World, more: &str) -> String {
    let jump = world.lab.host("jump");
    format!(
        "bastion = {{ host = \"{}\", host_public_key = \"{}\"{more} }}",
        jump.address(),
        jump.host_public_key()
    )
}

/// Imports all machines and refreshes them, again and again, each time all of them.
fn all_of_them_each_time(world: &World, ssh: &str) {
    let main = format!(
        "{HEAD}provider \"nixos\" {{ ssh = {{ host_key_policy = \"off\", {ssh} }} }}\nresource \
         \"nixos_deployment\" \"all\" {{\n  network = \"${{path.module}}/network.nix\"\n  machines = \
         {{}}\n}}\n"
    );
    set_up(world, &main, "{ }");
    let machines: Vec<String> = (1..=MACHINES).map(|n| format!("m{n}=10.99.0.{n}")).collect();
    for round in 1..=ROUNDS {
        // An import does not go on without a machine.
        let run = world.terraform(&["import", "nixos_deployment.all", &machines.join(",")]);
        assert_eq!(run.code, 0, "round {round}:\n{}", run.text);
        let systems = world.resource("nixos_deployment.all")["systems"].clone();
        assert_eq!(systems.as_object().map_or(0, serde_json::Map::len), MACHINES, "round {round}");
        let run = world.terraform(&["plan", "-refresh-only", "-input=false"]);
        succeeds(&run);
        assert!(!run.text.contains("Warning"), "round {round}:\n{}", run.text);
        succeeds(&world.terraform(&["state", "rm", "nixos_deployment.all"]));
    }
    let left = world.lab.control().exec(&["pgrep", "-x", "ssh"]).unwrap().stdout;
    assert!(left.is_empty(), "no connection outlives the provider: {left}");
}

#[test]
fn all_machines_behind_a_bastion_share_one_login_to_it() {
    let world = world(&["jump", "web"]);
    many_behind(&world);
    let jump = world.lab.host("jump");
    all_of_them_each_time(&world, &bastion(&world, ", user = \"root\""));
    assert_eq!(logins(jump), 2 * ROUNDS, "one for each run of Terraform");
}

#[test]
fn the_limits_of_a_bastion_in_ssh_config_are_met_by_coming_back() {
    let world = world(&["jump", "web"]);
    many_behind(&world);
    let (control, jump) = (world.lab.control(), world.lab.host("jump"));
    control
        .write_file("/root/.ssh/config", format!("Host 10.99.*\n  ProxyJump {}\n", jump.address()))
        .unwrap();
    let known = format!("{} {}\n", jump.address(), jump.host_public_key());
    control.write_file("/root/.ssh/known_hosts", known).unwrap();
    all_of_them_each_time(&world, "");
}

#[test]
fn a_bastion_is_as_ssh_config_says() {
    let world = world(&["jump", "web"]);
    let (control, jump) = (world.lab.control(), world.lab.host("jump"));
    // Its user is there for nothing but this, and has a key that nobody else takes.
    let key = "ssh-keygen -q -t ed25519 -N '' -f /root/gate; cat /root/gate.pub";
    let public = control.exec(&["sh", "-c", key]).unwrap().stdout;
    jump.write_file("/home/deploy/.ssh/authorized_keys", &public).unwrap();
    jump.exec(&["usermod", "-s", "/usr/sbin/nologin", "deploy"]).unwrap();
    jump.write_file("/etc/ssh/sshd_config.d/gate.conf", "Port 2222\nPermitTTY no\n").unwrap();
    jump.exec(&["systemctl", "restart", "ssh"]).unwrap();
    let block = format!(
        "Host bastion.corp\n  HostName {}\n  Port 2222\n  User deploy\n  IdentityFile /root/gate\n  \
         LocalForward 7777 localhost:1\n  RemoteCommand true\n  ControlMaster auto\n  ControlPath \
         /root/mine\n",
        jump.address()
    );
    control.write_file("/root/.ssh/config", block).unwrap();
    let known = format!("[{}]:2222 {}\n", jump.address(), jump.host_public_key());
    control.write_file("/root/.ssh/known_hosts", known).unwrap();
    let provider = "provider \"nixos\" { ssh = { bastion = { host = \"bastion.corp\" }, private_key_file = \
                    \"/root/.ssh/id_ed25519\" } }\n";
    set_up(&world, &format!("{}{provider}", site(&world, &["web"], "")), &one(""));
    succeeds(&apply(&world));
    no_changes(&world);
    assert!(logins(jump) >= 1, "it went that way");
    assert!(control.read_file("/root/mine").is_err(), "the user's own socket is not ours");
}

#[test]
fn what_is_wrong_with_the_bastion_is_not_said_of_the_machine() {
    let world = world(&["jump", "web"]);
    let (jump, web) = (world.lab.host("jump"), world.lab.host("web"));
    let with = |bastion: &str| {
        format!(
            "{HEAD}provider \"nixos\" {{ ssh = {{ connect_timeout = \"3s\", {bastion} }} }}\n{}",
            machine(&world, "web", "timeouts = { create = \"1s\" }")
        )
    };
    let right = bastion(&world, ", user = \"root\"");
    let wrong_key = right.replace(&jump.host_public_key(), &web.host_public_key());
    set_up(&world, &with(&right), "");
    let fails = |main: &str, texts: &[&str]| {
        world.write("main.tf", main).unwrap();
        fails_saying(&apply(&world), texts);
    };
    fails(
        &with(&bastion(&world, ", user = \"nobody-here\"")),
        &[
            "The bastion before machine \"web\" refused the login",
            "refused the login as nobody-here",
            "`bastion`",
        ],
    );
    fails(
        &with(&wrong_key),
        &["The bastion before machine \"web\" has another host key", "`bastion.host_public_key`"],
    );
    for (line, said) in [
        ("AllowTcpForwarding no", "administratively prohibited"),
        ("DisableForwarding yes", "administratively prohibited"),
        ("PermitOpen 10.0.0.1:22", "administratively prohibited"),
    ] {
        jump.write_file("/etc/ssh/sshd_config.d/00-no.conf", format!("{line}\n")).unwrap();
        jump.exec(&["systemctl", "restart", "ssh"]).unwrap();
        let keyword = line.split(' ').next().unwrap();
        fails(&with(&right), &["The bastion before machine \"web\" lets nobody through", keyword, said]);
    }
    jump.write_file("/etc/ssh/sshd_config.d/00-no.conf", "").unwrap();
    jump.exec(&["systemctl", "restart", "ssh"]).unwrap();
    web.exec(&["systemctl", "stop", "ssh"]).unwrap();
    fails(
        &with(&right),
        &["Machine \"web\" cannot be reached", "could not connect to it: connect failed: Connection refused"],
    );
    web.exec(&["systemctl", "start", "ssh"]).unwrap();
    jump.link_down().unwrap();
    fails(&with(&right), &["The bastion before machine \"web\" cannot be reached"]);
    jump.link_up().unwrap();
    succeeds(&apply(&world));

    // A refresh says it too, and goes on.
    jump.write_file("/etc/ssh/sshd_config.d/00-no.conf", "DenyUsers root\n").unwrap();
    jump.exec(&["systemctl", "restart", "ssh"]).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["Warning: The bastion before machine \"web\" refused the login", "No changes."]);
}

#[test]
fn a_host_that_ssh_config_jumps_over_is_told_apart_too() {
    let world = world(&["jump", "web"]);
    let (control, jump, web) = (world.lab.control(), world.lab.host("jump"), world.lab.host("web"));
    control
        .write_file("/root/.ssh/config", format!("Host {}\n  ProxyJump {}\n", web.address(), jump.address()))
        .unwrap();
    let known = format!("{} {}\n", jump.address(), jump.host_public_key());
    control.write_file("/root/.ssh/known_hosts", known).unwrap();
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    jump.write_file("/etc/ssh/sshd_config.d/00-no.conf", "AllowTcpForwarding no\n").unwrap();
    jump.exec(&["systemctl", "restart", "ssh"]).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(
        &run,
        &[
            "Warning: Machine \"web\" cannot be reached through the host before it",
            "`AllowTcpForwarding yes`",
        ],
    );
    jump.write_file("/etc/ssh/sshd_config.d/00-no.conf", "").unwrap();
    jump.exec(&["systemctl", "restart", "ssh"]).unwrap();
    web.exec(&["systemctl", "stop", "ssh"]).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["Warning: Machine \"web\" cannot be reached", "Connection refused"]);
}

#[test]
fn a_connection_to_a_bastion_that_ends_is_made_anew() {
    let world = world(&["jump", "web"]);
    let (control, jump, web) = (world.lab.control(), world.lab.host("jump"), world.lab.host("web"));
    let provider = format!("provider \"nixos\" {{ ssh = {{ {} }} }}\n", bastion(&world, ", user = \"root\""));
    let slow = |seconds: u32| one(&format!("system.activationScripts.slow = \"sleep {seconds}\";"));
    set_up(&world, &format!("{}{provider}", site(&world, &["web"], "")), &slow(6));
    let child = apply_until(&world, || runs(web, "sleep 6"));
    assert!(jump.exec(&["pkill", "-KILL", "-f", "sshd-session"]).unwrap().success);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    no_changes(&world);

    // However the provider ends, it takes the connection with it.
    world.write("network.nix", &slow(7)).unwrap();
    let mut child = apply_until(&world, || runs(web, "sleep 7"));
    control.exec(&["pkill", "-KILL", "terraform"]).unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    while control.exec(&["pgrep", "-x", "ssh"]).unwrap().success {
        assert!(start.elapsed() < Duration::from_mins(1), "a connection is left");
        std::thread::sleep(Duration::from_millis(200));
    }
}
