//! Rebooting a machine of which parts do not work any more.

use std::time::Duration;

use rustix::system::RebootCommand;

use crate::program;

/// How long `systemctl` may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// Ways to ask systemd, and how long the machine may take to go down after each: through systemd-logind, where programs
/// can inhibit a reboot; past systemd-logind; and without waiting for units to stop.
const WAYS: [(&[&str], Duration); 3] = [
    (&["--no-wall", "reboot"], Duration::from_mins(5)),
    (&["--no-wall", "--no-block", "start", "reboot.target"], Duration::from_mins(1)),
    (&["--no-wall", "--force", "reboot"], Duration::from_mins(1)),
];

/// Reboots by systemd, or where that fails by the kernel. It returns only where the kernel fails too.
pub(crate) fn reboot() -> Result<(), String> {
    for (words, patience) in WAYS {
        match program::output_within(program::command("systemctl").args(words), ANSWER) {
            Ok(_) => std::thread::sleep(patience),
            Err(why) => println!("{why}"),
        }
    }
    rustix::fs::sync();
    rustix::system::reboot(RebootCommand::Restart).map_err(|error| format!("reboot: {error}"))
}
