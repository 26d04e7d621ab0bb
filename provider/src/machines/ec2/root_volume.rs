//! The root volume of an instance: what it is, and how it is changed.

use tfplugin::{Attr, Diagnostic, Path};

use super::api::Ec2;
use super::block::{Ec2Block, RootVolume, is_same_key};
use super::drift::root_volume;
use super::volumes::{VolumeChange, keep_or_delete, modify_volume};
use crate::aws::{AwsError, MACHINE};
use crate::deadline::Deadline;

/// The root volume as it is.
pub(super) async fn root_volume_of(ec2: &Ec2<'_>, id: &str) -> Result<RootVolume, AwsError> {
    let seen = ec2.look(id, &Ec2Block::default()).await?;
    let found = seen.as_ref().and_then(root_volume);
    found.ok_or_else(|| {
        AwsError::unexpected("ec2:DescribeInstances", "the instance has no root volume on EBS")
    })
}

/// The root volume, where it was made with the machine by this provider, whose tags it then has.
pub(super) async fn own_root_volume(ec2: &Ec2<'_>, id: &str) -> Result<Option<String>, AwsError> {
    let Some(seen) = ec2.look(id, &Ec2Block::default()).await? else { return Ok(None) };
    let root = root_volume(&seen).and_then(|root| root.volume_id.known().cloned());
    let is_own = |id: &String| {
        let volume = seen.volumes.get(id);
        volume.is_some_and(|volume| volume.tags().iter().any(|tag| tag.key() == Some(MACHINE)))
    };
    Ok(root.filter(is_own))
}

/// Encryption is decided when a volume is made. Where the state knows the root volume the plan replaces the machine.
pub(super) fn check_encryption(
    now: &RootVolume,
    wanted: &RootVolume,
    machine: &str,
) -> Result<(), Diagnostic> {
    let differs =
        now.encrypted.is_known() && wanted.encrypted.is_known() && now.encrypted != wanted.encrypted;
    let another_key = now.kms_key_id.is_known()
        && wanted.kms_key_id.is_known()
        && now.kms_key_id != wanted.kms_key_id
        && !is_same_key(&now.kms_key_id, &wanted.kms_key_id);
    if !differs && !another_key {
        return Ok(());
    }
    let attribute = if differs { "encrypted" } else { "kms_key_id" };
    let path = Path::root().attribute("ec2").attribute("root_volume").attribute(attribute);
    Err(Diagnostic::error(format!("The root volume of machine \"{machine}\" is encrypted otherwise"))
        .detail(format!(
            "`{attribute}` cannot be changed of a volume that exists, and nothing of the root volume was \
             changed. Set it to what the volume has, or run `terraform apply -replace` for a new machine, \
             without what is on this one."
        ))
        .at(path))
}

/// Changes the root volume from what it is to what is wanted.
pub(super) async fn change_root_volume(
    ec2: &Ec2<'_>,
    id: &str,
    now: &RootVolume,
    wanted: &RootVolume,
    deadline: &Deadline,
) -> Result<(), AwsError> {
    let change = VolumeChange::between(
        [&now.size, &now.iops, &now.throughput],
        [&wanted.size, &wanted.iops, &wanted.throughput],
        &now.kind,
        &wanted.kind,
    );
    let volume = now.volume_id.known().cloned().unwrap_or_default();
    if !change.is_empty() {
        modify_volume(ec2, &volume, &change, deadline).await?;
    }
    if now.delete_on_termination != wanted.delete_on_termination {
        let seen = ec2.look(id, &Ec2Block::default()).await?;
        let mappings = seen.map(|seen| seen.instance.block_device_mappings().to_vec()).unwrap_or_default();
        let device =
            mappings.iter().find(|mapping| mapping.ebs().and_then(|ebs| ebs.volume_id()) == Some(&volume));
        let device = device.and_then(|mapping| mapping.device_name()).unwrap_or("/dev/xvda");
        keep_or_delete(ec2, id, device, wanted.delete_on_termination != Attr::Known(false)).await?;
    }
    Ok(())
}
