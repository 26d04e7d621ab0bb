//! A trial: the boot loader starts a new system once. All later boots start the fallback, which is the system that the
//! machine was booted with, until the trial is over.
//!
//! So a kernel that panics, a root file system that is not found, or a machine that nobody can reach any more costs a
//! reboot and not the machine. The client ends the trial: after the reboot it activates the same system again, which
//! commits it. If the client does not come in time, a unit of the agent reboots the machine, into the fallback.

mod loader;

use std::path::Path;
use std::time::{Duration, Instant};

use nixos_agent::Trial;
use serde::{Deserialize, Serialize};

use crate::boot_unit::{self, BootUnit};
use crate::error::{AgentError, json_error};
use crate::files::replace;
use crate::lock::lock;
use crate::profile::{PROFILE, generations, system_of};
use crate::{program, reboot, systems};

const FILE: &str = "/var/lib/nixos-agent/trial.json";
/// What the lock names as its holder.
const HOLDER: &str = "trial";
const PAUSE: Duration = Duration::from_secs(1);

const UNIT: BootUnit = BootUnit {
    name: "nixos-agent-trial.service",
    // A system that gets stuck while it boots may reach only `emergency.target`.
    wanted_by: &["sysinit.target", "emergency.target"],
    agent: "/var/lib/nixos-agent/trial-agent",
    text: "[Unit]
Description=Trial of a system
DefaultDependencies=no
RequiresMountsFor=/var/lib/nixos-agent /nix/var/nix/profiles
Conflicts=shutdown.target
Before=shutdown.target
IgnoreOnIsolate=yes
ConditionPathExists=/var/lib/nixos-agent/trial.json

[Service]
ExecStart=/var/lib/nixos-agent/trial-agent watch-trial
Restart=on-failure
RestartSec=5
",
};

/// What is on disk about a trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct OnTrial {
    toplevel: String,
    fallback: String,
    /// The boot during which the trial was begun.
    boot_id: String,
    /// How many seconds after the boot of the new system the client has to have activated it.
    seconds: u64,
    /// Whether the machine was rebooted because the client did not come in time.
    #[serde(default)]
    ended: bool,
}

/// Makes the next boot start `toplevel`, which is the profile's system, and later boots the fallback.
///
/// Where that is not possible, everything stays as it is. An error means that it is not known what boots.
pub(crate) fn begin(toplevel: &str, seconds: u64) -> Result<Trial, AgentError> {
    let impossible = |reason: String| Ok(Trial::Impossible { reason });
    let _lock = match lock(HOLDER) {
        Ok(lock) => lock,
        Err(reason) => return impossible(reason),
    };
    let boot_id = systems::state().boot_id;
    // A trial may have been begun during this boot, and the reboot never came.
    let earlier = read().filter(|trial| trial.boot_id == boot_id);
    // Then the entry that the boot loader is to start once is ours. Else a user has chosen it.
    let is_entry_ours = earlier.is_some();
    let earlier = earlier.filter(|trial| trial.toplevel == toplevel);
    let fallback = match earlier.map_or_else(|| fallback(toplevel), |trial| Ok(trial.fallback)) {
        Ok(fallback) => fallback,
        Err(reason) => return impossible(reason),
    };
    let on_trial = OnTrial { toplevel: toplevel.to_owned(), fallback, boot_id, seconds, ended: false };
    let begun = write(&on_trial)
        .and_then(|()| systems::mark_uncommitted(toplevel))
        .map_err(|error| error.to_string())
        // Every boot loader of NixOS starts the system by default that has installed it.
        .and_then(|()| install_boot_loader(&on_trial.fallback))
        .and_then(|()| UNIT.install().map_err(|error| error.to_string()))
        .and_then(|()| loader::boot_once(toplevel, &on_trial.fallback));
    let Err(reason) = begun else {
        return Ok(Trial::Begun { fallback: on_trial.fallback });
    };
    if is_entry_ours {
        loader::forget();
    }
    remove();
    // If this fails, the mark stays that the boot loader may start another system than the profile's.
    install_boot_loader(toplevel).map_err(AgentError::Trial)?;
    systems::mark_committed();
    impossible(reason)
}

/// Takes back a trial whose reboot does not come: all boots start the profile's system.
pub(crate) fn take_back() -> Result<(), AgentError> {
    let _lock = lock(HOLDER).map_err(AgentError::Trial)?;
    let Some(trial) = read() else { return Ok(()) };
    forget();
    if systems::state().profile.as_deref() == Some(trial.toplevel.as_str()) {
        install_boot_loader(&trial.toplevel).map_err(AgentError::Trial)?;
        systems::mark_committed();
    }
    Ok(())
}

