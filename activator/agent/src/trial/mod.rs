//! A trial: the boot loader starts a new system once, and the one that the machine was booted with from then on, until the new one
//! has been found well.
//!
//! So a kernel that panics, a root that is not found or a machine that nobody can reach any more costs a reboot, not the machine.
//! Who is to find it well is the client, who deploys the same system again after the reboot; a unit of ours reboots the machine when
//! nobody does.

mod loader;

use std::path::Path;
use std::time::{Duration, Instant};

use nixos_agent::Trial;
use serde::{Deserialize, Serialize};

use crate::AgentError;
use crate::boot_unit::{self, BootUnit};
use crate::files::replace;
use crate::host::{self, PROFILE};
use crate::preflight;
use crate::reboot;

const FILE: &str = "/var/lib/nixos-agent/trial.json";
const HOLDER: &str = "trial";
const PAUSE: Duration = Duration::from_secs(1);

const UNIT: BootUnit = BootUnit {
    name: "nixos-agent-trial.service",
    // Where a system gets stuck half-way it may not come to more than the last of these.
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
    /// The boot during which it was begun.
    boot_id: String,
    /// How long after its boot somebody has to have found it well.
    seconds: u64,
    /// Whether it was rebooted because nobody did.
    #[serde(default)]
    ended: bool,
}

/// Has the next boot start `toplevel`, which is the one that boots, and those after it the system that the machine was booted with.
/// Where that is not possible everything stays as it is. An error means that it is not known what boots.
pub(crate) fn begin(toplevel: &str, seconds: u64) -> Result<Trial, AgentError> {
    let impossible = |reason: String| Ok(Trial::Impossible { reason });
    let _lock = match preflight::lock(HOLDER) {
        Ok(lock) => lock,
        Err(reason) => return impossible(reason),
    };
    let boot_id = host::state().boot_id;
    // One that was begun before may not have come to its end.
    let before = read().filter(|begun| begun.boot_id == boot_id);
    // What is to be started once is ours only if one was begun during this boot.
    let is_ours = before.is_some();
    let before = before.filter(|begun| begun.toplevel == toplevel);
    let fallback = match before.map_or_else(|| fallback(toplevel), |begun| Ok(begun.fallback)) {
        Ok(fallback) => fallback,
        Err(reason) => return impossible(reason),
    };
    let on_trial = OnTrial { toplevel: toplevel.to_owned(), fallback, boot_id, seconds, ended: false };
    let begun = write(&on_trial)
        .and_then(|()| host::mark_uncommitted(toplevel))
        .map_err(|error| error.to_string())
        // All boot loaders of NixOS have the system as their default that installs them.
        .and_then(|()| install_boot_loader(&on_trial.fallback))
        .and_then(|()| UNIT.install().map_err(|error| error.to_string()))
        .and_then(|()| loader::boot_once(toplevel, &on_trial.fallback));
    let Err(reason) = begun else {
        return Ok(Trial::Begun { fallback: on_trial.fallback });
    };
    if is_ours {
        loader::forget();
    }
    remove();
    // If this fails the profile stays marked as one that does not boot.
    install_boot_loader(toplevel).map_err(AgentError::Trial)?;
    host::mark_committed();
    impossible(reason)
}

/// Takes back a trial whose reboot does not come: the profile's system is the one that boots, for good.
pub(crate) fn take_back() -> Result<(), AgentError> {
    let _lock = preflight::lock(HOLDER).map_err(AgentError::Trial)?;
    let Some(begun) = read() else { return Ok(()) };
    forget();
    if host::state().profile.as_deref() == Some(begun.toplevel.as_str()) {
        install_boot_loader(&begun.toplevel).map_err(AgentError::Trial)?;
        host::mark_committed();
    }
    Ok(())
}

/// The system that the machine was booted with, if that is one to go back to.
fn fallback(toplevel: &str) -> Result<String, String> {
    let state = host::state();
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
    boot_unit::is_possible().map_err(|needs| format!("it needs {needs}"))?;
    // Before anything is installed anew for nothing.
    loader::is_there()?;
    Ok(fallback)
}

fn generation_of(system: &str) -> Option<u64> {
    let leads_there = |number: &u64| {
        let link = Path::new(PROFILE).with_file_name(format!("system-{number}-link"));
        link.canonicalize().is_ok_and(|found| found == Path::new(system))
    };
    host::generations().into_iter().filter(leads_there).max()
}

fn install_boot_loader(system: &str) -> Result<(), String> {
    host::output(&format!("{system}/bin/switch-to-configuration"), &["boot"]).map(drop)
}

/// The system that the machine goes back to if it is booted now, where `toplevel` is on trial.
pub(crate) fn way_back(toplevel: &str) -> Option<String> {
    read()
        .filter(|on_trial| on_trial.toplevel == toplevel && !on_trial.ended)
        .map(|on_trial| on_trial.fallback)
}

/// Ends the trial: what boots is decided.
pub(crate) fn forget() {
    // One that is not over would start with the next boot, whatever has been deployed since.
    if read().is_some_and(|begun| begun.boot_id == host::state().boot_id) {
        loader::forget();
    }
    remove();
}

fn remove() {
    let _ = std::fs::remove_file(FILE);
    UNIT.uninstall();
}

/// After a boot: waits until it is decided, and goes back when it is not in time.
pub(crate) fn watch() -> Result<(), AgentError> {
    let start = Instant::now();
    while let Some(on_trial) = read() {
        let limit = Duration::from_secs(on_trial.seconds);
        let is_late = start.elapsed() >= limit;
        let state = host::state();
        if state.boot_id == on_trial.boot_id {
            // A switch has started the unit.
            return Ok(());
        }
        match state.booted {
            Some(booted) if booted == on_trial.fallback => {
                if let Ok(_lock) = preflight::lock(HOLDER) {
                    println!("{} is not what the machine runs; {booted} boots again", on_trial.toplevel);
                    return back(&on_trial);
                }
                std::thread::sleep(PAUSE);
            }
            Some(booted) if booted != on_trial.toplevel => {
                println!("somebody has booted {booted}: this is no trial any more");
                forget();
            }
            // A boot loader that goes on starting it would do so for ever.
            Some(booted) if on_trial.ended => {
                println!(
                    "{booted} was booted again although the boot loader was to start {}",
                    on_trial.fallback
                );
                forget();
            }
            Some(booted) if is_late => {
                // Whoever is at work on it finds out by himself.
                if let Ok(_lock) = preflight::lock(HOLDER)
                    && read().is_some()
                {
                    println!(
                        "nobody has found {booted} well within {} s: back to {}",
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

/// The profile follows what was booted.
fn back(on_trial: &OnTrial) -> Result<(), AgentError> {
    loader::forget();
    let follows = host::state().profile.as_deref() != Some(on_trial.toplevel.as_str());
    // Where there is no generation to go back to, the profile stays marked as one that does not boot.
    let generation = generation_of(&on_trial.fallback).filter(|_| !follows);
    if let Some(number) = generation {
        let number = number.to_string();
        host::output("nix-env", &["-p", PROFILE, "--switch-generation", &number])
            .map_err(AgentError::Trial)?;
    }
    if follows || generation.is_some() {
        host::mark_committed();
    }
    forget();
    Ok(())
}

fn write(on_trial: &OnTrial) -> Result<(), AgentError> {
    let json = serde_json::to_vec(on_trial).map_err(|error| AgentError::Request(error.to_string()))?;
    replace(Path::new(FILE), &json, 0o600)
}

fn read() -> Option<OnTrial> {
    serde_json::from_slice(&std::fs::read(FILE).ok()?).ok()
}
