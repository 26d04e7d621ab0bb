//! A machine is never lost: whatever a bad system stops, fills or breaks, the old one runs again, or the machine
//! reboots into it.

use std::time::{Duration, Instant};

use e2e::World;

use crate::support::{
    SLEEPER, apply, boot_id, deployed, fails_saying, no_changes, one, plan, runs, says, succeeds,
};

/// The machine is as it was: it runs and boots the old system, and its units run.
#[track_caller]
fn is_back(world: &World, before: &str) {
    let web = world.lab.host("web");
    assert_eq!(world.current_system("web"), before);
    let profile = web.exec(&["readlink", "-f", "/nix/var/nix/profiles/system"]).unwrap();
    assert_eq!(profile.stdout.trim(), before, "the profile");
    assert_eq!(web.read_file("/boot/default-system").unwrap().trim(), before, "what boots");
    let mode = web.exec(&["systemctl", "is-system-running"]).unwrap().stdout;
    assert!(["running", "degraded"].contains(&mode.trim()), "{mode}");
    assert_eq!(world.resource("nixos_deployment.site")["systems"]["web"]["toplevel"], before);
}

#[test]
fn a_mount_that_fails_does_not_cost_the_machine() {
    let (world, before) = deployed("", SLEEPER);
    let mount =
        "fileSystems.\"/nope\" = { device = \"tmpfs\"; fsType = \"tmpfs\"; options = [ \"bogus=1\" ]; };";
    world.write("network.nix", &one(&format!("{SLEEPER}{mount}"))).unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\"", "emergency mode", "nope.mount"]);
    is_back(&world, &before);
    let active = world.lab.host("web").exec(&["systemctl", "is-active", "sleeper"]).unwrap();
    assert_eq!(active.stdout.trim(), "active");
    says(&plan(&world), &["1 to change"]);
    world.write("network.nix", &one(SLEEPER)).unwrap();
    no_changes(&world);
}

#[test]
fn a_switch_that_loses_the_message_bus_is_no_success() {
    let (world, before) = deployed("", "");
    let boom = "system.activationScripts.boom = \"/usr/bin/systemctl kill -s KILL dbus.service; sleep 1\";";
    world.write("network.nix", &one(boom)).unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\"", "D-Bus was lost"]);
    is_back(&world, &before);
}

#[test]
fn a_bus_that_is_lost_to_a_switch_that_ends_is_no_success_either() {
    let (world, before) = deployed("activation_timeout = \"8s\"", "");
    let boom =
        "system.activationScripts.boom = \"/usr/bin/systemctl kill -s KILL dbus.service; sleep 1000\";";
    world.write("network.nix", &one(boom)).unwrap();
    fails_saying(
        &apply(&world),
        &["was rolled back on machine \"web\"", "took longer than `activation_timeout` (8 s)"],
    );
    is_back(&world, &before);
}

#[test]
fn a_unit_that_takes_longer_than_the_switch_may_is_named() {
    let (world, before) = deployed("activation_timeout = \"8s\"", "");
    let slow = "systemd.services.backup = { wantedBy = [ \"multi-user.target\" ]; serviceConfig = { Type = \
                \"oneshot\"; TimeoutStartSec = \"infinity\"; ExecStart = \"${pkgs.busybox}/bin/busybox sleep \
                100000\"; }; };";
    world.write("network.nix", &one(slow)).unwrap();
    let texts = [
        "was rolled back on machine \"web\"",
        "`activation_timeout` (8 s); it waited for backup.service (start)",
    ];
    fails_saying(&apply(&world), &texts);
    is_back(&world, &before);
}

#[test]
fn a_login_manager_that_does_not_answer_is_started_again_on_the_way_back() {
    let (world, before) = deployed("", "");
    let web = world.lab.host("web");
    web.exec(&[
        "sh",
        "-c",
        "systemctl unmask systemd-logind.service && systemctl start systemd-logind.service",
    ])
    .unwrap();
    let boom = "system.activationScripts.boom = \"/usr/bin/systemctl kill -s STOP systemd-logind.service\";";
    world.write("network.nix", &one(boom)).unwrap();
    fails_saying(
        &apply(&world),
        &["was rolled back on machine \"web\"", "Unable to list users with logind", "went back to"],
    );
    is_back(&world, &before);
    let active = web.exec(&["loginctl", "list-users"]).unwrap();
    assert!(active.success, "{}", active.stderr);
}

