//! Bringing a machine out of emergency mode.

use std::time::{Duration, Instant};

use crate::program;
use crate::systemd::{self, Mode, systemctl};

/// How long the activation script may take in emergency mode.
const SCRIPT: Duration = Duration::from_mins(5);
/// How long the machine may take to come out of emergency mode.
const LEAVE: Duration = Duration::from_mins(2);

/// Brings a machine that is in emergency or rescue mode back into the mode that it boots into, with the files of
/// `system`.
pub(crate) fn leave_emergency(system: &str) -> Result<(), String> {
    if systemd::mode() != Mode::Emergency {
        return Ok(());
    }
    println!("the machine is in emergency mode: activating {system} and starting everything again");
    // The script and not `switch-to-configuration`, which needs D-Bus, and there is none in emergency mode. What comes
    // of it shows below, so a failure of the script alone is no reason to give up.
    let mut script = program::command(&format!("{system}/activate"));
    if let Err(why) = program::output_within(script.env("NIXOS_ACTION", "test").current_dir("/"), SCRIPT) {
        println!("{why}");
    }
    systemctl(&["daemon-reload"])?;
    systemctl(&["reset-failed"])?;
    systemctl(&["isolate", "--no-block", "default.target"])?;
    let start = Instant::now();
    while start.elapsed() < LEAVE {
        std::thread::sleep(Duration::from_millis(300));
        let is_booting = systemd::jobs().iter().any(|job| job.kind == "start");
        if systemd::mode() != Mode::Emergency && !is_booting {
            return Ok(());
        }
    }
    match systemd::mode() {
        Mode::Emergency => Err("The machine does not come out of emergency mode".to_owned()),
        // Some unit takes long to start, but the machine is out of emergency mode.
        _ => Ok(()),
    }
}
