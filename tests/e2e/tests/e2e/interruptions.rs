//! An apply that is interrupted: by Ctrl-C, a killed process, a broken connection or a power cut.

use std::time::{Duration, Instant};

use e2e::World;

use crate::support::{
    apply, apply_until, fails_saying, no_changes, one, plan, runs, says, set_up, site, succeeds, world,
};

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

    // The agent also goes on when Terraform and the provider are killed. A second apply meanwhile does not disturb it.
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
            "systemd.services.lockout = {{ wantedBy = [ \"multi-user.target\" ]; serviceConfig = {{ Type = \
             \"oneshot\"; RemainAfterExit = true; ExecStart = \"/bin/sh -c '{start}'\"; ExecStop = \
             \"/bin/sh -c '{stop}'\"; Environment = [ \"PATH=/usr/sbin:/usr/bin:/sbin:/bin\" ]; }}; }};"
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
