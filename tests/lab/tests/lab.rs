//! The lab itself: what the end-to-end tests take for granted.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::{BootLoader, HostOptions, Lab};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn builder<'a>() -> lab::Builder<'a> {
    Lab::builder(&root().join("target/lab"), &root().join("tests/fixtures/mini-nixos"))
}

fn ssh(lab: &Lab, host: &str, command: &str) -> lab::Finished {
    let address = lab.host(host).address().to_string();
    let options =
        ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=2"];
    lab.control().exec(&[&["ssh"][..], &options, &[&address, command]].concat()).unwrap()
}

#[test]
fn hosts_boot_are_reached_and_survive_power_and_network() {
    let lab = builder().host("a").host("b").boot().unwrap();
    assert_eq!(ssh(&lab, "a", "hostname").stdout.trim(), "a");
    assert!(ssh(&lab, "b", "systemctl is-active mini-nixos-boot").success);
    let b = lab.host("b");
    assert!(
        lab.host("a").exec(&["bash", "-c", &format!("exec 3<>/dev/tcp/{}/22", b.address())]).unwrap().success
    );

    b.write_file("/root/kept", "yes").unwrap();
    let boot = ssh(&lab, "b", "cat /proc/sys/kernel/random/boot_id; cat /proc/1/stat").stdout;
    b.power_cycle().unwrap();
    assert_ne!(ssh(&lab, "b", "cat /proc/sys/kernel/random/boot_id; cat /proc/1/stat").stdout, boot);
    assert_eq!(ssh(&lab, "b", "cat /root/kept").stdout, "yes");

    b.link_down().unwrap();
    assert!(!ssh(&lab, "b", "true").success, "no cable, no connection");
    b.link_up().unwrap();
    assert!(ssh(&lab, "b", "true").success);

    let system = lab.control().exec(&["readlink", "-f", "/nix/var/nix/profiles/system"]).unwrap().stdout;
    let copy = format!(
        "NIX_SSHOPTS='-o StrictHostKeyChecking=no' nix copy --to ssh://root@{} {}",
        b.address(),
        system.trim()
    );
    let copied = lab.control().exec(&["sh", "-c", &copy]).unwrap();
    assert!(copied.success, "{}", copied.stderr);
}

#[test]
fn a_virtual_machine_is_a_host_like_any_other() {
    let options = HostOptions { virtual_machine: Some(BootLoader::SystemdBoot), ..HostOptions::default() };
    let lab = builder().host_with("a", options).boot().unwrap();
    let a = lab.host("a");
    assert!(a.host_public_key().starts_with("ssh-ed25519 "));
    let key = ssh(&lab, "a", "cut -d ' ' -f 1,2 /etc/ssh/ssh_host_ed25519_key.pub").stdout;
    assert_eq!(key.trim(), a.host_public_key());
    a.write_file("/root/a directory/it's", "1\n2").unwrap();
    assert_eq!(a.read_file("/root/a directory/it's").unwrap(), "1\n2");
    assert!(a.read_file("/root/nothing").is_err());
    a.copy_in(&root().join("tests/lab"), "/root/copy").unwrap();
    assert!(a.read_file("/root/copy/src/lib.rs").unwrap().contains("virtual machine"));
    assert_eq!(a.exec(&["sh", "-c", "exit 3"]).unwrap().code, Some(3));

    a.link_down().unwrap();
    assert!(!ssh(&lab, "a", "true").success, "no cable, no connection");
    assert!(a.exec(&["true"]).unwrap().success, "but for us");
    a.link_up().unwrap();
    let boot = ssh(&lab, "a", "sync; cat /proc/sys/kernel/random/boot_id").stdout;
    a.power_cycle().unwrap();
    assert_ne!(ssh(&lab, "a", "cat /proc/sys/kernel/random/boot_id").stdout, boot);
    assert_eq!(a.read_file("/root/a directory/it's").unwrap(), "1\n2");
    assert!(!a.console().is_empty(), "what it printed while it booted");
}

#[test]
fn a_small_disk_is_full_when_it_is_full() {
    let lab = builder()
        .host_with("small", HostOptions { disk_bytes: Some(16 << 20), ..HostOptions::default() })
        .boot()
        .unwrap();
    let full = lab.host("small").exec(&["dd", "if=/dev/zero", "of=/root/big", "bs=1M", "count=32"]).unwrap();
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
}

#[test]
fn nothing_stays_when_the_owner_is_killed() {
    // Cargo builds the examples beside the tests.
    let tests = std::env::current_exe().unwrap();
    let hold = tests.parent().and_then(Path::parent).unwrap().join("examples/hold");
    let mut owner = Command::new(hold).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let booted = lines.map_while(Result::ok).next();
    let root = booted.expect("the lab boots");
    let id = format!("nixlab-{}-", owner.id());
    let left = || {
        lab::leftovers()
            .into_iter()
            .filter(|item| item.contains(&id) || item.contains(&root))
            .collect::<Vec<_>>()
    };
    assert!(!left().is_empty(), "it is there");
    owner.kill().unwrap();
    owner.wait().unwrap();
    let start = Instant::now();
    while !left().is_empty() || Path::new(&root).exists() {
        assert!(start.elapsed() < Duration::from_secs(20), "left behind: {:?}", left());
        std::thread::sleep(Duration::from_millis(100));
    }
}
