//! The `ec2` block of `nixos_machine`: what users write and what EC2 adds to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tfplugin::Attr;

use crate::machines::Bastion;
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
    pub(crate) elastic_ip: Attr<String>,
    pub(crate) use_private_address: Attr<bool>,
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
    pub(crate) volumes: Attr<BTreeMap<String, Volume>>,
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

/// Another volume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) device: Attr<String>,
    pub(crate) size: Attr<i32>,
    #[serde(rename = "type")]
    pub(crate) kind: Attr<String>,
    pub(crate) iops: Attr<i32>,
    pub(crate) throughput: Attr<i32>,
    pub(crate) snapshot_id: Attr<String>,
    pub(crate) existing_volume_id: Attr<String>,
    pub(crate) encrypted: Attr<bool>,
    pub(crate) kms_key_id: Attr<String>,
    pub(crate) delete_on_termination: Attr<bool>,
    pub(crate) volume_id: Attr<String>,
    pub(crate) client_token: Attr<String>,
}

impl Ec2Block {
    /// How to log in, at `host`.
    pub(crate) fn connection(&self, host: Attr<String>) -> SshBlock {
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

    /// What the schema cannot choose: defaults that depend on something else. `old` is the block in state.
    pub(crate) fn settle_choices(&mut self, configured: &Self, old: Option<&Self>) {
        if self.host_key.is_unknown() && configured.host_key.is_null() {
            self.host_key = match &configured.user_data {
                Attr::Null => Attr::Known("nixos".to_owned()),
                Attr::Known(_) => Attr::Known("none".to_owned()),
                Attr::Unknown => Attr::Unknown,
            };
        }
        // What EC2 has decided stays, also where it has decided that there is none.
        macro_rules! keep {
            ($block:expr, $configured:expr, $old:expr; $($field:ident)*) => {
                $(if $configured.$field.is_null() && $block.$field.is_unknown() {
                    $block.$field = $old.$field.clone();
                })*
            };
        }
        if let Some(old) = old {
            keep!(self, configured, old; availability_zone key_name subnet_id security_group_ids instance_profile
                placement_group tenancy ebs_optimized source_dest_check client_token);
            if let (Attr::Known(root), Attr::Known(asked), Attr::Known(was)) =
                (&mut self.root_volume, &configured.root_volume, &old.root_volume)
            {
                keep!(root, asked, was; size kind iops throughput encrypted kms_key_id volume_id);
            }
            for (name, volume) in self.volumes.known_mut().into_iter().flatten() {
                let asked = configured.volumes.known().and_then(|volumes| volumes.get(name));
                let was = old.volumes.known().and_then(|volumes| volumes.get(name));
                if let (Some(asked), Some(was)) = (asked, was.filter(|was| was.volume_id.is_known())) {
                    keep!(volume, asked, was; size kind iops throughput encrypted kms_key_id volume_id client_token);
                }
            }
        }
        // Of another type, a volume has another speed unless one is asked for.
        let speed_follows =
            |kind: (&Attr<String>, &Attr<String>), asked: &Attr<i32>, speed: &mut Attr<i32>| {
                if kind.0 != kind.1 && asked.is_null() {
                    *speed = Attr::Unknown;
                }
            };
        if let (Attr::Known(root), Attr::Known(asked), Some(Attr::Known(was))) =
            (&mut self.root_volume, &configured.root_volume, old.map(|old| &old.root_volume))
        {
            speed_follows((&root.kind, &was.kind), &asked.iops, &mut root.iops);
            speed_follows((&root.kind, &was.kind), &asked.throughput, &mut root.throughput);
        }
        for (name, volume) in self.volumes.known_mut().into_iter().flatten() {
            let asked =
                configured.volumes.known().and_then(|volumes| volumes.get(name)).cloned().unwrap_or_default();
            let was = old.and_then(|old| old.volumes.known()?.get(name));
            if !volume.is_ours() && asked.delete_on_termination.is_null() {
                volume.delete_on_termination = Attr::Known(false);
            }
            if let Some(was) = was {
                speed_follows((&volume.kind, &was.kind), &asked.iops, &mut volume.iops);
                speed_follows((&volume.kind, &was.kind), &asked.throughput, &mut volume.throughput);
            }
        }
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

/// `sdX` and `xvdX` are one device to EC2.
pub(crate) fn device_letter(device: &str) -> char {
    device.chars().last().unwrap_or_default()
}
