//! What has become of a switch: it is judged by what the machine is in, and by what `switch-to-configuration` said of
//! it.

use crate::support::{
    apply, boot_id, deployed, fails_saying, no_changes, one, plan, says, set_up, site, succeeds, world,
};

/// A unit that fails in every switch, and never in a way that matters.
const FAILS: &str = "systemd.services.fails = { wantedBy = [ \"multi-user.target\" ]; serviceConfig = { \
                     Type = \"oneshot\"; ExecStart = \"/bin/false\"; }; };";

#[test]
fn a_reload_that_fails_goes_back() {
    let server = |setting: &str| {
        one(&format!(
            "environment.etc.\"server.conf\".text = \"{setting}\"; systemd.services.server = {{ wantedBy = [ \
             \"multi-user.target\" ]; reloadTriggers = [ \"{setting}\" ]; serviceConfig = {{ ExecStart = \
             \"/bin/sleep 1000000\"; ExecReload = \"/bin/grep -q good /etc/server.conf\"; }}; }};"
        ))
    };
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &server("good 1"));
    succeeds(&apply(&world));
    world.write("network.nix", &server("good 2")).unwrap();
    succeeds(&apply(&world));
    let before = world.current_system("web");

    world.write("network.nix", &server("bad")).unwrap();
    fails_saying(
        &apply(&world),
        &["was rolled back on machine \"web\"", "Units failed", "server.service failed"],
    );
    assert_eq!(world.current_system("web"), before);
    let active = world.lab.host("web").exec(&["systemctl", "is-active", "server"]).unwrap();
    assert_eq!(active.stdout.trim(), "active", "it never stopped, which is why its state says nothing");
}

#[test]
fn an_activation_script_that_fails_is_seen_behind_a_unit_that_fails_anyway() {
    let (world, _) = deployed("tolerated_units = [\"fails\"]", FAILS);
    world.write("main.tf", &site(&world, &["web"], "")).unwrap();
    let before = world.current_system("web");
    world.write("network.nix", &one(&format!("{FAILS} testing.failActivation = true;"))).unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\"", "The activation script failed"]);
    assert_eq!(world.current_system("web"), before);
}

#[test]
fn units_that_fail_anyway_are_tolerated_by_name_or_where_they_had_failed_before() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(FAILS));
    fails_saying(&apply(&world), &["was rolled back on machine \"web\"", "fails.service"]);

    world.write("main.tf", &site(&world, &["web"], "tolerated_units = [\"fails.service\"]")).unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(
        &run,
        &[
            "Machine \"web\" runs its new system, but not all is well",
            "`tolerated_units` names: fails.service",
        ],
    );
    no_changes(&world);

    // It has failed by now: what comes next is not its cause.
    world.write("main.tf", &site(&world, &["web"], "")).unwrap();
    world.write("network.nix", &one(&format!("{FAILS} environment.etc.more.text = \"x\";"))).unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["Units that had failed before still fail: fails.service"]);
    no_changes(&world);
}

#[test]
fn a_unit_whose_dependency_fails_goes_back() {
    let needs = |more: &str| {
        one(&format!(
            "systemd.services.a = {{ serviceConfig = {{ Type = \"oneshot\"; RemainAfterExit = true; \
             ExecStart = \"/bin/sh -c '[ ! -e /root/no ]'\"; }}; }};\nsystemd.services.b = {{ wantedBy = [ \
             \"multi-user.target\" ]; requires = [ \"a.service\" ]; after = [ \"a.service\" ]; \
             serviceConfig.ExecStart = \"/bin/sleep {more}\"; }};"
        ))
    };
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &needs("1000000"));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    let web = world.lab.host("web");
    // What it needs has failed before the deployment; it runs on.
    web.exec(&[
        "sh",
        "-c",
        ": > /root/no; systemctl stop --job-mode=ignore-dependencies a; systemctl start a",
    ])
    .unwrap();
    assert_eq!(web.exec(&["systemctl", "is-active", "b"]).unwrap().stdout.trim(), "active");
    world.write("network.nix", &needs("2000000")).unwrap();
    fails_saying(&apply(&world), &["machine \"web\"", "b.service failed"]);
    web.exec(&["rm", "/root/no"]).unwrap();
    assert_eq!(world.current_system("web"), before);
}

/// A pre-switch check that fails as that for switch inhibitors does.
const INHIBITED: &str = "testing.check = ''[ \"$2\" = boot ] || { echo 'dbus-implementation : dbus -> \
                         broker'; echo \"Pre-switch check 'switchInhibitors' failed\"; exit 1; }'';";

#[test]
fn what_only_a_reboot_can_change_is_booted_where_a_reboot_is_allowed() {
    let (world, before) = deployed("", "");
    world.write("network.nix", &one(INHIBITED)).unwrap();
    fails_saying(
        &apply(&world),
        &["needs a reboot of machine \"web\"", "reboot = \"if_needed\"", "dbus -> broker"],
    );
    assert_eq!(world.current_system("web"), before);
    for policy in ["if_needed", "always"] {
        let booted = boot_id(&world);
        world.write("main.tf", &site(&world, &["web"], &format!("reboot = \"{policy}\""))).unwrap();
        world
            .write("network.nix", &one(&format!("{INHIBITED} environment.etc.policy.text = \"{policy}\";")))
            .unwrap();
        succeeds(&apply(&world));
        assert_ne!(boot_id(&world), booted, "{policy}");
        no_changes(&world);
    }
}

