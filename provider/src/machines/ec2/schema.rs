//! The schema of the `ec2` block, and what it cannot say.

use std::collections::BTreeMap;

use tfplugin::{Attr, Attribute, Diagnostic, Diagnostics, Nested, Path, Type, validators};

use super::block::Ec2Block;
use super::volume_identity::device_letter;
use crate::aws::{region_attribute, tags_all_attribute, tags_attribute};
use crate::machines::schema::{Direction, connection_attributes};
use crate::settings::computed;

/// How a machine learns the host key that was made for it.
const HOST_KEYS: &[&str] = &["nixos", "cloud_init", "none"];

/// The schema of the block.
pub(crate) fn attribute() -> Attribute {
    // What EC2 decides where the user does not, and what then stays.
    let kept = |attribute: Attribute| attribute.optional().computed().use_state_for_unknown();
    let at_creation = |attribute: Attribute| kept(attribute).requires_replace();
    let text = Attribute::string;
    // Null where it is not set, but for what an import has found.
    let found = |attribute: Attribute| attribute.optional().computed().use_state_for_unknown();
    let nested = Nested::new()
        .attribute("region", region_attribute().use_state_for_unknown())
        .attribute(
            "availability_zone",
            at_creation(text()).description(
                "The availability zone, e.g. `eu-west-1a`. Default: that of \
                    the subnet, else EC2 chooses.",
            ),
        )
        .attribute(
            "ami",
            text()
                .required()
                .validate(validators::matches(
                    |text| text.starts_with("ami-"),
                    "the id of an image: `ami-…`, e.g. from `data.nixos_ami`",
                ))
                .description(
                    "The image the machine is created from. Later changes have no effect on a machine that \
                     exists, which is brought up to date by deployments; `terraform apply -replace` makes \
                     a new one.",
                ),
        )
        .attribute(
            "instance_type",
            text().required().validate(validators::not_empty()).description(
                "The kind of instance, e.g. `t4g.small`. A change stops the machine: see \
                 `allow_stopping_for_update`.",
            ),
        )
        .attribute(
            "allow_stopping_for_update",
            Attribute::bool().optional().computed().default(false).description(
                "Whether a change that needs it may stop the machine and start it again. Without it such a \
                 plan is an error. Default: false.",
            ),
        )
        .attribute(
            "key_name",
            at_creation(text()).description(
                "The EC2 key pair that may log in: \
                                                                `nixos_ec2_key_pair.admin.key_name`.",
            ),
        )
        .attribute(
            "subnet_id",
            at_creation(text()).description(
                "Id of the subnet. Default: the account's \
                                                                 default subnet.",
            ),
        )
        .attribute(
            "security_group_ids",
            kept(Attribute::set(Type::String)).description(
                "Ids of the security groups, at least one. Default: the \
                    default group of the VPC.",
            ),
        )
        .attribute(
            "private_ip",
            kept(text())
                .validate(validators::matches(
                    |text| text.parse::<std::net::Ipv4Addr>().is_ok(),
                    "an IPv4 address",
                ))
                .description(
                    "The address in the subnet. Default: EC2 chooses. Another \
                    one is another machine.",
                ),
        )
        .attribute(
            "associate_public_ip_address",
            kept(Attribute::bool()).description(
                "Whether the machine gets a public address of its own when it is created. Default: as the \
                 subnet says. A change of it is another machine.",
            ),
        )
        .attribute(
            "ipv6_address_count",
            kept(Attribute::number()).validate(validators::integer_between(0, 50)).description(
                "How many IPv6 addresses the machine has; EC2 chooses them from the subnet. It can be \
                 changed while the machine runs. Not together with `ipv6_addresses`. Default: as the \
                 subnet says.",
            ),
        )
        .attribute(
            "ipv6_addresses",
            kept(Attribute::set(Type::String)).description(
                "The IPv6 addresses of the machine, in the subnet. They can be changed while the machine \
                 runs. Not together with `ipv6_address_count`.",
            ),
        )
        .attribute(
            "elastic_ip",
            text()
                .optional()
                .validate(validators::matches(
                    |text| text.starts_with("eipalloc-"),
                    "the allocation id of an elastic address: \
                    `aws_eip.web.allocation_id`",
                ))
                .description(
                    "The allocation id of an elastic address \
                                                                for the machine: \
                                                                `aws_eip.web.allocation_id`.",
                ),
        )
        .attribute(
            "use_private_address",
            Attribute::bool().optional().computed().default(false).description(
                "Whether SSH connects to the private address even where there is a public one. Default: \
                 false.",
            ),
        )
        .attribute(
            "use_ipv6_address",
            Attribute::bool().optional().description(
                "Whether SSH connects to the IPv6 address even where there is an IPv4 one. Without it, \
                 only a machine that has no IPv4 address is reached by IPv6. Default: false.",
            ),
        )
        .attribute(
            "instance_profile",
            kept(text())
                .validate(validators::not_empty())
                .description("Name or ARN of the IAM instance profile."),
        )
        .attribute("placement_group", at_creation(text()).description("Name of the placement group."))
        .attribute(
            "tenancy",
            at_creation(text()).validate(validators::one_of(&["default", "dedicated", "host"])).description(
                "`default`, `dedicated` or `host`. Default: as the VPC \
                    says.",
            ),
        )
        .attribute("spot", spot())
        .attribute(
            "ebs_optimized",
            kept(Attribute::bool()).description(
                "Whether the machine has bandwidth of its own for volumes. \
                    A change stops the machine.",
            ),
        )
        .attribute(
            "source_dest_check",
            kept(Attribute::bool()).description(
                "Whether packets must be from or for the machine; false for \
                    routers. Default: true.",
            ),
        )
        .attribute(
            "disable_api_termination",
            found(Attribute::bool()).description(
                "Termination protection. While it is on, destroying the \
                    machine fails.",
            ),
        )
        .attribute("metadata_options", metadata_options())
        .attribute(
            "user_data",
            found(text()).description(
                "User data of your own. It takes the place of the host key that is otherwise handed over \
                 there, see `host_key`, and counts when the machine is created. It is stored in state and \
                 the machine's users can read it: no place for secrets.",
            ),
        )
        .attribute(
            "host_key",
            text()
                .optional()
                .computed()
                .use_state_for_unknown()
                .validate(validators::one_of(HOST_KEYS))
                .description(
                    "How the machine learns the SSH host key that is made for it, so that the first login \
                     already is to the right machine: `nixos` (in user data, as NixOS' images read it), \
                     `cloud_init` (in user data for cloud-init) or `none` (no key is made; then \
                     `host_public_key` or `host_key_policy = \"accept_new\"` is needed). The key is \
                     replaced at the first login, because the machine's users can read user data. Default: \
                     `none` where `user_data` is set, else `nixos`.",
                ),
        )
        .attribute("root_volume", root_volume())
        .attribute("volumes", volumes())
        .attribute(
            "tags",
            tags_attribute().description(
                "Tags of the instance and its volumes. `Name` is the \
                                                         machine's name unless it is set.",
            ),
        )
        .attribute("tags_all", tags_all_attribute())
        .attribute(
            "client_token",
            computed(
                "The token of the call that made the machine. EC2 makes nothing else when the call is sent \
                 again, and the machine is found by it where no answer came.",
            )
            .use_state_for_unknown(),
        )
        .attribute("public_dns", computed("EC2's name for the public address."))
        .attribute(
            "host_public_key",
            text().optional().description(
                "The machine's SSH host key where it has one already, as in `known_hosts`; only with \
                 `host_key = \"none\"`.",
            ),
        );
    Attribute::nested_single(connection_attributes(nested, Direction::Input)).optional().description(
        "A machine on AWS EC2 that lives and dies with this resource. Exactly one of `ssh` and `ec2` is set.",
    )
}

