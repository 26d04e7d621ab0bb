//! A machine that is being made, or boots, may answer before the keys of those who log in are in place.

use super::refusals;
use crate::support::{
    HEAD, apply, apply_until, fails_saying, machine, no_changes, one, set_up, site, succeeds, world,
};

/// Moves root's keys away at each boot, before the SSH server starts, and puts them back when it has refused somebody
/// twice: as a volume that is mounted late.
const LATE: &str = r#"#!/bin/sh
cd /root/.ssh && mv authorized_keys late
{
  until [ "$(journalctl -b -o cat -t sshd-session -t sshd | grep -c 'closed by authenticating user root')" -ge 2 ]; do sleep 0.5; done
  mv late authorized_keys
} &
"#;

const LATE_UNIT: &str = "[Unit]\nBefore=ssh.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/root/late\n\
    [Install]\nWantedBy=multi-user.target\n";

#[test]
fn a_new_machine_may_get_its_keys_a_moment_after_its_ssh_server() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let main = |limit: &str| {
        format!("{HEAD}{}", machine(&world, "web", &format!("timeouts = {{ create = \"{limit}\" }}")))
    };
    set_up(&world, &main("10s"), "");
    web.exec(&["mv", "/root/.ssh/authorized_keys", "/root/late"]).unwrap();
    fails_saying(
        &apply(&world),
        &["Error: Machine \"web\" refused the login", "All 3 logins within", "Permission denied"],
    );
    assert_eq!(refusals(web), 3);

    world.write("main.tf", &main("120s")).unwrap();
    let child = apply_until(&world, || refusals(web) >= 6);
    web.exec(&["mv", "/root/late", "/root/.ssh/authorized_keys"]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    no_changes(&world);
}

#[test]
fn keys_may_be_late_after_a_reboot() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    set_up(&world, &site(&world, &["web"], "reboot = \"always\""), &one(""));
    web.write_file("/root/late", LATE).unwrap();
    web.write_file("/etc/systemd/system/late.service", LATE_UNIT).unwrap();
    web.exec(&["chmod", "+x", "/root/late"]).unwrap();
    assert!(web.exec(&["systemctl", "enable", "late.service"]).unwrap().success);
    succeeds(&apply(&world));
    assert!(refusals(web) >= 2, "it was there without keys");
    no_changes(&world);
}
