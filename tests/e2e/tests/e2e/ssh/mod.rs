//! SSH as it is out there: keys that come late, bastions with the defaults of OpenSSH, an `ssh_config` full of
//! surprises, odd machines.

mod awkward;
mod bastions;
mod ipv6;
mod late_keys;
mod user_config;

use lab::Host;

/// How often a host has refused a login of root's so far.
fn refusals(host: &Host) -> usize {
    let said = host.exec(&["journalctl", "-o", "cat", "-t", "sshd-session", "-t", "sshd"]).unwrap().stdout;
    said.lines().filter(|line| line.contains("Connection closed by authenticating user root")).count()
}