fn spot() -> Attribute {
    // What an import has found stays where the block does not say it.
    let text = || Attribute::string().optional().computed().use_state_for_unknown();
    let nested = Nested::new()
        .attribute(
            "max_price",
            text()
                .validate(validators::matches(
                    |text| text.parse::<f64>().is_ok_and(|price| price > 0.0),
                    "a price in US dollars an hour such as `0.05`",
                ))
                .description(
                    "The most to pay, in US dollars an hour. Default: the \
                    on-demand price.",
                ),
        )
        .attribute(
            "type",
            text()
                .validate(validators::one_of(&["one-time", "persistent"]))
                .description("`one-time` (the default) or `persistent`."),
        )
        .attribute(
            "interruption_behavior",
            text().validate(validators::one_of(&["terminate", "stop", "hibernate"])).description(
                "What happens when EC2 wants the capacity back: `terminate` (the default), or with `type = \
                 \"persistent\"` also `stop` and `hibernate`.",
            ),
        );
    Attribute::nested_single(nested).optional().computed().use_state_for_unknown().description(
        "Ask for a spot instance. Another request is another machine. It is asked for until \
         `timeouts.create` while there is no capacity at the price.",
    )
}

fn metadata_options() -> Attribute {
    let switch =
        || Attribute::string().optional().computed().validate(validators::one_of(&["enabled", "disabled"]));
    let nested = Nested::new()
        .attribute(
            "http_endpoint",
            switch()
                .default("enabled")
                .description("Whether the service answers at all: `enabled` (the default) or `disabled`."),
        )
        .attribute(
            "http_tokens",
            Attribute::string()
                .optional()
                .computed()
                .default("required")
                .validate(validators::one_of(&["required", "optional"]))
                .description(
                    "Whether callers need a token (IMDSv2): `required` (the default) or `optional`.",
                ),
        )
        .attribute(
            "http_put_response_hop_limit",
            Attribute::number()
                .optional()
                .computed()
                .default(1)
                .validate(validators::integer_between(1, 64))
                .description("How many hops a token may travel, 1 to 64; containers need 2. Default: 1."),
        )
        .attribute(
            "instance_metadata_tags",
            switch().default("disabled").description(
                "Whether the instance's tags can be read there: `enabled` or `disabled` (the default).",
            ),
        );
    Attribute::nested_single(nested).optional().computed().use_state_for_unknown().description(
        "The instance metadata service. Machines are created with `http_tokens = \"required\"` also \
         without this block.",
    )
}