/// The way back that ends half-way has activated the old system, and started nothing.
#[test]
fn a_way_back_that_ends_half_way_is_gone_once_more() {
    let (world, before) = deployed("", SLEEPER);
    let web = world.lab.host("web");
    let logind = "systemctl unmask systemd-logind.service && systemctl start systemd-logind.service";
    web.exec(&["sh", "-c", logind]).unwrap();
    // Lost after the new system has asked it, so that only the way back notices.
    let boom = "systemd.services.boom = { wantedBy = [ \"multi-user.target\" ]; serviceConfig = { Type = \"oneshot\";
        ExecStart = \"/bin/sh -c '/usr/bin/systemctl kill -s STOP systemd-logind.service; exit 1'\"; }; };";
    world.write("network.nix", &one(&format!("{}{boom}", SLEEPER.replace("1000000", "2000000")))).unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\"", "boom.service", "went back to"]);
    is_back(&world, &before);
    assert!(runs(web, "sleep 1000000"), "what the old system has runs again");
}

#[test]
fn a_full_run_does_not_cost_the_machine() {
    let (world, before) = deployed("", SLEEPER);
    let fill = "system.activationScripts.fill = \"cat /dev/zero > /run/fill 2> /dev/null || true\"; \
                testing.failActivation = true;";
    world.write("network.nix", &one(fill)).unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\"", "went back to"]);
    world.lab.host("web").exec(&["rm", "/run/fill"]).unwrap();
    is_back(&world, &before);
}

#[test]
fn where_the_old_system_cannot_be_switched_to_the_machine_reboots_into_it() {
    let (world, before) = deployed("", SLEEPER);
    let booted = boot_id(&world);
    // The way back is gone until the next boot.
    let sabotage = format!(
        "system.activationScripts.sabotage = \"/usr/bin/mount --bind /usr/bin/false \
         {before}/bin/switch-to-configuration\"; testing.failActivation = true;"
    );
    world.write("network.nix", &one(&sabotage)).unwrap();
    fails_saying(
        &apply(&world),
        &[
            "The new system failed, and so did going back, on machine \"web\"",
            "The machine reboots now",
            &before,
        ],
    );
    assert_ne!(boot_id(&world), booted, "it was rebooted");
    is_back(&world, &before);
    world.write("network.nix", &one(SLEEPER)).unwrap();
    no_changes(&world);
}

/// A unit that is being started for as long as `/root/hang` is there.
const HANGS: &str = "systemd.services.hangs = { wantedBy = [ \"multi-user.target\" ]; serviceConfig = { \
                     Type = \"oneshot\"; RemainAfterExit = true; ExecStart = \"/bin/sh -c 'while [ -e \
                     /root/hang ]; do sleep 0.2; done'\"; }; };";

#[test]
fn a_boot_that_hangs_can_be_repaired_and_says_what_it_waits_for() {
    let (world, _) = deployed("", HANGS);
    let web = world.lab.host("web");
    web.write_file("/root/hang", "").unwrap();
    web.power_cycle().unwrap();
    let mode = web.exec(&["systemctl", "is-system-running"]).unwrap().stdout;
    assert_eq!(mode.trim(), "starting", "the boot hangs");

    // Another change does not touch what it waits for: nothing is changed, and that is said.
    let before = world.current_system("web");
    world.write("network.nix", &one(&format!("{HANGS}{SLEEPER}"))).unwrap();
    let start = Instant::now();
    fails_saying(
        &apply(&world),
        &[
            "was not accepted by machine \"web\"",
            "it waits for hangs.service",
            "systemctl stop hangs.service",
        ],
    );
    assert!(start.elapsed() < Duration::from_mins(4));
    assert_eq!(world.current_system("web"), before);

    // A system without it ends the waiting.
    world.write("network.nix", &one(SLEEPER)).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
    let mode = web.exec(&["systemctl", "is-system-running"]).unwrap().stdout;
    assert_ne!(mode.trim(), "starting");
}

#[test]
fn a_boot_that_waits_for_a_secret_that_is_declared_no_more_ends() {
    let key = "deployment.keys.token.text = \"word\"; systemd.services.app = { wantedBy = [ \
               \"multi-user.target\" ]; after = [ \"token-key.service\" ]; wants = [ \"token-key.service\" \
               ]; serviceConfig.ExecStart = \"/bin/sleep 1000000\"; };";
    let (world, _) = deployed("", key);
    world.lab.host("web").power_cycle().unwrap();
    world.write("network.nix", &one(SLEEPER)).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
}
