//! SSH as it is out there: keys that come late, bastions with the defaults of OpenSSH, odd `ssh_config`s, odd machines.

mod late_keys;

use lab::Host;

/// How often a host has refused a login of root's so far.
fn refusals(host: &Host) -> usize {
    let said = host.exec(&["journalctl", "-o", "cat", "-t", "sshd-session", "-t", "sshd"]).unwrap().stdout;
    said.lines().filter(|line| line.contains("Connection closed by authenticating user root")).count()
}
