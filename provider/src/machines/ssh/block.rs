//! The `ssh` block: what users write.

use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Attribute, Nested, validators};

use crate::machines::addresses::Addresses;
use crate::machines::bastion::Bastion;
use crate::machines::schema::{Direction, connection_attributes};
use crate::machines::target::Target;
use crate::settings::List;

/// The block as it is configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SshBlock {
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
}

/// Whether this is a line such as `/etc/ssh/ssh_host_ed25519_key.pub` has: kind and key, with or without a comment.
fn is_public_key(text: &str) -> bool {
    let mut words = text.split_whitespace();
    let is_kind = |word: &str| ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| word.starts_with(prefix));
    let is_base64 =
        |word: &str| word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '='));
    words.next().is_some_and(is_kind) && words.next().is_some_and(is_base64)
}

/// The schema of the block.
pub(super) fn attribute() -> Attribute {
    let host = Attribute::string().required().validate(validators::not_empty()).description(
        "Host name, address or alias of `ssh_config`. Another resource's address goes here: \
         `aws_instance.web.public_ip`.",
    );
    let key = Attribute::string()
        .optional()
        .validate(validators::matches(is_public_key, "a public key such as `ssh-ed25519 AAAA…`"))
        .description(
            "The machine's SSH host key, as in `known_hosts` (`ssh-ed25519 AAAA…`): the only one accepted. \
             Default: any in `known_hosts` of the user who runs Terraform.",
        );
    let nested = connection_attributes(Nested::new().attribute("host", host), Direction::Input);
    Attribute::nested_single(nested.attribute("host_public_key", key)).optional().description(
        "A machine that exists already and is reached by SSH, wherever it runs. Exactly one of `ssh` and \
         `ec2` is set.",
    )
}

impl SshBlock {
    /// The target as far as the block alone tells it; what only the machine can tell is open. Defaults of the
    /// provider are no part of it: they are looked up when a connection is made, so that a change of them holds
    /// everywhere at once.
    pub(crate) fn target(&self) -> Target {
        let literal = self.host.known().and_then(|host| Addresses::literal(host)).map(Addresses::of);
        let address = |of: fn(&Addresses) -> &Option<String>| match &literal {
            Some(addresses) => Attr::from(of(addresses).clone()),
            // A name: the machine tells at which address it is reached.
            None => Attr::Unknown,
        };
        let host_public_key = match &self.host_public_key {
            Attr::Null => Attr::Unknown,
            key => key.clone(),
        };
        Target {
            host: self.host.clone(),
            port: self.port.clone(),
            user: self.user.clone(),
            key: self.key.clone(),
            private_key_file: self.private_key_file.clone(),
            host_public_key,
            host_key_policy: self.host_key_policy.clone(),
            bastion: self.bastion.clone(),
            options: self.options.clone(),
            elevate: self.elevate.clone(),
            system: Attr::Unknown,
            state_version: Attr::Unknown,
            public_ipv4: address(|addresses| &addresses.public_ipv4),
            private_ipv4: address(|addresses| &addresses.private_ipv4),
            public_ipv6: address(|addresses| &addresses.public_ipv6),
            target_env: Attr::Null,
            machine_id: Attr::Unknown,
            instance_id: Attr::Null,
        }
    }
}
