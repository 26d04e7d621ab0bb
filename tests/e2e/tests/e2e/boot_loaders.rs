//! Reboots as trials where a boot loader boots and a kernel panics: on virtual machines with systemd-boot and with
//! GRUB.

use e2e::World;
use lab::{BootLoader, Host, HostOptions};

use crate::reboots::{booted, kernel};
use crate::support::{apply, fails_saying, no_changes, one, set_up, site, succeeds};

/// Waits until the trial is over, and the machine knows.
fn settles(host: &Host) {
    let start = std::time::Instant::now();
    let is_over = || host.exec(&["test", "!", "-e", "/var/lib/nixos-agent/trial.json"]);
    while !is_over().is_ok_and(|over| over.success) {
        assert!(start.elapsed().as_secs() < 600, "the machine knows that the trial is over");
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

fn trials(loader: BootLoader) {
    let options = HostOptions { virtual_machine: Some(loader), ..HostOptions::default() };
    let world = World::boot_with(&[("web", options)], &|_| {}).expect("the lab boots");
    let web = world.lab.host("web");
    let with = |version: &str, at_boot: &str| {
        one(&format!(
            "boot.loader.{}.enable = true; {} testing.atBoot = \"{at_boot}\";",
            loader.name(),
            kernel(version)
        ))
    };
    // An emulated machine may take long for everything, also for a login.
    let patient = "provider \"nixos\" { ssh = { connect_timeout = \"60s\" } }\n";
    let main = "reboot = \"if_needed\"\n  reboot_timeout = \"15m\"\n  confirm_timeout = \"3m\"";
    set_up(&world, &(site(&world, &["web"], main) + patient), &with("6.6.1", ""));
    let installed = booted(web);
    succeeds(&apply(&world));
    let good = booted(web);
    assert_ne!(good, installed);
    assert_eq!(good, world.current_system("web"), "it was booted with what was deployed");
    no_changes(&world);

    // The new system panics: the boot loader has forgotten it by then, and starts the one before.
    world
        .write("network.nix", &with("6.6.2", "touch /var/lib/tried; sync; echo c > /proc/sysrq-trigger"))
        .unwrap();
    fails_saying(&apply(&world), &["Back with its old system, after a reboot: machine \"web\"", &good]);
    assert!(web.exec(&["test", "-e", "/var/lib/tried"]).unwrap().success, "it did start the new one");
    assert_eq!((booted(web), world.current_system("web")), (good.clone(), good.clone()));
    settles(web);
    web.power_cycle().unwrap();
    assert_eq!(booted(web), good, "and it stays with it");
    world.write("network.nix", &with("6.6.1", "")).unwrap();
    no_changes(&world);
}

#[test]
fn systemd_boot_tries_a_system_once() {
    trials(BootLoader::SystemdBoot);
}

#[test]
fn grub_tries_a_system_once() {
    trials(BootLoader::Grub);
}
