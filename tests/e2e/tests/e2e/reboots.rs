//! Machines that are rebooted into their new systems, and how they are.

use crate::support::{
    HEAD, apply, fails_saying, machine, no_changes, one, plan, says, set_up, site, succeeds, world,
};

/// Another kernel than the one that hosts were installed with.
pub(crate) fn kernel(version: &str) -> String {
    format!(
        "boot.kernelPackages.kernel = (pkgs.runCommand \"linux-{version}\" {{ }} ''/bin/busybox mkdir -p \
         \"$out\"; echo {version} > \"$out/bzImage\"'') // {{ version = \"{version}\"; }};"
    )
}

fn boot_id(host: &lab::Host) -> String {
    host.exec(&["cat", "/proc/sys/kernel/random/boot_id"]).unwrap().stdout
}

#[test]
fn a_machine_is_rebooted_when_it_is_needed() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let secret = "secrets = { token = { file = \"/root/token\" } }\nhealth_checks = { token = { command = \
                  [\"grep\", \"-q\", \"word\", \"/run/keys/token\"], deadline = \"5s\" } }";
    world.lab.control().write_file("/root/token", "word").unwrap();
    let main = |more: &str| site(&world, &["web"], &format!("{secret}\n{more}"));
    set_up(&world, &main("reboot = \"if_needed\""), &one(""));
    let first = boot_id(web);
    succeeds(&apply(&world));
    assert_eq!(boot_id(web), first, "the kernel is the one it was booted with");

    // Another kernel needs a reboot. What was in memory is sent again.
    world.write("network.nix", &one(&kernel("6.6.70"))).unwrap();
    says(&plan(&world), &["kernel", "reboot if needed"]);
    succeeds(&apply(&world));
    let second = boot_id(web);
    assert_ne!(second, first);
    let system = world.current_system("web");
    assert_eq!(web.exec(&["readlink", "-f", "/run/booted-system"]).unwrap().stdout.trim(), system);
    assert_eq!(web.exec(&["cat", "/run/keys/token"]).unwrap().stdout, "word");
    no_changes(&world);

    // Without a policy the state says that it waits for one; with one the next apply reboots it, and does nothing else.
    world.write("main.tf", &main("")).unwrap();
    world.write("network.nix", &one(&kernel("6.6.71"))).unwrap();
    succeeds(&apply(&world));
    assert_eq!(boot_id(web), second);
    no_changes(&world);
    let system = world.current_system("web");
    world.write("main.tf", &main("reboot = \"if_needed\"")).unwrap();
    says(&plan(&world), &["\"reboot\"", "reboot_required"]);
    succeeds(&apply(&world));
    let third = boot_id(web);
    assert_ne!(third, second);
    assert_eq!(world.current_system("web"), system);
    no_changes(&world);

    // A system that cannot take over from the running one is booted instead.
    world
        .write("network.nix", &one(&format!("{} testing.initInterfaceVersion = \"3\";", kernel("6.6.71"))))
        .unwrap();
    succeeds(&apply(&world));
    let fourth = boot_id(web);
    assert_ne!(fourth, third);
    no_changes(&world);

    // And so is one that was only to be booted.
    world.write("main.tf", &main("reboot = \"if_needed\"\naction = \"boot\"")).unwrap();
    world.write("network.nix", &one(&kernel("6.6.72"))).unwrap();
    succeeds(&apply(&world));
    assert_ne!(boot_id(web), fourth);
    assert_eq!(web.exec(&["cat", "/run/keys/token"]).unwrap().stdout, "word");
    no_changes(&world);
    // Its secrets change without a reboot.
    let fifth = boot_id(web);
    world.lab.control().write_file("/root/token", "another word").unwrap();
    succeeds(&apply(&world));
    assert_eq!(web.exec(&["cat", "/run/keys/token"]).unwrap().stdout, "another word");
    assert_eq!(boot_id(web), fifth);
    no_changes(&world);

    // A policy that is new asks for what the one before had not looked for.
    world.write("main.tf", &main("")).unwrap();
    world
        .write("network.nix", &one(&format!("{} environment.etc.\"a\".text = \"1\";", kernel("6.6.72"))))
        .unwrap();
    succeeds(&apply(&world));
    assert_eq!(boot_id(web), fifth, "the same kernel");
    no_changes(&world);
    world.write("main.tf", &main("reboot = \"always\"")).unwrap();
    says(&plan(&world), &["reboot if needed"]);
    succeeds(&apply(&world));
    assert_ne!(boot_id(web), fifth, "it was booted with another system");
    no_changes(&world);
}

