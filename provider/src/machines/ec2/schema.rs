//! The schema of the `ec2` block.

use tfplugin::{Attribute, Nested, Type, validators};

use super::volume_schema::{root_volume, volumes};
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
