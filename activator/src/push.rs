//! Pushing: `nix copy` speaks its own protocol to the machine's `nix-store --serve`, through the connection we have.

use nixos_agent::PUSHED;
use tokio_util::sync::CancellationToken;

use crate::StorePath;
use crate::nix::{Nix, NixError};
use crate::ssh::{Connection, SshError};

/// How closures travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopySettings {
    /// Let the machine fetch from its own binary caches what it finds there.
    pub substitute_on_destination: bool,
    /// Compress on the way.
    pub compress: bool,
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
    let url = store_url(connection, &to_root, settings);
    let mut arguments = vec!["copy", "--no-check-sigs", "--to", &url];
    if settings.substitute_on_destination {
        arguments.push("--substitute-on-destination");
    }
    arguments.push(path.as_str());
    let options = connection.ssh_options();
    match nix.run("nix", &arguments, &[("NIX_SSHOPTS", &options)], cancel, &|_| {}).await {
        Ok(_) => Ok(()),
        Err(NixError::Failed { message, .. }) if is_full(&message) => Err(PushError::DiskFull { message }),
        Err(error) => Err(error.into()),
    }
}

/// Keeps `path` from the machine's garbage collector before it is there: it may wait for its turn for hours, or for an activation that comes
/// another day. It takes the place of what was pushed before; an activation takes the root away.
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

fn store_url(connection: &Connection, to_root: &[&str], settings: CopySettings) -> String {
    let endpoint = connection.endpoint();
    // An IPv6 address needs brackets in a URL.
    let host =
        if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.clone() };
    let mut query = vec![];
    if settings.compress {
        query.push("compress=true".to_owned());
    }
    if !to_root.is_empty() {
        // Spaces separate words here in every version of Nix.
        query.push(format!("remote-program={}%20nix-store", to_root.join("%20")));
    }
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    format!("ssh://{}@{host}{query}", endpoint.user)
}