#[test]
fn what_comes_of_a_reboot_is_told() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let main = |more: &str| site(&world, &["web"], more);
    set_up(&world, &main("reboot = \"always\"\nreboot_timeout = \"8s\""), &one(""));
    let first = boot_id(web);
    succeeds(&apply(&world));
    assert_ne!(boot_id(web), first, "it was booted with another system");
    no_changes(&world);

    // It boots something else than it should.
    let installed = web.exec(&["readlink", "-f", "/root/installer-system"]).unwrap().stdout;
    web.write_file("/root/reboot", format!("#!/bin/sh\necho {} > /boot/default-system\n", installed.trim()))
        .unwrap();
    web.exec(&["chmod", "755", "/root/reboot"]).unwrap();
    let sabotage = "[Unit]\nDefaultDependencies=no\nBefore=shutdown.target\nConflicts=shutdown.target\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n\
                    ExecStop=/root/reboot\n[Install]\nWantedBy=multi-user.target\n";
    web.write_file("/etc/systemd/system/sabotage.service", sabotage).unwrap();
    web.exec(&["systemctl", "enable", "--now", "sabotage.service"]).unwrap();
    world.write("network.nix", &one("environment.etc.\"a\".text = \"1\";")).unwrap();
    fails_saying(&apply(&world), &["Another system was booted by machine \"web\"", installed.trim()]);
    web.exec(&["systemctl", "disable", "--now", "sabotage.service"]).unwrap();
    // The state says what runs, and the next apply brings it where it should be.
    succeeds(&apply(&world));
    no_changes(&world);
    let wanted = world.current_system("web");
    assert_eq!(web.exec(&["readlink", "-f", "/run/booted-system"]).unwrap().stdout.trim(), wanted);

    // It is not well with what it booted, although it was with what it switched to.
    let check =
        "health_checks = { flag = { command = [\"test\", \"-e\", \"/run/flag\"], deadline = \"2s\" } }";
    world.write("main.tf", &main(&format!("reboot = \"always\"\n{check}"))).unwrap();
    web.exec(&["touch", "/run/flag"]).unwrap();
    world.write("network.nix", &one("environment.etc.\"a\".text = \"2\";")).unwrap();
    fails_saying(
        &apply(&world),
        &["Not well after its reboot: machine \"web\"", "\"flag\"", "none to go back to"],
    );
    world.write("main.tf", &main("reboot = \"always\"")).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);

    // It does not come back.
    world.write("main.tf", &main("reboot = \"always\"\nreboot_timeout = \"6s\"")).unwrap();
    world.write("network.nix", &one("environment.etc.\"a\".text = \"3\";")).unwrap();
    web.exec(&["systemctl", "disable", "ssh.service", "ssh.socket"]).unwrap();
    fails_saying(&apply(&world), &["Not back after its reboot: machine \"web\"", "within 6 s"]);
    web.exec(&["systemctl", "enable", "--now", "ssh.service"]).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
}

/// The system that a host would boot, and was booted with.
pub(crate) fn booted(host: &lab::Host) -> String {
    host.exec(&["readlink", "-f", "/run/booted-system"]).unwrap().stdout.trim().to_owned()
}

