//! The change of secrets that one activation makes.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use nixos_agent::{Request, SecretEntry, SecretFile};
use zeroize::Zeroizing;

use super::manifest::{self, Published};
use super::memory::directory_of;
use crate::activation::Activation;
use crate::error::{AgentError, io_error};
use crate::files::replace;
use crate::secret_stream::read_secret;
use crate::systemd;

/// The file with the moment at which the new secrets were in place.
pub(super) const PUBLISHED: &str = "published";
/// The file with the moment at which the old secrets were in place again.
pub(super) const RESTORED: &str = "restored";

/// The change of secrets that one activation makes.
pub(crate) struct SecretChange<'a> {
    pub(super) activation: &'a Activation,
    /// The id of the deployment that the secrets belong to.
    pub(super) owner: &'a str,
    pub(super) entries: &'a [SecretEntry],
    /// The system that the secrets belong to.
    pub(super) toplevel: &'a str,
}

impl<'a> SecretChange<'a> {
    /// The change that a request asks for; `None`: secrets stay as they are.
    pub(crate) fn of(activation: &'a Activation, request: &'a Request) -> Option<Self> {
        let secrets = request.secrets.as_ref()?;
        let (owner, entries) = (secrets.owner.as_str(), secrets.entries.as_slice());
        Some(Self { activation, owner, entries, toplevel: &request.toplevel })
    }

    /// The directory in memory of this activation.
    pub(super) fn directory(&self) -> PathBuf {
        directory_of(self.activation.id().as_str())
    }

    /// Secrets that were published for the same owner, and whose paths the request does not have.
    pub(super) fn undeclared(&self) -> Vec<Published> {
        let paths: BTreeSet<&Path> = self.entries.iter().map(|entry| Path::new(&entry.file.path)).collect();
        let mut published: Vec<Published> = manifest::read(self.owner).into_values().collect();
        published.retain(|one| !paths.contains(one.path.as_path()));
        published
    }

    /// The content that the client has sent for the entry with this number.
    pub(super) fn sent_content(&self, number: usize) -> Result<Zeroizing<Vec<u8>>, AgentError> {
        let file = File::open(self.directory().join(number.to_string()));
        file.and_then(read_secret).map_err(io_error("staged secret"))
    }

    /// A moment that was written down, in microseconds of [`systemd::monotonic`] time.
    pub(super) fn moment(&self, name: &str) -> Option<u64> {
        std::fs::read_to_string(self.directory().join(name)).ok()?.trim().parse().ok()
    }

    /// Writes a moment down: now.
    pub(super) fn mark_moment(&self, name: &str) -> Result<(), AgentError> {
        let now = systemd::monotonic().as_micros().to_string();
        replace(&self.directory().join(name), now.as_bytes(), 0o600)
    }
}

/// Whether a secret needs an encrypted copy that survives a reboot. A file that is on a disk survives without one.
pub(super) fn needs_copy(file: &SecretFile) -> bool {
    file.persist && Path::new(&file.path).starts_with("/run")
}
