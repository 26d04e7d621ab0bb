//! One OpenSSH connection a machine: opened once, shared by every command, gone when we are gone.
//!
//! We start the master ourselves (`ssh -M`) and hand its control socket to the `openssh` crate, whose native mux
//! client then opens a session per command without another process. The master's own session runs `cat` on a pipe we
//! hold: when this process dies, however it dies, the pipe closes, `cat` ends and so does the master. Nothing is left
//! behind.
//!
//! A bastion is logged in to once; the connections to all machines behind it go through that one (`gate.rs`).

mod agent;
mod command_line;
mod config;
mod connection;
mod error;
mod gate;
mod identity;
mod keys;
mod master;
mod place;
mod pool;
mod root;
mod session;
mod values;
mod version;
mod wait;

use std::path::PathBuf;
use std::time::Duration;

pub use config::check_option;
pub use connection::Connection;
pub use error::SshError;
pub use keys::{KeyError, KeyPair, KeyType, normalized as normalized_public_key};
pub use pool::{Pool, allow_many_files};
pub use session::Answer;
pub use wait::Wait;

use crate::Secret;

/// Where a machine is and how to log in there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Host name, address or alias of the user's `ssh_config`.
    pub host: String,
    /// `None`: as `ssh_config` says, else 22.
    pub port: Option<u16>,
    /// The user who logs in.
    pub user: String,
    /// The private key to use.
    pub key: Key,
    /// The only host key to accept, as in `known_hosts`: `ssh-ed25519 AAAA…`. `None`: the user's `known_hosts` decides.
    pub host_public_key: Option<String>,
    /// What to do with a host key that is not known.
    pub host_key_policy: HostKeyPolicy,
    /// The host to jump over.
    pub bastion: Option<Bastion>,
    /// Further lines for `ssh_config`.
    pub options: Vec<String>,
    /// The command that makes its arguments run as root, e.g. `sudo -n`. Empty: the user is root.
    pub elevate: Vec<String>,
    /// What to type where that command asks for a password.
    pub elevate_password: Option<Secret>,
    /// How long a single attempt to connect may take.
    pub connect_timeout: Duration,
    /// Whether what goes through the connection is compressed.
    pub compress: bool,
}

/// A private key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// Whatever `ssh_config` and the agent offer.
    Ambient,
    /// A file on this machine.
    File(PathBuf),
    /// The key itself; it is never on a disk: an `ssh-agent` of our own has it while the connection is made.
    Text(Secret),
}

/// A host between here and the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bastion {
    /// Host name or address.
    pub host: String,
    /// `None`: as `ssh_config` says, else 22.
    pub port: Option<u16>,
    /// `None`: as `ssh_config` says.
    pub user: Option<String>,
    /// The private key for the bastion.
    pub key: Key,
    /// The only host key to accept there.
    pub host_public_key: Option<String>,
}

/// What to do with a host key that is not known yet. A *changed* key is refused by each but `Off`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HostKeyPolicy {
    /// Refuse.
    #[default]
    Strict,
    /// Trust on first use; the caller keeps the key and pins it from then on.
    AcceptNew,
    /// Do not check at all.
    Off,
}
