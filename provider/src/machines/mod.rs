//! Where machines can run, and the one description of a machine that a deployment takes: its target.
//!
//! A back end turns its block of `nixos_machine` into a [`Target`]; everything after that is the same for all of them.

pub(crate) mod ec2;
mod sameness;
pub(crate) mod ssh;

use std::net::IpAddr;
use std::time::Duration;

use nixos_activator::network::{Fact, MachineFacts};
use nixos_activator::ssh::{self as activator_ssh, Endpoint, HostKeyPolicy, Key};
use nixos_activator::{Secret, facts};
use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Attribute, Diagnostic, Nested, Path, Validator, Value, validators};

use crate::context::SshDefaults;
use crate::settings::{List, texts};

pub(crate) use sameness::{Sameness, is_same_key};

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

/// A host to jump over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bastion {
    pub(crate) host: Attr<String>,
    pub(crate) port: Attr<u16>,
    pub(crate) user: Attr<String>,
    pub(crate) key: Attr<String>,
    pub(crate) private_key_file: Attr<String>,
    pub(crate) host_public_key: Attr<String>,
}

/// Which way round an attribute of a target is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// By the user: in the blocks of a machine, and in `machines` of a deployment.
    Input,
    /// By `nixos_machine`, in `target`.
    Output,
}

impl Direction {
    /// An attribute that may be left out.
    fn optional(self, attribute: Attribute) -> Attribute {
        match self {
            Self::Input => attribute.optional(),
            Self::Output => attribute.computed(),
        }
    }

    /// A text without which nothing can be reached.
    fn required(self, attribute: Attribute) -> Attribute {
        match self {
            Self::Input => attribute.required().validate(validators::not_empty()),
            Self::Output => attribute.computed(),
        }
    }

    /// The description of something, with what holds where it is left out.
    fn described(self, what: &str, otherwise: &str) -> String {
        match self {
            Self::Input => format!("{what} Default: {otherwise}."),
            Self::Output => format!("{what} Null: {otherwise}."),
        }
    }
}

/// What `elevate` is.
pub(crate) const ELEVATE: &str = "The command that runs its arguments as root where `user` is not root: `[\"sudo\", \"-n\"]`, \
    `[\"doas\", \"-n\"]`, `[\"run0\", \"--no-ask-password\"]`, or without these options where the provider's `ssh.elevate_password` \
    answers what they ask. It runs once a connection.";

/// The attributes of a target. The same set in both directions, so that one can be assigned to the other.
pub(crate) fn target_attributes(direction: Direction) -> Nested {
    let text = || direction.optional(Attribute::string());
    let host = direction.required(Attribute::string());
    let host = host.description("Host name, address or alias of `ssh_config`.");
    connection_attributes(Nested::new().attribute("host", host), direction)
        .attribute(
            "host_public_key",
            text().description(direction.described(
                "The only SSH host key to accept, as in `known_hosts`: `ssh-ed25519 AAAA…`.",
                "any in `known_hosts` of the user who runs Terraform",
            )),
        )
        .attribute("system", text().description("Nix' name of the machine's platform, e.g. `x86_64-linux`."))
        .attribute(
            "state_version",
            text().description(
                "What `system.stateVersion` is where the specification does not say it: the NixOS release the machine was installed \
                 with, e.g. `24.11`.",
            ),
        )
        .attribute(
            "public_ipv4",
            text().description("The machine's address on the internet: `networking.publicIPv4`."),
        )
        .attribute(
            "private_ipv4",
            text().description("The machine's address in its own network: `networking.privateIPv4`."),
        )
        .attribute(
            "public_ipv6",
            text().description("The machine's IPv6 address on the internet: `networking.publicIPv6`."),
        )
        .attribute("target_env", text().validate(target_env_values()).description(TARGET_ENV))
        .attribute(
            "machine_id",
            text().description(direction.described(
                "`/etc/machine-id`. With another one, it is another machine that answers at this address: it is deployed anew, and nothing \
                 that was known of the one before is believed.",
                "the machine is told by its host key, else by its address",
            )),
        )
        .attribute(
            "instance_id",
            text().description(direction.described(
                "The id of the machine's instance on EC2. With another one, it is another machine.",
                "there is none",
            )),
        )
}

/// What `target_env` is, here and in `nixos_machine`.
pub(crate) const TARGET_ENV: &str = "Where the machine is, as NixOps' `deployment.targetEnv` had it. With `ec2`, a machine of a NixOps network \
    gets what NixOps gave it there: nixpkgs' `virtualisation/amazon-image.nix`, which `disabledModules` leaves out again. `none`, or null: \
    nothing.";

/// What it may be.
pub(crate) fn target_env_values() -> Validator {
    validators::one_of(&["ec2", "none"])
}

