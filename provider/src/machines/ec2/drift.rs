//! What EC2 says about an instance, in the words of the block.

use aws_sdk_ec2::types::{
    AttachmentStatus, Instance, InstanceBlockDeviceMapping, InstanceStateName, VolumeState,
};
use tfplugin::Attr;

use super::api::Ec2;
use super::block::{Ec2Block, MetadataOptions, RootVolume};
use super::volume_map::Volume;
use super::volume_map::Volumes;
use super::volume_schema::is_device;
use super::volumes::made_with;
use crate::aws::{AwsError, Seen, TagModel, TagRules, ec2_tags};
use crate::machines::host_key::hands_over;

/// Whether the instance is over and done with.
pub(crate) fn is_gone(instance: &Instance) -> bool {
    matches!(
        instance.state().and_then(|state| state.name()),
        Some(InstanceStateName::Terminated | InstanceStateName::ShuttingDown)
    )
}

/// `running` or `stopped`: what it is, or is on the way to.
pub(crate) fn power(instance: &Instance) -> &'static str {
    match instance.state().and_then(|state| state.name()) {
        Some(InstanceStateName::Stopped | InstanceStateName::Stopping) => "stopped",
        _ => "running",
    }
}

impl Ec2Block {
    /// Takes over what is there. What is not in the state because it is nobody's concern stays out of it.
    pub(crate) fn take(&mut self, seen: &Seen, name: &str, rules: &TagRules) {
        let instance = &seen.instance;
        let placement = instance.placement();
        let text = |value: Option<&str>| Attr::from(value.filter(|text| !text.is_empty()).map(str::to_owned));
        self.availability_zone = text(placement.and_then(|placement| placement.availability_zone()));
        self.placement_group = text(placement.and_then(|placement| placement.group_name()));
        self.tenancy = match placement.and_then(|placement| placement.tenancy()) {
            Some(tenancy) => Attr::Known(tenancy.as_str().to_owned()),
            None => Attr::Known(self.tenancy.known().cloned().unwrap_or_else(|| "default".to_owned())),
        };
        self.instance_type = text(instance.instance_type().map(|kind| kind.as_str()));
        self.key_name = text(instance.key_name());
        self.subnet_id = text(instance.subnet_id());
        self.ebs_optimized = Attr::Known(instance.ebs_optimized().unwrap_or(false));
        self.source_dest_check = Attr::Known(instance.source_dest_check().unwrap_or(true));
        self.public_dns = text(instance.public_dns_name());
        self.client_token = text(instance.client_token());
        self.private_ip = text(instance.private_ip_address());
        self.take_ipv6(instance);
        if !self.associate_public_ip_address.is_known() {
            self.associate_public_ip_address = has_public_address(instance);
        }
        let mut groups: Vec<String> = instance
            .security_groups()
            .iter()
            .filter_map(|group| group.group_id().map(str::to_owned))
            .collect();
        groups.sort();
        self.security_group_ids = Attr::Known(groups.into_iter().map(Attr::Known).collect());
        self.instance_profile = self.profile(instance);
        if self.elastic_ip.known().is_some_and(|known| !seen.elastic_ips.contains_key(known)) {
            self.elastic_ip = Attr::from(seen.elastic_ips.keys().next().cloned());
        }
        if let (Attr::Known(options), Some(found)) = (&mut self.metadata_options, instance.metadata_options())
        {
            let keep = |value: &Attr<String>, found: Option<&str>| {
                found.map_or(value.clone(), |found| Attr::Known(found.to_owned()))
            };
            *options = MetadataOptions {
                http_endpoint: keep(
                    &options.http_endpoint,
                    found.http_endpoint().map(|value| value.as_str()),
                ),
                http_tokens: keep(&options.http_tokens, found.http_tokens().map(|value| value.as_str())),
                http_put_response_hop_limit: found
                    .http_put_response_hop_limit()
                    .map_or(options.http_put_response_hop_limit.clone(), Attr::Known),
                instance_metadata_tags: keep(
                    &options.instance_metadata_tags,
                    found.instance_metadata_tags().map(|value| value.as_str()),
                ),
            };
        }
        self.take_volumes(seen);
        let mut tags = ec2_tags(instance.tags());
        let own_name = self.tags.known().is_some_and(|tags| tags.contains_key("Name"))
            || rules.defaults.contains_key("Name");
        if !own_name && tags.get("Name").map(String::as_str) == Some(name) {
            tags.remove("Name");
        }
        let mut model = TagModel { tags: self.tags.clone(), tags_all: Attr::Null };
        model.read(&tags, rules);
        (self.tags, self.tags_all) = (model.tags, model.tags_all);
    }

    /// In the words of the state where it is the same profile: by name or by ARN.
    fn profile(&self, instance: &Instance) -> Attr<String> {
        let Some(arn) = instance.iam_instance_profile().and_then(|profile| profile.arn()) else {
            return Attr::Null;
        };
        match self.instance_profile.known() {
            Some(known) if known == arn || arn.ends_with(&format!("/{known}")) => Attr::Known(known.clone()),
            _ => Attr::Known(arn.to_owned()),
        }
    }

