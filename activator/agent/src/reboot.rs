//! Rebooting a machine of which parts do not work any more.

use std::time::Duration;

use rustix::system::RebootCommand;

use crate::host;

/// How long `systemctl` may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Ways to ask systemd, and how long the machine may take to go down then: through systemd-logind, which programs may tell not to; without
/// it; and without waiting for units to stop.
const WAYS: [(&[&str], Duration); 3] = [
    (&["--no-wall", "reboot"], Duration::from_mins(5)),
    (&["--no-wall", "--no-block", "start", "reboot.target"], Duration::from_mins(1)),
    (&["--no-wall", "--force", "reboot"], Duration::from_mins(1)),
];

/// Reboots by systemd, or where that fails by the kernel. It returns only where even that fails.
pub(crate) fn reboot() -> Result<(), String> {
    for (words, patience) in WAYS {
        match host::output_of(host::command("systemctl").args(words), Some(ANSWER)) {
            Ok(_) => std::thread::sleep(patience),
            Err(why) => println!("{why}"),
        }
    }
    rustix::fs::sync();
    rustix::system::reboot(RebootCommand::Restart).map_err(|error| format!("reboot: {error}"))
}