/// What the `ssh` and `ec2` blocks of a machine and a target have in common.
pub(crate) fn connection_attributes(nested: Nested, direction: Direction) -> Nested {
    let text = || direction.optional(Attribute::string());
    let list = || direction.optional(Attribute::list(tfplugin::Type::String));
    let port = direction.optional(Attribute::number()).validate(validators::integer_between(1, 65535));
    let policy = validators::one_of(&["strict", "accept_new", "off"]);
    let bastion = direction.optional(Attribute::nested_single(bastion_attributes(direction)));
    let described = |what: &str, otherwise: &str| direction.described(what, otherwise);
    let options = match direction {
        Direction::Input => list().validate(effective_options()),
        Direction::Output => list(),
    };
    nested
        .attribute("port", port.description(described("Port of the SSH server.", "the provider's `ssh.port`, else as `ssh_config` says, else 22")))
        .attribute("user", text().description(described("The user who logs in.", "the provider's `ssh.user`, else `root`")))
        .attribute("key", text().description(described("The name of a private key in the provider's `ssh.private_keys`.", "`private_key_file`")))
        .attribute("private_key_file", text().description(described("A private key file on the machine where Terraform runs.", "the provider's `ssh.private_key_file`, else agent and `ssh_config`")))
        .attribute("host_key_policy", text().validate(policy).description(described("What to do with a host key that is not known: `strict` (refuse), `accept_new` (accept the first one that is seen, and only that one from then on) or `off` (never check). With `accept_new`, `nixos_machine` keeps the key in `host_public_key` and a deployment in its private state; a data source, which keeps nothing, holds to it until Terraform ends.", "the provider's `ssh.host_key_policy`")))
        .attribute("bastion", bastion.description(described("A host to jump over. All machines behind it share one connection to it.", "the provider's `ssh.bastion`")))
        .attribute("options", options.description("Further lines for `ssh_config`, each as `Keyword=value`, before those of the provider's `ssh.options`. One that cannot change what every connection has is an error."))
        .attribute("elevate", list().description(described(ELEVATE, "the provider's `ssh.elevate`")))
}

/// Lines of `ssh_config` that change something.
pub(crate) fn effective_options() -> Validator {
    Validator::new(|value| {
        let Value::List(lines) = value else { return Ok(()) };
        let mut mistakes =
            lines.iter().filter_map(Value::as_str).filter_map(|line| activator_ssh::check_option(line).err());
        mistakes.next().map_or(Ok(()), |mistake| Err(format!("lines that have an effect: {mistake}")))
    })
}