/// What the root volume and others have in common; where no type is asked for it is `kind`.
fn volume_attributes(nested: Nested, kind: &str) -> Nested {
    let kept = |attribute: Attribute| attribute.optional().computed().use_state_for_unknown();
    let number = |low, high| kept(Attribute::number()).validate(validators::integer_between(low, high));
    nested
        .attribute(
            "size",
            number(1, 65536)
                .description("Size in GiB. It can grow while the machine runs, and never shrink."),
        )
        .attribute(
            "type",
            kept(Attribute::string())
                .validate(validators::one_of(&["gp3", "gp2", "io2", "io1", "st1", "sc1", "standard"]))
                .description(format!(
                    "`gp3`, `gp2`, `io2`, `io1`, `st1`, `sc1` or `standard`. Default: {kind}."
                )),
        )
        .attribute(
            "iops",
            number(100, 256_000).description("I/O operations a second, of `gp3`, `io1` and `io2`."),
        )
        .attribute("throughput", number(125, 2000).description("Throughput in MiB/s, of `gp3`."))
        .attribute(
            "encrypted",
            kept(Attribute::bool()).description(
                "Whether EBS encrypts it. It cannot be changed later. Default: as image, snapshot and \
                 account say.",
            ),
        )
        .attribute(
            "kms_key_id",
            kept(Attribute::string()).description(
                "The KMS key of an encrypted volume: ARN or id. Default: the account's key for EBS.",
            ),
        )
        .attribute(
            "delete_on_termination",
            Attribute::bool()
                .optional()
                .computed()
                .default(true)
                .description("Whether it goes with the machine. Default: true."),
        )
        .attribute(
            "volume_id",
            Attribute::string().computed().use_state_for_unknown().description("Its id: `vol-…`."),
        )
}

fn root_volume() -> Attribute {
    Attribute::nested_single(volume_attributes(Nested::new(), "as the image says"))
        .optional()
        .computed()
        .use_state_for_unknown()
        .description("The volume the machine boots from, where it is to differ from what the image says.")
}

