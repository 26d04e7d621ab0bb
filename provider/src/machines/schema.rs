//! The attributes that targets, the blocks of machines and bastions have in common.

use nixos_activator::ssh as activator_ssh;
use tfplugin::{Attribute, Nested, Validator, Value, validators};

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
pub(crate) const ELEVATE: &str = "The command that runs its arguments as root where `user` is not root: \
                                  `[\"sudo\", \"-n\"]`, `[\"doas\", \"-n\"]`, `[\"run0\", \
                                  \"--no-ask-password\"]`, or without these options where the provider's \
                                  `ssh.elevate_password` answers what they ask. It runs once a connection.";

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
                "What `system.stateVersion` is where the specification does not say it: the NixOS release \
                 the machine was installed with, e.g. `24.11`.",
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
                "`/etc/machine-id`. With another one, it is another machine that answers at this address: \
                 it is deployed anew, and nothing that was known of the one before is believed.",
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
pub(crate) const TARGET_ENV: &str = "Where the machine is, as NixOps' `deployment.targetEnv` had it. With \
                                     `ec2`, a machine of a NixOps network gets what NixOps gave it there: \
                                     nixpkgs' `virtualisation/amazon-image.nix`, which `disabledModules` \
                                     leaves out again. `none`, or null: nothing.";

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
        .attribute(
            "port",
            port.description(described(
                "Port of the SSH server.",
                "the provider's `ssh.port`, else as `ssh_config` says, else \
                    22",
            )),
        )
        .attribute(
            "user",
            text().description(described("The user who logs in.", "the provider's `ssh.user`, else `root`")),
        )
        .attribute(
            "key",
            text().description(described(
                "The name of a private key in the provider's \
                                                        `ssh.private_keys`.",
                "`private_key_file`",
            )),
        )
        .attribute(
            "private_key_file",
            text().description(described(
                "A private key file on the machine where \
                                                                     Terraform runs.",
                "the provider's `ssh.private_key_file`, else agent and \
                    `ssh_config`",
            )),
        )
        .attribute(
            "host_key_policy",
            text().validate(policy).description(described(
                "What to do with a host key that is not known: `strict` (refuse), `accept_new` (accept the \
                 first one that is seen, and only that one from then on) or `off` (never check). With \
                 `accept_new`, `nixos_machine` keeps the key in `host_public_key` and a deployment in its \
                 private state; a data source, which keeps nothing, holds to it until Terraform ends.",
                "the provider's `ssh.host_key_policy`",
            )),
        )
        .attribute(
            "bastion",
            bastion.description(described(
                "A host to jump over. All machines behind it \
                                                             share one connection to it.",
                "the provider's `ssh.bastion`",
            )),
        )
        .attribute(
            "options",
            options.description(
                "Further lines for `ssh_config`, each as `Keyword=value`, before those of the provider's \
                 `ssh.options`. One that cannot change what every connection has is an error.",
            ),
        )
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