/// The attributes of a bastion.
pub(crate) fn bastion_attributes(direction: Direction) -> Nested {
    let text = || direction.optional(Attribute::string());
    let host = direction.required(Attribute::string());
    let port = direction.optional(Attribute::number()).validate(validators::integer_between(1, 65535));
    Nested::new()
        .attribute(
            "host",
            host.description("Host name or address of the bastion, or an alias of `ssh_config`."),
        )
        .attribute(
            "port",
            port.description(direction.described("Port of its SSH server.", "as `ssh_config` says, else 22")),
        )
        .attribute(
            "user",
            text().description(direction.described("The user who logs in there.", "as `ssh_config` says")),
        )
        .attribute(
            "key",
            text().description(direction.described(
                "The name of a private key in the provider's `ssh.private_keys`.",
                "`private_key_file`",
            )),
        )
        .attribute(
            "private_key_file",
            text().description(direction.described(
                "A private key file on the machine where Terraform runs.",
                "agent and `ssh_config`",
            )),
        )
        .attribute(
            "host_public_key",
            text().description(direction.described(
                "The only SSH host key to accept there.",
                "any in `known_hosts` of the user who runs Terraform",
            )),
        )
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
            Attr::Known(bastion) => Some(bastion.resolve(defaults, &path.clone().attribute("bastion"))?),
            Attr::Null => match &defaults.bastion {
                Some(bastion) => {
                    Some(bastion.resolve(defaults, &Path::root().attribute("ssh").attribute("bastion"))?)
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

impl Bastion {
    fn resolve(&self, defaults: &SshDefaults, path: &Path) -> Result<activator_ssh::Bastion, NoEndpoint> {
        let host = self.host.known().cloned().ok_or_else(|| not_known(&path.clone().attribute("host")))?;
        let key = match (self.key.known(), self.private_key_file.known()) {
            (Some(name), _) => defaults.key(name, &path.clone().attribute("key"))?,
            (None, Some(file)) => Key::File(file.into()),
            (None, None) => Key::Ambient,
        };
        Ok(activator_ssh::Bastion {
            host,
            port: self.port.known().copied(),
            user: self.user.known().cloned(),
            key,
            host_public_key: self.host_public_key.known().cloned(),
        })
    }
}

/// Reads a policy whose spelling the schema has checked.
pub(crate) fn host_key_policy(text: &str) -> HostKeyPolicy {
    match text {
        "accept_new" => HostKeyPolicy::AcceptNew,
        "off" => HostKeyPolicy::Off,
        _ => HostKeyPolicy::Strict,
    }
}

/// The addresses of a machine that its specification may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Addresses {
    /// On the internet, as `198.51.100.7`.
    pub(crate) public_ipv4: Option<String>,
    /// In its own network, as `10.0.0.7`.
    pub(crate) private_ipv4: Option<String>,
    /// On the internet, as `2001:db8::7`.
    pub(crate) public_ipv6: Option<String>,
}

impl Addresses {
    /// What one address, at which the machine is reached, tells. A loopback address, and an IPv6 address of one site or link, tell
    /// nothing.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) if facts::is_private(address) => {
                Self { private_ipv4: Some(address.to_string()), ..Self::default() }
            }
            IpAddr::V4(address) if !address.is_loopback() => {
                Self { public_ipv4: Some(address.to_string()), ..Self::default() }
            }
            IpAddr::V6(address) if facts::is_public(address) => {
                Self { public_ipv6: Some(address.to_string()), ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    /// The literal address among the names of a host, perhaps in brackets.
    pub(crate) fn literal(host: &str) -> Option<IpAddr> {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inner.unwrap_or(host).parse().ok()
    }
}

/// The provider's defaults when nothing is configured.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

impl SshDefaults {
    /// The private key called `name`.
    fn key(&self, name: &str, path: &Path) -> Result<Key, NoEndpoint> {
        match self.private_keys.get(name) {
            Some(Some(text)) => Ok(Key::Text(Secret::new(text.expose()))),
            Some(None) => Err(NoEndpoint::Later(
                Diagnostic::error(format!("The private key \"{name}\" is not known yet"))
                    .detail("The provider's `ssh.private_keys` takes it from something that does not exist before apply.")
                    .at(path.clone()),
            )),
            None => {
                let names: Vec<&str> = self.private_keys.keys().map(String::as_str).collect();
                let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                Err(NoEndpoint::Wrong(
                    Diagnostic::error(format!("There is no private key \"{name}\""))
                        .detail(format!(
                            "Expected the name of a key in the provider's `ssh.private_keys`, which has: {names}."
                        ))
                        .at(path.clone()),
                ))
            }
        }
    }
}

fn fact<T: Clone>(value: &Attr<T>) -> Fact<T> {
    match value {
        Attr::Known(value) => Fact::Known(value.clone()),
        Attr::Null => Fact::Absent,
        Attr::Unknown => Fact::Unknown,
    }
}

fn not_known(path: &Path) -> NoEndpoint {
    NoEndpoint::Later(
        Diagnostic::error("The machine's address is not known yet")
            .detail(format!("`{path}` has no known value, so the machine cannot be reached."))
            .at(path.clone()),
    )
}

/// Why a machine cannot be connected to.
#[derive(Clone, Debug)]
pub(crate) enum NoEndpoint {
    /// Something will be known only after apply.
    Later(Diagnostic),
    /// Something is configured wrongly.
    Wrong(Diagnostic),
}

impl From<NoEndpoint> for Diagnostic {
    fn from(reason: NoEndpoint) -> Self {
        match reason {
            NoEndpoint::Later(diagnostic) | NoEndpoint::Wrong(diagnostic) => diagnostic,
        }
    }
}

/// Says at a refresh that a machine could not be asked yet.
pub(crate) fn not_refreshed(machine: &str, why: &Diagnostic) -> Diagnostic {
    Diagnostic::warning(format!("Machine \"{machine}\" was not refreshed")).detail(format!(
        "{} {}\n\nIts last known state is kept; the plan may not show what has changed on it since.",
        why.summary, why.detail
    ))
}

/// The provider's `ssh` block depends on something that does not exist yet.
pub(crate) fn provider_unknown() -> Diagnostic {
    Diagnostic::error("The provider's `ssh` block is not known yet.").detail(
        "It takes a value from something that does not exist before apply, so no machine can be reached.",
    )
}

#[cfg(test)]
mod tests {
    use tfplugin::testing::object;

    use crate::provider::tests::configured;

    #[tokio::test]
    async fn a_bastion_needs_a_host() {
        let terraform = configured(&object([])).await;
        let bastion = object([("user", "jump".into())]);
        let ssh = object([("host", "10.0.0.12".into()), ("bastion", bastion)]);
        let config = object([("name", "db".into()), ("ssh", ssh)]);
        let errors = terraform.validate("nixos_machine", &config).await.unwrap_err();
        let places = errors.iter().filter_map(|one| one.path.as_ref().map(ToString::to_string));
        assert_eq!(places.collect::<Vec<_>>(), ["ssh.bastion.host"], "{errors:#?}");
    }
}
