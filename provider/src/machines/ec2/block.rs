//! The `ec2` block of `nixos_machine`: what users write and what EC2 adds to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Path};

use super::found::Found;
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

    /// What the schema cannot choose: defaults that depend on something else. `old` is the block in state, and `found` what of it
    /// came with an import.
    pub(crate) fn settle_choices(&mut self, configured: &Self, old: Option<&Self>, found: &Found) {
        found.settle(self, configured, old);
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
            keep!(self, configured, old; availability_zone key_name subnet_id security_group_ids private_ip
                associate_public_ip_address ipv6_address_count ipv6_addresses instance_profile placement_group tenancy ebs_optimized source_dest_check
                client_token);
            // Another number of addresses is another set of them, and the other way round.
            if !configured.ipv6_address_count.is_null() && self.ipv6_address_count != old.ipv6_address_count {
                self.ipv6_addresses = Attr::Unknown;
            }
            if !configured.ipv6_addresses.is_null() && self.ipv6_addresses != old.ipv6_addresses {
                self.ipv6_address_count = Attr::Unknown;
            }
            if let (Attr::Known(spot), Attr::Known(asked), Attr::Known(was)) =
                (&mut self.spot, &configured.spot, &old.spot)
            {
                keep!(spot, asked, was; max_price kind interruption_behavior);
            }
            if let (Attr::Known(root), Attr::Known(asked), Attr::Known(was)) =
                (&mut self.root_volume, &configured.root_volume, &old.root_volume)
            {
                keep!(root, asked, was; size kind iops throughput encrypted kms_key_id volume_id);
            }
            let planned = self.volumes.known().cloned().unwrap_or_default();
            for (name, volume) in self.volumes.known_mut().into_iter().flatten() {
                let asked = configured.volumes.known().and_then(|volumes| volumes.get(name));
                let was = old.earlier_volume(&planned, name, volume, found);
                if let (Some(asked), Some(was)) = (asked, was.filter(|was| was.volume_id.is_known())) {
                    keep!(volume, asked, was; size kind iops throughput snapshot_id encrypted kms_key_id volume_id client_token);
                }
            }
        }
        self.settle_new(configured);
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
        let planned = self.volumes.known().cloned().unwrap_or_default();
        for (name, volume) in self.volumes.known_mut().into_iter().flatten() {
            let asked = match configured.volumes.known().and_then(|volumes| volumes.get(name)) {
                Some(asked) => asked.clone(),
                // As an import has found it.
                None => continue,
            };
            let was = old.and_then(|old| old.earlier_volume(&planned, name, volume, found));
            if asked.delete_on_termination.is_null() {
                match volume.existing_volume_id {
                    Attr::Known(_) => volume.delete_on_termination = Attr::Known(false),
                    Attr::Unknown => volume.delete_on_termination = Attr::Unknown,
                    Attr::Null => {}
                }
            }
            if let Some(was) = was {
                speed_follows((&volume.kind, &was.kind), &asked.iops, &mut volume.iops);
                speed_follows((&volume.kind, &was.kind), &asked.throughput, &mut volume.throughput);
            }
        }
    }

    /// What EC2 does not tell of what it was not asked for.
    fn settle_new(&mut self, configured: &Self) {
        if let (Attr::Known(spot), Attr::Known(asked)) = (&mut self.spot, &configured.spot) {
            let pairs = [
                (&mut spot.max_price, &asked.max_price),
                (&mut spot.kind, &asked.kind),
                (&mut spot.interruption_behavior, &asked.interruption_behavior),
            ];
            for (planned, asked) in pairs {
                if asked.is_null() && planned.is_unknown() {
                    *planned = Attr::Null;
                }
            }
        }
    }

    /// The volume here that will be `name`: the one of this name, or one at the same device that has no name in `planned`. A volume
    /// is not another one because it is called otherwise.
    pub(super) fn earlier_volume<'a>(
        &'a self,
        planned: &Volumes,
        name: &str,
        volume: &Volume,
        found: &Found,
    ) -> Option<&'a Volume> {
        let volumes = self.volumes.known()?;
        volumes.get(name).or_else(|| {
            let mut unnamed = volumes.iter().filter(|(other, _)| !planned.has(other));
            unnamed.find(|(_, was)| was.can_become(volume, found)).map(|(_, was)| was)
        })
    }

    /// Gives volumes the names they have in a plan; those that get another one, by id.
    pub(crate) fn rename_volumes(&mut self, planned: &Self) -> BTreeMap<String, String> {
        let mut renamed = BTreeMap::new();
        let (Attr::Known(there), Attr::Known(planned)) = (&mut self.volumes, &planned.volumes) else {
            return renamed;
        };
        for (name, volume) in planned.iter().filter(|(_, volume)| volume.volume_id.is_known()) {
            let before = there.iter().find(|(_, was)| was.volume_id == volume.volume_id);
            let Some(before) = before.map(|(before, _)| before.clone()).filter(|before| before != name)
            else {
                continue;
            };
            if let (Some(volume), Attr::Known(id)) = (there.remove(&before), &volume.volume_id) {
                renamed.insert(id.clone(), name.clone());
                there.insert(name.clone(), volume);
            }
        }
        renamed
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

impl Volume {
    /// Whether this volume, which is there, may be the one that `planned` asks for at its device.
    fn can_become(&self, planned: &Self, found: &Found) -> bool {
        let (Attr::Known(here), Attr::Known(there)) = (&self.device, &planned.device) else { return false };
        let fits = |asked: &Attr<String>, now: &Attr<String>| !asked.is_known() || asked == now;
        device_letter(here) == device_letter(there)
            && self.volume_id.is_known()
            && self.may_be_owned_as(planned, found)
            && fits(&planned.snapshot_id, &self.snapshot_id)
            && (!planned.encrypted.is_known() || planned.encrypted == self.encrypted)
            && planned.size.known().is_none_or(|size| self.size.known().is_none_or(|now| now <= size))
    }

    /// Whether it belongs to the machine as planned: as now, or to nobody from now on. That somebody else's becomes the machine's,
    /// and so goes with it, is meant only where an import could not know whose it is.
    pub(super) fn may_be_owned_as(&self, planned: &Self, found: &Found) -> bool {
        match &planned.existing_volume_id {
            Attr::Known(id) => self.volume_id.known() == Some(id),
            Attr::Null => self.existing_volume_id.is_null() || found.has(self),
            Attr::Unknown => true,
        }
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

/// `sdX` and `xvdX` are one device to EC2.
pub(crate) fn device_letter(device: &str) -> char {
    device.chars().last().unwrap_or_default()
}
