//! The provider's `ssh` block: what holds for every connection that does not say otherwise.

use std::collections::BTreeMap;
use std::time::Duration;

use nixos_activator::Secret;
use nixos_activator::ssh::{HostKeyPolicy, Key};
use tfplugin::{Diagnostic, Path};

use super::bastion::Bastion;
use super::unreachable::NoEndpoint;

/// The provider's defaults when nothing is configured.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The provider's `ssh` block with its defaults filled in.
#[derive(Clone, Debug)]
pub(crate) struct SshDefaults {
    pub(crate) user: String,
    pub(crate) port: Option<u16>,
    /// By name; a key whose value is not known yet is there without one.
    pub(crate) private_keys: BTreeMap<String, Option<Secret>>,
    pub(crate) private_key_file: Option<String>,
    pub(crate) bastion: Option<Bastion>,
    pub(crate) host_key_policy: HostKeyPolicy,
    pub(crate) connect_timeout: Duration,
    pub(crate) options: Vec<String>,
    pub(crate) elevate: Vec<String>,
    pub(crate) elevate_password: Option<Secret>,
}

impl Default for SshDefaults {
    fn default() -> Self {
        Self {
            user: "root".to_owned(),
            port: None,
            private_keys: BTreeMap::new(),
            private_key_file: None,
            bastion: None,
            host_key_policy: HostKeyPolicy::Strict,
            connect_timeout: CONNECT_TIMEOUT,
            options: vec![],
            elevate: vec![],
            elevate_password: None,
        }
    }
}

impl SshDefaults {
    /// The private key called `name`.
    pub(super) fn key(&self, name: &str, path: &Path) -> Result<Key, NoEndpoint> {
        match self.private_keys.get(name) {
            Some(Some(text)) => Ok(Key::Text(Secret::new(text.expose()))),
            Some(None) => Err(NoEndpoint::Later(
                Diagnostic::error(format!("The private key \"{name}\" is not known yet"))
                    .detail(
                        "The provider's `ssh.private_keys` takes it from something that does not exist \
                         before apply.",
                    )
                    .at(path.clone()),
            )),
            None => {
                let names: Vec<&str> = self.private_keys.keys().map(String::as_str).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(NoEndpoint::Wrong(
                    Diagnostic::error(format!("There is no private key \"{name}\""))
                        .detail(format!(
                            "Expected the name of a key in the provider's `ssh.private_keys`, which has: \
                             {names}."
                        ))
                        .at(path.clone()),
                ))
            }
        }
    }
}
