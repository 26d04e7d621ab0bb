//! Pushing: `nix copy` speaks its own protocol to the machine's `nix-store --serve`, through the connection we have.

use std::time::Duration;

use nixos_agent::PUSHED;
use tokio_util::sync::CancellationToken;

use crate::StorePath;
use crate::nix::{Call, Nix, NixError};
use crate::ssh::{Connection, SshError};

/// How closures travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopySettings {
    /// Let the machine fetch from its own binary caches what it finds there.
    pub substitute_on_destination: bool,
}

/// Why a closure did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Root, who receives it.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// Nix, on this side or on that.
    #[error(transparent)]
    Nix(#[from] NixError),
    /// It cannot be kept from the machine's garbage collector.
    #[error("the machine cannot make {root}, which keeps the system from its garbage collector: {message}")]
    Root {
        /// The link.
        root: &'static str,
        /// What the machine said.
        message: String,
    },
    /// The machine's disk is full.
    #[error("no space left on the machine: {message}")]
    DiskFull {
        /// What Nix said.
        message: String,
    },
}

/// Copies `path` with everything it refers to onto the machine. Paths it has already do not travel.
pub async fn push(
    nix: &Nix,
    connection: &Connection,
    path: &StorePath,
    settings: CopySettings,
    cancel: &CancellationToken,
) -> Result<(), PushError> {
    keep(connection, path).await?;
    let to_root = connection.to_root().await?;
    let url = store_url(&to_root);
    let mut arguments = vec!["copy", "--no-check-sigs", "--to", &url];
    if settings.substitute_on_destination {
        arguments.push("--substitute-on-destination");
    }
    arguments.push(path.as_str());
    let options = connection.ssh_options().join(" ");
    let call = Call {
        program: "nix",
        arguments: &arguments,
        environment: &[("NIX_SSHOPTS", &options)],
        silence: Some(if settings.substitute_on_destination { DOWNLOADS } else { SILENCE }),
        ..Call::default()
    };
    match nix.call(call, cancel, &|_| {}).await {
        Ok(_) => Ok(()),
        Err(NixError::Failed { message, .. }) if is_full(&message) => Err(PushError::DiskFull { message }),
        Err(NixError::Failed { program, status, message, output }) => {
            // Nix was given our alias. The user knows the machine by its host.
            let message = message.replace(Connection::ALIAS, &connection.endpoint().host);
            Err(NixError::Failed { program, status, message, output }.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// How long Nix may say nothing while it copies: it says how far it is, many times a second.
const SILENCE: Duration = Duration::from_mins(5);

/// The same where the machine downloads: of that Nix says nothing here.
const DOWNLOADS: Duration = Duration::from_hours(1);

/// Keeps `path` from the machine's garbage collector before it is there: it may wait for its turn for hours, or for
/// an activation that comes another day. It takes the place of what was pushed before; an activation takes the root
/// away.
async fn keep(connection: &Connection, path: &StorePath) -> Result<(), PushError> {
    let answer = connection.run_as_root(&["sh", "-c", KEEP, "sh", PUSHED, path.as_str()], b"").await?;
    if answer.code == Some(0) {
        return Ok(());
    }
    let message = answer.stderr.trim().to_owned();
    if is_full(&message) {
        return Err(PushError::DiskFull { message });
    }
    Err(PushError::Root { root: PUSHED, message })
}

const KEEP: &str = r#"
set -e; umask 022
PATH="$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/bin:/bin"
mkdir -p "${1%/*}"; ln -sfn "$2" "$1.new"; mv -fT "$1.new" "$1"
"#;

/// How Nix and its database say that a disk is full.
fn is_full(message: &str) -> bool {
    ["No space left on device", "database or disk is full"].iter().any(|text| message.contains(text))
}

/// Where Nix copies to. It never sees the machine's address: what a name such as `localhost` or an IPv6 address with
/// a zone means in a URL differs between its versions. One connection, because a Nix that may have more opens a
/// master of its own.
fn store_url(to_root: &[&str]) -> String {
    let host = Connection::ALIAS;
    if to_root.is_empty() {
        return format!("ssh://{host}?max-connections=1");
    }
    // Spaces separate words here in every version of Nix.
    format!("ssh://{host}?max-connections=1&remote-program={}%20nix-store", to_root.join("%20"))
}
