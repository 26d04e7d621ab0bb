//! Whether somebody could still log in as it was done to get here, by what the files of a system say.
//!
//! The login after the switch is the proof; this only spares the machine a switch that could not pass it, and is all there is
//! where a system is made the one that boots without being run. So it has to be sure: an objection that can be raised against the
//! system that runs now, too, is none, because that one let us in; and what cannot be read raises none.

mod firewall;
mod network;
mod sshd;
mod users;

use std::path::{Path, PathBuf};

use nixos_agent::Login;

use crate::host;
use users::Accounts;

/// What keeps people out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Objection {
    /// It has no SSH server.
    NoServer,
    /// Its SSH server does not start with its configuration.
    BadConfiguration(String),
    /// Its SSH server listens elsewhere.
    Elsewhere(Vec<String>),
    /// Its SSH server does not let this user in, because of this line.
    Refused(String),
    /// The key of this login is not among those that it accepts.
    UnknownKey(String),
    /// It does not have the user.
    NoUser,
    /// It has the user, who cannot log in there.
    Account(String),
    /// Its firewall does not let connections to the port through.
    Firewall,
    /// The machine would not have the address that it was reached at.
    Address,
}

/// Says why nobody could log in to `new` as `login` was done, where that is certain. `old` is the system that runs now.
pub(crate) fn look(login: &Login, old: Option<&str>, new: &str) -> Result<(), String> {
    let (old, new) = (old.map(Path::new), Path::new(new));
    let key = sshd::key_of(login);
    let objections = |files: &Files<'_>| {
        let mut found = sshd::objections(login, key.as_deref(), files);
        // Without a system before there is nothing to tell what else lets people in here.
        if let (Some(system), Some(_)) = (files.system, old) {
            found.extend(missing(login, system));
        }
        found
    };
    let found = objections(&Files::after(new));
    if found.is_empty() {
        return Ok(());
    }
    let before = objections(&Files::now(old));
    let is_new = |one: &&Objection| !before.iter().any(|other| one.is_like(other));
    let why: Vec<String> = found.iter().filter(is_new).map(|one| one.describe(login)).collect();
    if why.is_empty() {
        return Ok(());
    }
    Err(format!(
        "Nobody could log in to the new system as it was done now: {}. Nothing was changed. If that is what you want, set \
         `confirm_timeout = \"0s\"`.",
        why.join("; ")
    ))
}

/// What a system does not have that this login needs.
fn missing(login: &Login, system: &Path) -> Vec<Objection> {
    // They open the way for themselves, and Tailscale has a server of its own.
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

impl Objection {
    /// Whether it is the same kind of objection; those of the SSH server, whether it is about the same setting.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refused(one), Self::Refused(other)) => {
                one.split_whitespace().next() == other.split_whitespace().next()
            }
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    fn describe(&self, login: &Login) -> String {
        let Login { user, address, port, .. } = login;
        match self {
            Self::NoServer => "it has no SSH server".to_owned(),
            Self::BadConfiguration(message) => {
                format!("its SSH server does not accept its configuration ({message})")
            }
            Self::Elsewhere(places) => {
                format!(
                    "its SSH server listens at {}, and this login came in at {address}, port {port}",
                    places.join(", ")
                )
            }
            Self::Refused(line) => format!("its SSH server does not let {user} in, because of `{line}`"),
            Self::UnknownKey(key) => {
                format!("the key of this login ({key}) is not among those that {user} may log in with")
            }
            Self::Account(reason) => reason.clone(),
            Self::NoUser => format!("it has no user {user}"),
            Self::Firewall => format!("its firewall does not let connections to port {port} through"),
            Self::Address => {
                format!("the machine would not have the address {address}, at which it was reached")
            }
        }
    }
}

/// Where files of `/etc` are, now or with a system that does not run yet.
struct Files<'a> {
    system: Option<&'a Path>,
    /// Whether it is about a system that is to run: then what this one has put into `/etc` goes.
    after: bool,
}

impl<'a> Files<'a> {
    fn now(system: Option<&'a Path>) -> Self {
        Self { system, after: false }
    }

    fn after(system: &'a Path) -> Self {
        Self { system: Some(system), after: true }
    }

    /// Whether there is to be such a file, and nobody can say yet what is in it: others make it once the system runs.
    fn comes_later(&self, path: &Path) -> bool {
        let own = self
            .system
            .zip(path.strip_prefix("/etc").ok())
            .map(|(system, below)| system.join("etc").join(below));
        let dangles = own.is_some_and(|own| own.symlink_metadata().is_ok() && !own.exists());
        self.after && (dangles || (path.starts_with("/run") && !path.exists()))
    }

    /// The file that stands for this path.
    fn find(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix("/etc").ok().filter(|_| self.after);
        let Some((system, below)) = self.system.zip(below) else {
            return path.exists().then(|| path.to_owned());
        };
        let own = system.join("etc").join(below);
        if own.exists() {
            return Some(own);
        }
        (path.exists() && !is_managed(path)).then(|| path.to_owned())
    }
}

/// Whether a file in `/etc` belongs to a system: a link into the store, or a copy that NixOS keeps a list of.
fn is_managed(path: &Path) -> bool {
    let copies = std::fs::read_to_string("/etc/.clean").unwrap_or_default();
    let is_copy = |below: &Path| copies.lines().any(|line| Path::new(line) == below);
    path.canonicalize().is_ok_and(|target| target.starts_with("/nix/store"))
        || path.strip_prefix("/etc").is_ok_and(is_copy)
}

/// The text of a unit file of a system.
fn unit(system: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(system.join("etc/systemd/system").join(name)).ok()
}

/// The programs that a unit starts, without the signs that systemd gives a meaning.
fn programs(unit: &str) -> impl Iterator<Item = &str> {
    programs_of(
        unit,
        &["ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost"],
    )
}

/// Those that it starts by these settings.
fn programs_of<'a>(unit: &'a str, keys: &'a [&str]) -> impl Iterator<Item = &'a str> {
    unit.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        keys.contains(&key.trim()).then_some(())?;
        value.trim_start().trim_start_matches(['@', '-', ':', '+', '!']).split_whitespace().next()
    })
}

fn has_server(system: &Path) -> bool {
    ["sshd.service", "sshd.socket", "ssh.service", "ssh.socket"]
        .iter()
        .any(|name| system.join("etc/systemd/system").join(name).exists())
}

/// The store paths in a script, to the end of the word.
fn store_paths(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("/nix/store/").map(|(start, _)| {
        let rest = &text[start..];
        let end = rest.find(|c: char| c.is_whitespace() || "\"';|&()<>".contains(c)).unwrap_or(rest.len());
        &rest[..end]
    })
}

/// The login user's home.
fn home(user: &str) -> Option<PathBuf> {
    let line = host::output("getent", &["passwd", user]).ok()?;
    line.trim().split(':').nth(5).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_units_are_found_without_their_signs() {
        let unit = "[Service]\nExecStartPre=-/a/b -x\nExecStart=@/nix/store/x/bin/firewall-start firewall-start\nRestart=no\n";
        assert_eq!(programs(unit).collect::<Vec<_>>(), ["/a/b", "/nix/store/x/bin/firewall-start"]);
    }

    #[test]
    fn store_paths_end_with_the_word() {
        let script = "perl -w /nix/store/x-p.pl '/nix/store/x-users-groups.json'; y=\"/nix/store/z\"\n";
        assert_eq!(
            store_paths(script).collect::<Vec<_>>(),
            ["/nix/store/x-p.pl", "/nix/store/x-users-groups.json", "/nix/store/z"]
        );
    }
}