fn volumes() -> Attribute {
    let nested = volume_attributes(Nested::new(), "`gp3`")
        .attribute(
            "device",
            Attribute::string()
                .required()
                .validate(validators::matches(
                    is_device,
                    "`/dev/sdf` to `/dev/sdz` or `/dev/xvdf` to `/dev/xvdz`",
                ))
                .description(
                    "Where it is attached: `/dev/sdf` to `/dev/sdz`, or `/dev/xvdf` to `/dev/xvdz`. On \
                     machines with NVMe they appear as `/dev/nvme1n1` and so on, in the order of their \
                     devices; `/dev/disk/by-id` has the volume's id.",
                ),
        )
        .attribute(
            "snapshot_id",
            Attribute::string()
                .optional()
                .computed()
                .use_state_for_unknown()
                .description("The snapshot that it starts as."),
        )
        .attribute(
            "existing_volume_id",
            Attribute::string()
                .optional()
                .validate(validators::matches(|text| text.starts_with("vol-"), "the id of a volume: `vol-…`"))
                .description(
                    "A volume that exists already is attached, and never deleted: \
                     `aws_ebs_volume.data.id`. Beside it only `device` is set: what it is like is decided \
                     by whoever made it.",
                ),
        );
    let nested = nested.attribute(
        "client_token",
        computed(
            "The token of the call that made the volume, by which it is found where no answer came. Null \
             with `existing_volume_id`.",
        )
        .use_state_for_unknown(),
    );
    Attribute::nested_map(nested).optional().computed().use_state_for_unknown().description(
        "Further volumes by a name of your own (under another name at its device it is the same volume), \
         each with at least one of `size`, `snapshot_id` and `existing_volume_id`. They are created and \
         attached in the order of their devices. One that is taken out must not be mounted any more: \
         deploy without it first.",
    )
}

/// Whether a volume beside the root may be attached there.
pub(super) fn is_device(text: &str) -> bool {
    let letter = text.strip_prefix("/dev/sd").or_else(|| text.strip_prefix("/dev/xvd"));
    matches!(letter.map(str::as_bytes), Some([b'f'..=b'z']))
}

