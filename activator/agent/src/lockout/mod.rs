//! Whether the client could still log in as it did for this activation, by what the files of a system say.
//!
//! The login after the switch is the proof. This check only spares the machine a switch after which that login would
//! fail. Where a system is made the one that boots without being run, this check is all there is.
//!
//! It must never object wrongly. So an objection counts only if the running system does not raise it too, because that
//! one has let the client in. And a file that cannot be read raises no objection.

mod etc_files;
mod firewall;
mod network;
mod objection;
mod sshd;
mod unit_files;
mod users;

use std::path::Path;

use nixos_agent::Login;

use etc_files::EtcFiles;
use objection::Objection;
use unit_files::unit;
use users::Accounts;

/// Says why nobody could log in to `new` as `login` did, where that is certain. `old` is the system that runs now.
pub(crate) fn check(login: &Login, old: Option<&str>, new: &str) -> Result<(), String> {
    let (old, new) = (old.map(Path::new), Path::new(new));
    let key = sshd::key_of(login);
    let objections = |files: &EtcFiles<'_>| {
        let mut found = sshd::objections(login, key.as_deref(), files);
        // Only where there is an old system to compare with: something that this check does not know may let the client
        // in.
        if let (Some(system), Some(_)) = (files.system, old) {
            found.extend(missing(login, system));
        }
        found
    };
    let found = objections(&EtcFiles::after(new));
    if found.is_empty() {
        return Ok(());
    }
    let before = objections(&EtcFiles::now(old));
    let is_new = |one: &&Objection| !before.iter().any(|other| one.is_like(other));
    let why: Vec<String> = found.iter().filter(is_new).map(|one| one.describe(login)).collect();
    if why.is_empty() {
        return Ok(());
    }
    Err(format!(
        "Nobody could log in to the new system as it was done now: {}. Nothing was changed. If that is what you \
         want, set `confirm_timeout = \"0s\"`.",
        why.join("; ")
    ))
}

/// What this login needs and a system does not have.
fn missing(login: &Login, system: &Path) -> Vec<Objection> {
    // These open the firewall by themselves, and Tailscale has an SSH server of its own.
    let own_way = ["tailscaled.service", "netbird.service"].iter().any(|name| unit(system, name).is_some());
    let accounts = Accounts::of(system).unwrap_or_default();
    let account = accounts.refuses(&login.user);
    let checks = [
        (!has_server(system) && !own_way, Objection::NoServer),
        (!accounts.have(&login.user), Objection::NoUser),
        (firewall::refuses(system, login.port) && !own_way, Objection::Firewall),
        (network::lacks(system, login.address), Objection::Address),
    ];
    let found = checks.into_iter().filter_map(|(holds, objection)| holds.then_some(objection));
    found.chain(account.map(Objection::Account)).collect()
}

fn has_server(system: &Path) -> bool {
    ["sshd.service", "sshd.socket", "ssh.service", "ssh.socket"]
        .iter()
        .any(|name| system.join("etc/systemd/system").join(name).exists())
}