/// The system that the machine was booted with, if the machine can go back to it.
fn fallback(toplevel: &str) -> Result<String, String> {
    let state = systems::state();
    let fallback = state.booted.ok_or("it is not known what the machine was booted with")?;
    if fallback == toplevel {
        return Err("the machine was booted with this system".to_owned());
    }
    if state.profile.as_deref() != Some(toplevel) || state.generation.is_none() {
        return Err("it is not the system that boots".to_owned());
    }
    if generation_of(&fallback).is_none() {
        return Err("the system that the machine was booted with is no generation any more".to_owned());
    }
    boot_unit::check_possible().map_err(|needs| format!("it needs {needs}"))?;
    // Here, before a boot loader is installed anew in vain.
    loader::check_can_boot_once()?;
    Ok(fallback)
}

/// The newest generation with a system.
fn generation_of(system: &str) -> Option<u64> {
    generations().into_iter().filter(|number| system_of(*number).as_deref() == Some(system)).max()
}

fn install_boot_loader(system: &str) -> Result<(), String> {
    program::output(&format!("{system}/bin/switch-to-configuration"), &["boot"]).map(drop)
}

/// The system that the next boot brings back, where `toplevel` is on trial.
pub(crate) fn way_back(toplevel: &str) -> Option<String> {
    read()
        .filter(|on_trial| on_trial.toplevel == toplevel && !on_trial.ended)
        .map(|on_trial| on_trial.fallback)
}

/// Ends the trial: it is decided what boots.
pub(crate) fn forget() {
    // A trial whose reboot has not come would start with the next boot, whatever has been deployed since.
    if read().is_some_and(|trial| trial.boot_id == systems::state().boot_id) {
        loader::forget();
    }
    remove();
}

fn remove() {
    let _ = std::fs::remove_file(FILE);
    UNIT.uninstall();
}

/// After a boot: waits until the trial is over, and goes back to the fallback when the time is up.
pub(crate) fn watch() -> Result<(), AgentError> {
    let start = Instant::now();
    while let Some(on_trial) = read() {
        let limit = Duration::from_secs(on_trial.seconds);
        let is_late = start.elapsed() >= limit;
        let state = systems::state();
        if state.boot_id == on_trial.boot_id {
            // The reboot has not come yet: a switch has started the unit.
            return Ok(());
        }
        match state.booted {
            Some(booted) if booted == on_trial.fallback => {
                if let Ok(_lock) = lock(HOLDER) {
                    println!("{} is not what the machine runs; {booted} boots again", on_trial.toplevel);
                    return follow_fallback(&on_trial);
                }
                std::thread::sleep(PAUSE);
            }
            Some(booted) if booted != on_trial.toplevel => {
                println!(
                    "{booted} was booted, which is neither on trial nor the fallback: the trial is over"
                );
                forget();
            }
            // The boot loader starts the new system again and again. Another reboot would not change that.
            Some(booted) if on_trial.ended => {
                println!(
                    "{booted} was booted again although the boot loader was to start {}",
                    on_trial.fallback
                );
                forget();
            }
            Some(booted) if is_late => {
                // An activation that holds the lock decides by itself.
                if let Ok(_lock) = lock(HOLDER)
                    && read().is_some()
                {
                    println!(
                        "{booted} was not activated again within {} s: back to {}",
                        limit.as_secs(),
                        on_trial.fallback
                    );
                    write(&OnTrial { ended: true, ..on_trial })?;
                    return reboot::reboot().map_err(AgentError::Trial);
                }
                std::thread::sleep(PAUSE);
            }
            _ => std::thread::sleep(PAUSE),
        }
    }
    Ok(())
}

/// Makes the profile point at the fallback, which was booted.
fn follow_fallback(on_trial: &OnTrial) -> Result<(), AgentError> {
    loader::forget();
    let is_other = systems::state().profile.as_deref() != Some(on_trial.toplevel.as_str());
    // Without a generation of the fallback, the mark stays that the boot loader starts another system than the
    // profile's.
    let generation = generation_of(&on_trial.fallback).filter(|_| !is_other);
    if let Some(number) = generation {
        let number = number.to_string();
        program::output("nix-env", &["-p", PROFILE, "--switch-generation", &number])
            .map_err(AgentError::Trial)?;
    }
    if is_other || generation.is_some() {
        systems::mark_committed();
    }
    forget();
    Ok(())
}

fn write(on_trial: &OnTrial) -> Result<(), AgentError> {
    let json = serde_json::to_vec(on_trial).map_err(json_error)?;
    replace(Path::new(FILE), &json, 0o600)
}

fn read() -> Option<OnTrial> {
    serde_json::from_slice(&std::fs::read(FILE).ok()?).ok()
}
