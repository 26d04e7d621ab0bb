//! The one description of a machine that a deployment takes: how to reach it, and what a specification may know about
//! it.

use nixos_activator::network::{Fact, MachineFacts};
use nixos_activator::ssh::{self as activator_ssh, Endpoint, HostKeyPolicy, Key};
use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Path};

use super::bastion::Bastion;
use super::defaults::SshDefaults;
use super::unreachable::{NoEndpoint, not_known};
use crate::settings::{List, texts};

/// How to reach a machine and the facts about it that specifications may use. It holds nothing that changes by itself:
/// deployments depend on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) host: Attr<String>,
    pub(crate) port: Attr<u16>,
    pub(crate) user: Attr<String>,
    pub(crate) key: Attr<String>,
    pub(crate) private_key_file: Attr<String>,
    pub(crate) host_public_key: Attr<String>,
    pub(crate) host_key_policy: Attr<String>,
    pub(crate) bastion: Attr<Bastion>,
    pub(crate) options: List<String>,
    pub(crate) elevate: List<String>,
    pub(crate) system: Attr<String>,
    pub(crate) state_version: Attr<String>,
    pub(crate) public_ipv4: Attr<String>,
    pub(crate) private_ipv4: Attr<String>,
    pub(crate) public_ipv6: Attr<String>,
    pub(crate) target_env: Attr<String>,
    pub(crate) machine_id: Attr<String>,
    pub(crate) instance_id: Attr<String>,
}

impl Target {
    /// How to connect, or why that cannot be said.
    pub(crate) fn endpoint(&self, defaults: &SshDefaults, path: &Path) -> Result<Endpoint, NoEndpoint> {
        let known = |value: &Attr<String>, name: &str| match value {
            Attr::Known(text) => Ok(Some(text.clone())),
            Attr::Null => Ok(None),
            Attr::Unknown => Err(not_known(&path.clone().attribute(name))),
        };
        let list = |value: &List<String>, name: &str| {
            texts(value).ok_or_else(|| not_known(&path.clone().attribute(name)))
        };
        let host = known(&self.host, "host")?.ok_or_else(|| not_known(&path.clone().attribute("host")))?;
        let key = match (known(&self.key, "key")?, known(&self.private_key_file, "private_key_file")?) {
            (Some(name), _) => defaults.key(&name, &path.clone().attribute("key"))?,
            (None, Some(file)) => Key::File(file.into()),
            (None, None) => {
                defaults.private_key_file.clone().map_or(Key::Ambient, |file| Key::File(file.into()))
            }
        };
        let bastion = match &self.bastion {
            Attr::Known(bastion) => Some(resolved(bastion, defaults, &path.clone().attribute("bastion"))?),
            Attr::Null => match &defaults.bastion {
                Some(bastion) => {
                    Some(resolved(bastion, defaults, &Path::root().attribute("ssh").attribute("bastion"))?)
                }
                None => None,
            },
            Attr::Unknown => return Err(not_known(&path.clone().attribute("bastion"))),
        };
        let policy = known(&self.host_key_policy, "host_key_policy")?;
        Ok(Endpoint {
            host,
            port: self.port.known().copied().or(defaults.port),
            user: known(&self.user, "user")?.unwrap_or_else(|| defaults.user.clone()),
            key,
            host_public_key: known(&self.host_public_key, "host_public_key")?,
            host_key_policy: policy.as_deref().map_or(defaults.host_key_policy, host_key_policy),
            bastion,
            options: [list(&self.options, "options")?, defaults.options.clone()].concat(),
            elevate: match &self.elevate {
                Attr::Null => defaults.elevate.clone(),
                elevate => list(elevate, "elevate")?,
            },
            elevate_password: defaults.elevate_password.clone(),
            connect_timeout: defaults.connect_timeout,
            compress: false,
        })
    }

    /// What a specification may know about the machine.
    pub(crate) fn facts(&self) -> MachineFacts {
        MachineFacts {
            host: fact(&self.host),
            port: fact(&self.port),
            public_ipv4: fact(&self.public_ipv4),
            private_ipv4: fact(&self.private_ipv4),
            public_ipv6: fact(&self.public_ipv6),
            host_public_key: fact(&self.host_public_key),
            system: fact(&self.system),
            state_version: fact(&self.state_version),
            target_env: fact(&self.target_env),
        }
    }
}

/// The bastion of a connection, with the key that it names.
fn resolved(
    bastion: &Bastion,
    defaults: &SshDefaults,
    path: &Path,
) -> Result<activator_ssh::Bastion, NoEndpoint> {
    let host = bastion.host.known().cloned().ok_or_else(|| not_known(&path.clone().attribute("host")))?;
    let key = match (bastion.key.known(), bastion.private_key_file.known()) {
        (Some(name), _) => defaults.key(name, &path.clone().attribute("key"))?,
        (None, Some(file)) => Key::File(file.into()),
        (None, None) => Key::Ambient,
    };
    Ok(activator_ssh::Bastion {
        host,
        port: bastion.port.known().copied(),
        user: bastion.user.known().cloned(),
        key,
        host_public_key: bastion.host_public_key.known().cloned(),
    })
}

/// Reads a policy whose spelling the schema has checked.
pub(crate) fn host_key_policy(text: &str) -> HostKeyPolicy {
    match text {
        "accept_new" => HostKeyPolicy::AcceptNew,
        "off" => HostKeyPolicy::Off,
        _ => HostKeyPolicy::Strict,
    }
}

fn fact<T: Clone>(value: &Attr<T>) -> Fact<T> {
    match value {
        Attr::Known(value) => Fact::Known(value.clone()),
        Attr::Null => Fact::Absent,
        Attr::Unknown => Fact::Unknown,
    }
}