    fn take_volumes(&mut self, seen: &Seen) {
        let attached = |id: &str| {
            let mappings = seen.instance.block_device_mappings().iter();
            let found = mappings.filter_map(|mapping| Some((mapping.device_name()?, mapping.ebs()?)));
            let mut found = found.filter(|(_, ebs)| {
                ebs.volume_id() == Some(id) && ebs.status() != Some(&AttachmentStatus::Detached)
            });
            found.next().map(|(device, ebs)| (device.to_owned(), ebs.delete_on_termination()))
        };
        if let Attr::Known(root) = &mut self.root_volume
            && let Some(ebs) = root_mapping(&seen.instance).and_then(|mapping| mapping.ebs())
        {
            root.take(ebs.volume_id().and_then(|id| seen.volumes.get(id)), ebs.delete_on_termination());
        }
        for volume in self.volumes.known_mut().into_iter().flat_map(|volumes| volumes.values_mut()) {
            let Attr::Known(id) = volume.volume_id.clone() else { continue };
            let found = seen.volumes.get(&id).filter(|found| found.state() != Some(&VolumeState::Deleting));
            let Some(found) = found else {
                // Deleted behind our back: the plan makes a new one, and says so.
                (volume.volume_id, volume.device, volume.client_token) = (Attr::Null, Attr::Null, Attr::Null);
                continue;
            };
            volume.take(found);
            match attached(&id) {
                None => volume.device = Attr::Null,
                Some((device, delete)) => {
                    let finished = volume.device.is_known() && volume.delete_on_termination.is_known();
                    let same = volume
                        .device
                        .known()
                        .is_some_and(|known| known.chars().last() == device.chars().last());
                    if !same {
                        volume.device = Attr::Known(device);
                    }
                    if volume.is_ours() {
                        // One that was to go with the machine does, also where attaching it came no further than this.
                        let delete = Attr::Known(delete.unwrap_or(false));
                        let unfinished =
                            !finished && volume.goes_with_machine() && delete == Attr::Known(false);
                        volume.delete_on_termination = if unfinished { Attr::Null } else { delete };
                    }
                }
            }
        }
    }
}

/// Takes over what every volume has, the root and others.
macro_rules! take_shape {
    ($volume:ident, $found:ident) => {
        $volume.size = Attr::from($found.size());
        $volume.kind = Attr::from($found.volume_type().map(|kind| kind.as_str().to_owned()));
        $volume.iops = Attr::from($found.iops());
        $volume.throughput = Attr::from($found.throughput());
        $volume.encrypted = Attr::Known($found.encrypted().unwrap_or(false));
        $volume.kms_key_id = key(&$volume.kms_key_id, $found.kms_key_id());
    };
}

/// The root volume as it is; `None` where the instance has none on EBS.
pub(super) fn root_volume(seen: &Seen) -> Option<RootVolume> {
    let ebs = root_mapping(&seen.instance)?.ebs()?;
    let mut root = RootVolume::default();
    root.take(ebs.volume_id().and_then(|id| seen.volumes.get(id)), ebs.delete_on_termination());
    Some(root)
}

impl RootVolume {
    fn take(&mut self, found: Option<&aws_sdk_ec2::types::Volume>, delete: Option<bool>) {
        self.delete_on_termination = Attr::Known(delete.unwrap_or(true));
        let Some(found) = found else { return };
        self.volume_id = Attr::from(found.volume_id().map(str::to_owned));
        take_shape!(self, found);
    }
}

impl Volume {
    fn take(&mut self, found: &aws_sdk_ec2::types::Volume) {
        take_shape!(self, found);
        match found.snapshot_id().filter(|id| !id.is_empty()) {
            Some(id) => self.snapshot_id = Attr::Known(id.to_owned()),
            None if self.snapshot_id.is_unknown() => self.snapshot_id = Attr::Null,
            None => {}
        }
        if !self.client_token.is_known() {
            self.client_token = Attr::from(made_with(found).filter(|_| self.is_ours()));
        }
    }
}

/// In the words of the state where it is the same key: by id or by ARN.
fn key(known: &Attr<String>, found: Option<&str>) -> Attr<String> {
    match (known, found) {
        (Attr::Known(known), Some(found)) if found.ends_with(known.as_str()) => Attr::Known(known.clone()),
        (_, found) => Attr::from(found.filter(|key| !key.is_empty()).map(str::to_owned)),
    }
}

/// Whether the instance got a public address of its own, as far as it shows: not while it is stopped or has an
/// elastic one.
fn has_public_address(instance: &Instance) -> Attr<bool> {
    let interfaces = instance.network_interfaces().iter();
    let mut addresses = interfaces.filter_map(|interface| interface.association());
    let own = addresses.any(|address| address.ip_owner_id() == Some("amazon"));
    let none = power(instance) == "running" && instance.public_ip_address().is_none_or(str::is_empty);
    match (own, none) {
        (true, _) => Attr::Known(true),
        (_, true) => Attr::Known(false),
        _ => Attr::Null,
    }
}