impl Ec2Block {
    /// What the schema cannot say.
    pub(crate) fn validate(&self) -> Result<(), Diagnostics> {
        let mut problems = Diagnostics::default();
        let block = || Path::root().attribute("ec2");
        let mut say = |path: Path, summary: &str, detail: &str| {
            problems.push(Diagnostic::error(summary).detail(detail).at(path));
        };
        if let (Attr::Known(count), Attr::Known(addresses)) = (&self.ipv6_address_count, &self.ipv6_addresses)
            && usize::try_from(*count) != Ok(addresses.len())
        {
            say(
                block().attribute("ipv6_address_count"),
                "IPv6 addresses are chosen or counted",
                &format!(
                    "Found `ipv6_address_count` {count} and {} `ipv6_addresses`; expected one of the \
                     attributes. Remove the one that EC2 is to decide.",
                    addresses.len()
                ),
            );
        }
        if self.use_private_address == Attr::Known(true) && self.use_ipv6_address == Attr::Known(true) {
            say(
                block().attribute("use_ipv6_address"),
                "SSH connects to one address",
                "Found `use_private_address` and `use_ipv6_address`; expected one of them to be true.",
            );
        }
        let handed_over = self.host_key.known().is_some_and(|how| how != "none");
        if self.user_data.is_known() && handed_over {
            say(
                block().attribute("user_data"),
                "User data cannot hold both",
                "Found `user_data` and a `host_key` that is handed over in user data; expected one of \
                 them. Remove `user_data`, or set host_key = \"none\".",
            );
        }
        if self.host_public_key.is_known()
            && (handed_over || (self.host_key.is_null() && self.user_data.is_null()))
        {
            say(
                block().attribute("host_public_key"),
                "Two host keys for one machine",
                "Found `host_public_key`, but a new host key is made for this machine. Remove it, or set \
                 host_key = \"none\" for an image that has its own.",
            );
        }
        if let Some(spot) = self.spot.known() {
            let lasting = spot.interruption_behavior.known().is_some_and(|what| what != "terminate");
            if lasting && !spot.kind.is_unknown() && spot.kind.known().is_none_or(|kind| kind != "persistent")
            {
                say(
                    block().attribute("spot"),
                    "Only persistent spot instances come back",
                    "Found `interruption_behavior` \"stop\" or \"hibernate\" without type = \
                     \"persistent\"; expected both, or neither.",
                );
            }
        }
        let mut devices = BTreeMap::new();
        for (name, volume) in self.volumes.known().into_iter().flatten() {
            let path = block().attribute("volumes").key(name);
            if let Attr::Known(device) = &volume.device
                && let Some(other) = devices.insert(device_letter(device), name)
            {
                say(
                    path.clone().attribute("device"),
                    "Two volumes at one device",
                    &format!(
                        "Found {device} for \"{name}\" and for \"{other}\" (`sdX` and `xvdX` are one); \
                         expected a device for each."
                    ),
                );
            }
            if volume.existing_volume_id.is_null() && volume.size.is_null() && volume.snapshot_id.is_null() {
                say(
                    path.attribute("size"),
                    "A volume without a size",
                    "Found neither `size`, nor `snapshot_id`, nor `existing_volume_id`; expected one of \
                     them, e.g. size = 100 (GiB).",
                );
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// What a configuration says of volumes that somebody else has made; to say what they are like, as `old` has it,
    /// is no harm.
    pub(crate) fn check_existing(&self, old: Option<&Self>) -> Diagnostics {
        let mut problems = Diagnostics::default();
        for (name, volume) in self.volumes.known().into_iter().flatten() {
            let was = old.and_then(|old| old.volumes.known()?.get(name)).cloned().unwrap_or_default();
            macro_rules! differs {
                ($($field:ident)*) => { [$(volume.$field.is_known() && volume.$field != was.$field),*] };
            }
            let differs = differs!(size kind iops throughput encrypted kms_key_id snapshot_id);
            if volume.existing_volume_id.is_known() && differs.contains(&true) {
                let path = Path::root().attribute("ec2").attribute("volumes").key(name);
                problems.push(
                    Diagnostic::error("A volume that exists already is as it is")
                        .detail(
                            "Found `existing_volume_id` together with what a new volume would be like; \
                             expected only `device` beside it.",
                        )
                        .at(path.attribute("existing_volume_id")),
                );
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::super::volume_map::Volume;
    use super::*;

    fn known(text: &str) -> Attr<String> {
        Attr::Known(text.to_owned())
    }

    fn problems(block: &Ec2Block) -> Vec<String> {
        block
            .validate()
            .err()
            .map(|found| found.iter().map(|one| one.summary.clone()).collect())
            .unwrap_or_default()
    }

    fn volumes(entries: &[(&str, Volume)]) -> Ec2Block {
        let volumes = entries.iter().map(|(name, volume)| ((*name).to_owned(), volume.clone())).collect();
        Ec2Block { volumes: Attr::Known(volumes), ..Ec2Block::default() }
    }

    #[test]
    fn each_volume_has_a_device_and_a_size() {
        let at = |device: &str| Volume { device: known(device), size: Attr::Known(10), ..Volume::default() };
        assert_eq!(problems(&volumes(&[("a", at("/dev/sdf")), ("b", at("/dev/sdg"))])), Vec::<String>::new());
        assert_eq!(
            problems(&volumes(&[("a", at("/dev/sdf")), ("b", at("/dev/xvdf"))])),
            ["Two volumes at one device"]
        );
        let bare = Volume { device: known("/dev/sdf"), ..Volume::default() };
        assert_eq!(problems(&volumes(&[("a", bare.clone())])), ["A volume without a size"]);
        let existing = Volume { existing_volume_id: known("vol-1"), ..bare };
        assert_eq!(problems(&volumes(&[("a", existing.clone())])), Vec::<String>::new());
        let both = volumes(&[("a", Volume { size: Attr::Known(10), ..existing.clone() })]);
        let said = |old: Option<&Ec2Block>| {
            let found = both.check_existing(old);
            found.iter().map(|one| one.summary.clone()).collect::<Vec<_>>()
        };
        assert_eq!(said(None), ["A volume that exists already is as it is"]);
        assert_eq!(said(Some(&volumes(&[("a", existing)]))), ["A volume that exists already is as it is"]);
        // As `terraform plan -generate-config-out` writes what an import has found.
        assert_eq!(said(Some(&both)), [""; 0]);
        // What is not known yet may still turn out right.
        let later = Volume { device: Attr::Unknown, size: Attr::Unknown, ..Volume::default() };
        assert_eq!(problems(&volumes(&[("a", later.clone()), ("b", later)])), Vec::<String>::new());
    }

    #[test]
    fn user_data_and_host_key_exclude_each_other() {
        let own = Ec2Block { user_data: known("#!/bin/sh"), ..Ec2Block::default() };
        assert_eq!(problems(&own), Vec::<String>::new());
        assert_eq!(
            problems(&Ec2Block { host_key: known("nixos"), ..own.clone() }),
            ["User data cannot hold both"]
        );
        let pinned = Ec2Block { host_public_key: known("ssh-ed25519 A"), ..own };
        assert_eq!(problems(&pinned), Vec::<String>::new());
        assert_eq!(
            problems(&Ec2Block { user_data: Attr::Null, ..pinned }),
            ["Two host keys for one machine"]
        );
    }
}