#[test]
fn a_system_that_cannot_be_booted_costs_a_reboot() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let with = |version: &str, more: &str| {
        one(&format!("boot.loader.grub.enable = true; {} {more}", kernel(version)))
    };
    let check =
        "health_checks = { flag = { command = [\"test\", \"-e\", \"/var/lib/well\"], deadline = \"2s\" } }";
    let main = site(&world, &["web"], &format!("reboot = \"if_needed\"\nreboot_timeout = \"15s\"\n{check}"));
    web.write_file("/var/lib/well", "").unwrap();
    // The installer's boot loader cannot boot anything once, so the first one is booted for good.
    set_up(&world, &main, &with("6.6.1", ""));
    succeeds(&apply(&world));
    let first = booted(web);
    assert_eq!(first, world.current_system("web"));
    no_changes(&world);

    // One that can be.
    world.write("network.nix", &with("6.6.2", "")).unwrap();
    succeeds(&apply(&world));
    let good = booted(web);
    assert_ne!(good, first);
    no_changes(&world);
    web.power_cycle().unwrap();
    assert_eq!(booted(web), good, "it was found well, and boots from now on");
    no_changes(&world);

    let generation = || web.exec(&["readlink", "/nix/var/nix/profiles/system"]).unwrap().stdout;
    let kept = generation();
    let is_back = |why: &str| {
        assert_eq!((booted(web), world.current_system("web")), (good.clone(), good.clone()), "{why}");
        let start = std::time::Instant::now();
        while web.exec(&["test", "-e", "/var/lib/nixos-agent/trial.json"]).unwrap().success {
            assert!(start.elapsed().as_secs() < 30, "{why}: the machine knows that the trial is over");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(generation(), kept, "{why}");
        web.power_cycle().unwrap();
        assert_eq!(booted(web), good, "{why}: and stays there");
    };
    let back = ["Back with its old system, after a reboot: machine \"web\"", &good];

    // Its kernel panics.
    world
        .write(
            "network.nix",
            &with("6.6.3", "testing.atBoot = \"systemctl reboot --force --force; sleep 60\";"),
        )
        .unwrap();
    fails_saying(&apply(&world), &back);
    is_back("a panic");

    // Nobody can log in to it.
    world
        .write(
            "network.nix",
            &with("6.6.4", "testing.atBoot = \"systemctl mask --runtime ssh.service ssh.socket\";"),
        )
        .unwrap();
    fails_saying(&apply(&world), &back);
    is_back("nobody could log in");

    // It is not well, although it was before the reboot.
    world.write("network.nix", &with("6.6.5", "testing.atBoot = \"rm /var/lib/well\";")).unwrap();
    fails_saying(
        &apply(&world),
        &["Not well after its reboot: machine \"web\"", "\"flag\"", "It was rebooted."],
    );
    is_back("not well");

    web.write_file("/var/lib/well", "").unwrap();
    world.write("network.nix", &with("6.6.6", "")).unwrap();
    succeeds(&apply(&world));
    assert_eq!(booted(web), world.current_system("web"));
    no_changes(&world);
}

#[test]
fn what_is_to_be_booted_once_is_whose_it_is() {
    const ENVIRONMENT: &str = "/boot/grub/grubenv";
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let with = |version: &str, more: &str| {
        one(&format!("boot.loader.grub.enable = true; {} {more}", kernel(version)))
    };
    let main = |reboot: &str| site(&world, &["web"], &format!("reboot = \"{reboot}\""));
    let once = || {
        let environment = web.read_file(ENVIRONMENT).unwrap_or_default();
        environment.lines().find_map(|line| line.strip_prefix("next_entry=").map(str::to_owned))
    };
    set_up(&world, &main("if_needed"), &with("6.6.1", ""));
    succeeds(&apply(&world));

    // What somebody else wants to be booted once is not ours to forget.
    let theirs = "# GRUB Environment Block\nnext_entry=memtest\n";
    web.write_file(ENVIRONMENT, format!("{theirs}{}", "#".repeat(1024 - theirs.len()))).unwrap();
    world.write("network.nix", &with("6.6.1", "environment.etc.mark.text = \"new\";")).unwrap();
    succeeds(&apply(&world));
    assert_eq!(once().as_deref(), Some("memtest"));
    web.exec(&["rm", ENVIRONMENT]).unwrap();

    // A trial whose reboot is refused is taken back: whoever reboots the machine another day gets what was deployed.
    web.exec(&["systemctl", "mask", "--runtime", "reboot.target"]).unwrap();
    world.write("network.nix", &with("6.6.2", "")).unwrap();
    fails_saying(
        &apply(&world),
        &["A reboot was refused by machine \"web\"", "reboot.target", "is still to be rebooted"],
    );
    assert_eq!(once().unwrap_or_default(), "", "the trial was taken back");
    web.exec(&["systemctl", "unmask", "--runtime", "reboot.target"]).unwrap();
    web.power_cycle().unwrap();
    assert_eq!(booted(web), world.current_system("web"));
    assert!(!web.exec(&["test", "-e", "/var/lib/nixos-agent/trial.json"]).unwrap().success);
    no_changes(&world);

    // The same where a program does not want it.
    let block = "systemctl unmask systemd-logind.service; systemctl start systemd-logind.service; \
                 systemd-run --unit=blocker systemd-inhibit --what=shutdown --mode=block --who=backup \
                 --why=running sleep 100000";
    web.exec(&["sh", "-ec", block]).unwrap();
    world.write("network.nix", &with("6.6.4", "")).unwrap();
    fails_saying(
        &apply(&world),
        &["A reboot was refused by machine \"web\"", "These programs block it", "backup", "running"],
    );
    assert_eq!(once().unwrap_or_default(), "", "the trial was taken back");
    let plan = plan(&world);
    says(&plan, &["reboot"]);
    web.exec(&["systemctl", "stop", "blocker.service"]).unwrap();
    succeeds(&apply(&world));
    assert_eq!(booted(web), world.current_system("web"));
    no_changes(&world);

    // A trial that its reboot never came to, and that nobody has taken back.
    let begun = booted(web);
    world.write("main.tf", &main("never")).unwrap();
    world.write("network.nix", &with("6.6.5", "")).unwrap();
    succeeds(&apply(&world));
    let new = world.current_system("web");
    let agent =
        web.exec(&["sh", "-c", "ls -t /var/lib/nixos-agent/bin/*/nixos-agent | head -1"]).unwrap().stdout;
    assert!(web.exec(&[agent.trim(), "try", &new, "600"]).unwrap().stdout.contains(&begun));
    assert!(once().is_some_and(|entry| !entry.is_empty()), "the trial was begun: {:?}", once());
    world.write("network.nix", &with("6.6.3", "")).unwrap();
    succeeds(&apply(&world));
    assert_eq!(once().unwrap_or_default(), "", "what was deployed since is what boots");
    web.power_cycle().unwrap();
    assert_eq!(booted(web), world.current_system("web"));
    no_changes(&world);
}

