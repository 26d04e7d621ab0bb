//! Whether a machine uses a volume, asked of a real kernel about real block devices: on a virtual machine with `NVMe`
//! disks whose serial numbers are ids of volumes, as on EC2.

use e2e::World;
use lab::{BootLoader, Host, HostOptions};

use crate::support::{apply, one, set_up, site, succeeds};

/// What the agent says about a volume.
fn use_of(host: &Host, id: &str) -> serde_json::Value {
    let script = "exec \"$(echo /var/lib/nixos-agent/bin/*/nixos-agent)\" volume \"$0\" f";
    let answer = host.exec(&["sh", "-c", script, id]).unwrap();
    assert!(answer.success, "{}", answer.stderr);
    serde_json::from_str(&answer.stdout).unwrap()
}

#[track_caller]
fn does(host: &Host, script: &str) {
    let done = host.exec(&["sh", "-euxc", script]).unwrap();
    assert!(done.success, "{script}: {}", done.stderr);
}

#[test]
fn a_volume_is_in_use_when_the_kernel_says_so() {
    let volumes = vec!["vol0data".to_owned(), "vol0more".to_owned()];
    let options =
        HostOptions { virtual_machine: Some(BootLoader::SystemdBoot), volumes, ..HostOptions::default() };
    let world = World::boot_with(&[("web", options)], &|_| {}).expect("the lab boots");
    let web = world.lab.host("web");
    // A deployment brings the agent.
    let patient = "provider \"nixos\" { ssh = { connect_timeout = \"60s\" } }\n";
    set_up(&world, &(site(&world, &["web"], "") + patient), &one("boot.loader.systemd-boot.enable = true;"));
    succeeds(&apply(&world));
    does(web, "modprobe -a nvme dm-mod dm-crypt btrfs; until [ -b /dev/nvme1n1 ]; do sleep 0.1; done");
    let find = "grep -l \"$0\" /sys/block/nvme*/device/serial";
    let device = web.exec(&["sh", "-c", find, "vol0more"]).unwrap().stdout;
    let device = device.split('/').nth(3).expect("the device is there").to_owned();
    let other = if device == "nvme0n1" { "nvme1n1" } else { "nvme0n1" };

    assert_eq!(use_of(web, "vol-0more"), "free");
    assert_eq!(use_of(web, "vol-0gone"), "not_found");
    let cases = [
        ("mkfs.ext4 -q DEV; mount DEV /mnt", "umount /mnt", "mounted at /mnt"),
        // A mount that only one service sees.
        (
            "systemd-run -q --unit=private -p PrivateMounts=yes sh -c 'mount DEV /mnt && exec sleep 1000'; \
             until grep -qs DEV /proc/$(systemctl show -P MainPID private)/mounts; do sleep 0.1; done",
            "systemctl stop private",
            "",
        ),
        ("mkswap -q DEV; swapon DEV", "swapoff DEV", "swap"),
        (
            "wipefs -qa DEV; echo start=2048 | sfdisk -q DEV; until [ -b DEVp1 ]; do sleep 0.1; done; \
             mkfs.ext4 -q DEVp1; mount DEVp1 /mnt",
            "umount /mnt; wipefs -qa DEV; blockdev --rereadpt DEV",
            "mounted at /mnt",
        ),
        (
            "pvcreate -qq -ff -y DEV; vgcreate -qq data DEV; lvcreate -qq -y -Z n -W n -L 32M -n files data",
            "vgchange -qq -an data; vgremove -qq -f data; pvremove -qq DEV",
            "/dev/mapper/data-files",
        ),
        (
            "echo secret | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
             --key-file - DEV; echo secret | cryptsetup open --key-file - DEV vault",
            "cryptsetup close vault; wipefs -qa DEV",
            "/dev/mapper/vault",
        ),
        // The file system is mounted by the name of its other device.
        (
            "wipefs -qa OTHER; mkfs.btrfs -q -f OTHER DEV; mount OTHER /mnt",
            "umount /mnt; wipefs -qa DEV",
            "btrfs",
        ),
        // As a ZFS pool has its devices, of which nothing but the kernel knows.
        (
            "systemd-run -q --unit=holder perl -e 'use Fcntl; sysopen(F, \"DEV\", O_RDWR | O_EXCL) or die; \
             sleep 1000'; until ls -l /proc/$(systemctl show -P MainPID holder)/fd | grep -q DEV; do sleep \
             0.1; done",
            "systemctl stop holder",
            "",
        ),
    ];
    for (begin, end, by) in cases {
        let on = |script: &str| {
            script.replace("DEV", &format!("/dev/{device}")).replace("OTHER", &format!("/dev/{other}"))
        };
        does(web, &on(begin));
        let found = use_of(web, "vol-0more");
        assert_eq!(found["in_use"]["device"], format!("/dev/{device}"), "{begin}: {found}");
        let users: Vec<_> =
            found["in_use"]["by"].as_array().unwrap().iter().filter_map(|by| by.as_str()).collect();
        assert!(by.is_empty() || users.contains(&by), "{begin}: {found}");
        does(web, &on(end));
        assert_eq!(use_of(web, "vol-0more"), "free", "after {end}");
    }
}
