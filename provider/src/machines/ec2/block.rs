//! The `ec2` block of `nixos_machine`: what users write and what EC2 adds to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Path};

use super::volume_map::Volumes;
use crate::machines::bastion::Bastion;
use crate::machines::ssh::SshBlock;
use crate::settings::List;

/// The block, configured and computed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ec2Block {
    pub(crate) region: Attr<String>,
    pub(crate) availability_zone: Attr<String>,
    pub(crate) ami: Attr<String>,
    pub(crate) instance_type: Attr<String>,
    pub(crate) allow_stopping_for_update: Attr<bool>,
    pub(crate) key_name: Attr<String>,
    pub(crate) subnet_id: Attr<String>,
    pub(crate) security_group_ids: List<String>,
    pub(crate) private_ip: Attr<String>,
    pub(crate) associate_public_ip_address: Attr<bool>,
    pub(crate) ipv6_address_count: Attr<i32>,
    pub(crate) ipv6_addresses: List<String>,
    pub(crate) elastic_ip: Attr<String>,
    pub(crate) use_private_address: Attr<bool>,
    pub(crate) use_ipv6_address: Attr<bool>,
    pub(crate) instance_profile: Attr<String>,
    pub(crate) placement_group: Attr<String>,
    pub(crate) tenancy: Attr<String>,
    pub(crate) spot: Attr<Spot>,
    pub(crate) ebs_optimized: Attr<bool>,
    pub(crate) source_dest_check: Attr<bool>,
    pub(crate) disable_api_termination: Attr<bool>,
    pub(crate) metadata_options: Attr<MetadataOptions>,
    pub(crate) user_data: Attr<String>,
    pub(crate) host_key: Attr<String>,
    pub(crate) root_volume: Attr<RootVolume>,
    pub(crate) volumes: Attr<Volumes>,
    pub(crate) tags: Attr<BTreeMap<String, Attr<String>>>,
    pub(crate) tags_all: Attr<BTreeMap<String, Attr<String>>>,
    /// In the state, not in private data: what replaces a machine whose making failed is planned without those.
    pub(crate) client_token: Attr<String>,
    pub(crate) public_dns: Attr<String>,
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

/// How to ask for a spot instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spot {
    pub(crate) max_price: Attr<String>,
    #[serde(rename = "type")]
    pub(crate) kind: Attr<String>,
    pub(crate) interruption_behavior: Attr<String>,
}

/// How the instance metadata service answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MetadataOptions {
    pub(crate) http_endpoint: Attr<String>,
    pub(crate) http_tokens: Attr<String>,
    pub(crate) http_put_response_hop_limit: Attr<i32>,
    pub(crate) instance_metadata_tags: Attr<String>,
}

/// The volume the machine boots from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RootVolume {
    pub(crate) size: Attr<i32>,
    #[serde(rename = "type")]
    pub(crate) kind: Attr<String>,
    pub(crate) iops: Attr<i32>,
    pub(crate) throughput: Attr<i32>,
    pub(crate) encrypted: Attr<bool>,
    pub(crate) kms_key_id: Attr<String>,
    pub(crate) delete_on_termination: Attr<bool>,
    pub(crate) volume_id: Attr<String>,
}

impl Ec2Block {
    /// How to log in, at `host`.
    pub(crate) fn login(&self, host: Attr<String>) -> SshBlock {
        SshBlock {
            host,
            port: self.port.clone(),
            user: self.user.clone(),
            key: self.key.clone(),
            private_key_file: self.private_key_file.clone(),
            host_public_key: self.host_public_key.clone(),
            host_key_policy: self.host_key_policy.clone(),
            bastion: self.bastion.clone(),
            options: self.options.clone(),
            elevate: self.elevate.clone(),
        }
    }

    /// Attributes that differ from those of `old`, were known there, and cannot be changed in place.
    pub(crate) fn replaced(&self, old: &Self) -> Vec<Path> {
        let differs = |before: &Attr<String>, after: &Attr<String>| before.is_known() && before != after;
        // Encryption is decided when a volume is made, and the root volume is made with the machine.
        let root = match (&old.root_volume, &self.root_volume) {
            (Attr::Known(old), Attr::Known(new)) => {
                (old.encrypted.is_known() && old.encrypted != new.encrypted)
                    || (differs(&old.kms_key_id, &new.kms_key_id)
                        && !is_same_key(&old.kms_key_id, &new.kms_key_id))
            }
            _ => false,
        };
        let public = (&old.associate_public_ip_address, &self.associate_public_ip_address);
        let spot = match (&old.spot, &self.spot) {
            (Attr::Known(old), Attr::Known(new)) => {
                differs(&old.max_price, &new.max_price)
                    || differs(&old.kind, &new.kind)
                    || differs(&old.interruption_behavior, &new.interruption_behavior)
            }
            (old, new) => old != new,
        };
        let replaced = [
            ("private_ip", differs(&old.private_ip, &self.private_ip)),
            ("associate_public_ip_address", public.0.is_known() && public.0 != public.1),
            ("spot", spot),
            ("root_volume", root),
        ];
        let replaced = replaced.into_iter().filter(|(_, replaced)| *replaced);
        replaced.map(|(name, _)| Path::root().attribute("ec2").attribute(name)).collect()
    }

    /// What an instance has that was just launched: all but what it gets when it runs.
    pub(crate) fn at_launch(&self) -> Self {
        Self {
            elastic_ip: Attr::Null,
            source_dest_check: Attr::Known(true),
            disable_api_termination: Attr::Null,
            volumes: Attr::Null,
            ..self.clone()
        }
    }

    /// The region, which every state has.
    pub(crate) fn region(&self) -> &str {
        self.region.known().map_or("", String::as_str)
    }
}

/// Whether two names of a KMS key, an id or an ARN, may mean the same key.
pub(super) fn is_same_key(one: &Attr<String>, other: &Attr<String>) -> bool {
    match (one, other) {
        (Attr::Known(one), Attr::Known(other)) => {
            one.ends_with(other.as_str()) || other.ends_with(one.as_str())
        }
        _ => false,
    }
}