/// The block of an instance that was there before the resource: all that EC2 tells of it.
pub(crate) async fn import(ec2: &Ec2<'_>, seen: &Seen, name: &str) -> Result<Ec2Block, AwsError> {
    let instance = &seen.instance;
    let id = instance.instance_id().unwrap_or_default();
    let no = Attr::Known(false);
    let (host_key, user_data) = told(ec2.user_data(id).await?.as_deref());
    let has_root = root_mapping(instance).is_some_and(|mapping| mapping.ebs().is_some());
    let mut block = Ec2Block {
        region: Attr::Known(ec2.region.clone()),
        ami: Attr::from(instance.image_id().map(str::to_owned)),
        elastic_ip: Attr::from(seen.elastic_ips.keys().next().cloned()),
        allow_stopping_for_update: no.clone(),
        use_private_address: no,
        spot: Attr::from(ec2.spot(instance).await?),
        disable_api_termination: Attr::Known(ec2.is_protected(id).await?),
        metadata_options: Attr::from(instance.metadata_options().map(|_| MetadataOptions::default())),
        user_data: Attr::from(user_data),
        host_key: Attr::Known(host_key.to_owned()),
        root_volume: Attr::from(has_root.then(RootVolume::default)),
        volumes: Attr::from(Some(attached(seen, name)).filter(|volumes| !volumes.is_empty())),
        ..Ec2Block::default()
    };
    block.take(seen, name, ec2.tag_rules());
    // The name of a profile is what configurations say most often; its ARN counts as the same.
    block.instance_profile = match block.instance_profile {
        Attr::Known(arn) => Attr::from(arn.rsplit('/').next().map(str::to_owned)),
        none => none,
    };
    let has_address = instance.public_ip_address().is_some_and(|address| !address.is_empty());
    if block.associate_public_ip_address.is_null() && has_address && seen.elastic_ips.is_empty() {
        block.associate_public_ip_address = Attr::Known(true);
    }
    Ok(block)
}

/// What user data tell: how the instance got its host key, and, where they are the user's own, they themselves. Those
/// with a private key are not for the state.
fn told(user_data: Option<&str>) -> (&'static str, Option<String>) {
    match (user_data, user_data.and_then(hands_over)) {
        (_, Some(how)) => (how, None),
        (Some(text), None) if !text.is_empty() && !text.contains("PRIVATE KEY") => {
            ("none", Some(text.to_owned()))
        }
        _ => ("none", None),
    }
}

/// The volumes beside the root, by the names that this provider gave them, or by their devices. Those that were
/// attached by somebody who keeps them are somebody else's.
fn attached(seen: &Seen, machine: &str) -> Volumes {
    let mut volumes = Volumes::default();
    let root = root_mapping(&seen.instance).and_then(|mapping| mapping.device_name());
    for mapping in seen.instance.block_device_mappings() {
        let (Some(device), Some(ebs)) = (mapping.device_name(), mapping.ebs()) else { continue };
        let found = ebs.volume_id().and_then(|id| seen.volumes.get(id));
        let (Some(id), Some(found), true) = (ebs.volume_id(), found, is_device(device)) else { continue };
        if Some(device) == root {
            continue;
        }
        let token = made_with(found);
        let goes = ebs.delete_on_termination().unwrap_or(false);
        let existing = (token.is_none() && !goes).then(|| id.to_owned());
        let tags = ec2_tags(found.tags());
        let own = tags.get("Name").and_then(|tag| tag.strip_prefix(machine)?.strip_prefix(' '));
        let by_device = device.rsplit('/').next().unwrap_or(device);
        let name = own.filter(|own| token.is_some() && !own.is_empty() && !volumes.contains_key(*own));
        let volume = Volume {
            device: Attr::Known(device.to_owned()),
            existing_volume_id: Attr::from(existing),
            delete_on_termination: Attr::Known(goes),
            volume_id: Attr::Known(id.to_owned()),
            ..Volume::default()
        };
        volumes.insert(name.unwrap_or(by_device).to_owned(), volume);
    }
    volumes
}

/// Where the root volume is attached.
fn root_mapping(instance: &Instance) -> Option<&InstanceBlockDeviceMapping> {
    let mappings = instance.block_device_mappings();
    match instance.root_device_name() {
        Some(device) => mappings.iter().find(|mapping| mapping.device_name() == Some(device)),
        None => mappings.first(),
    }
}

#[cfg(test)]
mod tests {
    use nixos_activator::Secret;
    use nixos_activator::ssh::KeyPair;

    use super::*;
    use crate::machines::host_key::user_data;

    #[test]
    fn user_data_come_into_the_state_where_they_hold_no_private_key() {
        let private =
            Secret::new("-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n");
        let pair = KeyPair { public: "ssh-ed25519 AAAA".into(), private };
        for how in ["nixos", "cloud_init"] {
            assert_eq!(told(Some(&user_data(how, &pair))), (how, None));
        }
        assert_eq!(told(Some("#!/bin/sh\n")), ("none", Some("#!/bin/sh\n".to_owned())));
        assert_eq!(told(Some(&format!("key: {}", pair.private.expose()))), ("none", None));
        assert_eq!(told(None), ("none", None));
    }
}