#[test]
fn a_check_can_be_overridden_by_those_who_mean_to() {
    let (world, before) = deployed("", "");
    let expects =
        "testing.check = ''[ -n \"$EXPECTED_HOSTNAME\" ] || { echo 'the host name changes'; exit 1; }'';";
    world.write("network.nix", &one(expects)).unwrap();
    fails_saying(
        &apply(&world),
        &[
            "was not accepted by machine \"web\"",
            "pre-switch check",
            "the host name changes",
            "switch_environment",
        ],
    );
    assert_eq!(world.current_system("web"), before);
    for environment in ["EXPECTED_HOSTNAME = \"web\"", "NIXOS_NO_CHECK = \"1\""] {
        world
            .write("main.tf", &site(&world, &["web"], &format!("switch_environment = {{ {environment} }}")))
            .unwrap();
        world
            .write("network.nix", &one(&format!("{expects} environment.etc.e.text = ''{environment}'';")))
            .unwrap();
        succeeds(&apply(&world));
        no_changes(&world);
    }
}

#[test]
fn the_way_back_is_not_refused_by_the_old_systems_own_check() {
    let world = world(&["web"]);
    // A system that may only be switched to from a machine of its name.
    let old = "system.activationScripts.name = \"echo a > /root/name\"; testing.check = ''[ \"$(cat \
               /root/name)\" = a ]'';";
    world.lab.host("web").write_file("/root/name", "a").unwrap();
    set_up(&world, &site(&world, &["web"], ""), &one(old));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    let unwell = "health_checks = { no = { command = [\"false\"], deadline = \"2s\" } }";
    world.write("main.tf", &site(&world, &["web"], unwell)).unwrap();
    world.write("network.nix", &one("system.activationScripts.name = \"echo b > /root/name\";")).unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\"", "went back to"]);
    assert_eq!(world.current_system("web"), before);
}

#[test]
fn an_activation_script_that_always_fails_does_not_make_going_back_fail() {
    let (world, _) = deployed("rollback = false", "");
    // It was deployed by hand, with its fault.
    world.write("network.nix", &one("testing.failActivation = true;")).unwrap();
    let run = apply(&world);
    fails_saying(&run, &["`rollback` is off"]);
    let before = world.current_system("web");
    world.write("main.tf", &site(&world, &["web"], "")).unwrap();
    world
        .write("network.nix", &one("testing.failActivation = true; environment.etc.x.text = \"x\";"))
        .unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\"", "went back to", "exit code 2"]);
    assert_eq!(world.current_system("web"), before);
}

#[test]
fn a_dry_run_says_what_would_happen() {
    let (world, before) = deployed("", crate::support::SLEEPER);
    world.write("main.tf", &site(&world, &["web"], "action = \"dry_activate\"")).unwrap();
    world.write("network.nix", &one("")).unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(
        &run,
        &["What activation would do on machine \"web\"", "would stop the following units: sleeper.service"],
    );
    assert_eq!(world.current_system("web"), before);
    // One that does not come to its end is none.
    world.write("network.nix", &one("testing.failCheck = true;")).unwrap();
    fails_saying(
        &apply(&world),
        &["The dry run did not come to its end", "pre-switch check 'broken' failed"],
    );
    says(&plan(&world), &["1 to change"]);
}

#[test]
fn a_service_that_has_just_been_started_is_given_a_moment_to_crash() {
    let (world, before) = deployed("", "");
    let crashing = "systemd.services.crashing = { wantedBy = [ \"multi-user.target\" ]; script = \"sleep \
                    0.9; exit 9\"; serviceConfig.Restart = \"always\"; };";
    world.write("network.nix", &one(crashing)).unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\"", "crashing.service failed"]);
    assert_eq!(world.current_system("web"), before);
}

#[test]
fn a_service_that_crashes_soon_after_its_start_is_a_failed_one() {
    // Until it is kept a system has some seconds to show what it is worth.
    let check = "health_checks = { some_time = { command = [\"sleep\", \"3\"], deadline = \"20s\", timeout \
                 = \"20s\" } }";
    let (world, before) = deployed(check, "");
    // Most of the time it runs: whether a single look sees it fail depends on the moment.
    let crashing = "systemd.services.crashing = { wantedBy = [ \"multi-user.target\" ]; script = \"sleep \
                    0.6; echo again; exit 9\"; serviceConfig = { Restart = \"always\"; RestartSec = \
                    \"100ms\"; }; unitConfig.StartLimitIntervalSec = 0; };";
    world.write("network.nix", &one(crashing)).unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\"", "crashing.service failed"]);
    assert_eq!(world.current_system("web"), before);
    // systemd gives up on one that crashes often enough, and starts it no more.
    let given_up = "systemd.services.given-up = { wantedBy = [ \"multi-user.target\" ]; script = \"sleep \
                    0.8; exit 9\"; serviceConfig = { Restart = \"always\"; RestartSec = \"100ms\"; }; \
                    unitConfig = { StartLimitIntervalSec = 60; StartLimitBurst = 5; }; };";
    world.write("network.nix", &one(given_up)).unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\"", "given-up.service failed"]);
    assert_eq!(world.current_system("web"), before);
    // One that comes up at its second try is well.
    let second = "systemd.services.second = { wantedBy = [ \"multi-user.target\" ]; \
        script = \"[ -e /run/tried ] || { : > /run/tried; sleep 0.6; exit 1; }; exec sleep 1000000\"; \
        serviceConfig = { Restart = \"always\"; RestartSec = \"100ms\"; }; };";
    world.write("network.nix", &one(second)).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
}