#[test]
fn reboots_that_make_no_sense_are_refused() {
    let world = world(&["web"]);
    let cases = [
        ("reboot = \"if_needed\"\naction = \"test\"", "There is nothing to reboot into"),
        ("reboot = \"always\"\nrollout = { atomic = true }", "The rollout cannot be atomic"),
        ("reboot = \"now\"", "if_needed"),
        ("reboot_timeout = \"soon\"", "reboot_timeout"),
    ];
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    for (attributes, text) in cases {
        world.write("main.tf", &site(&world, &["web"], attributes)).unwrap();
        fails_saying(&world.terraform(&["validate"]), &[text]);
    }
}

#[test]
fn a_check_block_sees_how_a_machine_is() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let main = format!(
        "{HEAD}{}data \"nixos_machine_status\" \"web\" {{\n  machine = nixos_machine.web.target\n}}\ncheck \
         \"web\" {{\n  assert {{\n    condition = data.nixos_machine_status.web.reachable && \
         length(data.nixos_machine_status.web.failed_units) == 0\n    error_message = \"web: \
         ${{jsonencode(data.nixos_machine_status.web.failed_units)}}\"\n  }}\n}}\noutput \"status\" {{\n  \
         value = data.nixos_machine_status.web\n}}\n",
        machine(&world, "web", "")
    );
    set_up(&world, &main, "");
    succeeds(&apply(&world));
    let output = world.terraform(&["output", "-json", "status"]);
    let status: serde_json::Value = serde_json::from_str(output.text.trim()).unwrap();
    assert_eq!(status["reachable"], true);
    assert_eq!(status["problem"], serde_json::Value::Null);
    assert_eq!(status["current_system"].as_str(), Some(world.current_system("web").as_str()));
    assert_eq!(status["boot_id"].as_str(), Some(boot_id(web).trim()));
    assert_eq!(status["load_average"].as_array().map(Vec::len), Some(3));
    assert!(status["memory_bytes"].as_u64() > status["memory_available_bytes"].as_u64());
    assert_eq!(status["disks"][0]["mount_point"], "/");
    assert_eq!(status["disks"][0]["read_only"], false);

    web.exec(&["systemd-run", "--unit=unlucky", "false"]).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["Check block assertion failed", "unlucky.service"]);
    web.exec(&["systemctl", "reset-failed"]).unwrap();

    // Away: no error, and nothing that only the machine could tell.
    web.power_cut().unwrap();
    let run = apply(&world);
    succeeds(&run);
    let output = world.terraform(&["output", "-json", "status"]);
    let status: serde_json::Value = serde_json::from_str(output.text.trim()).unwrap();
    assert_eq!(status["reachable"], false);
    assert!(
        status["problem"].as_str().is_some_and(|problem| problem.contains("cannot be reached")),
        "{status}"
    );
    assert_eq!(status["boot_id"], serde_json::Value::Null);
    says(&run, &["Check block assertion failed"]);
}
