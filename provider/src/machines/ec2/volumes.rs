//! Volumes beside the root: made, attached in the order of their devices, grown, detached, deleted.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    EbsInstanceBlockDeviceSpecification, Filter, InstanceBlockDeviceMappingSpecification, ResourceType,
    TagSpecification, VolumeAttachmentState, VolumeModificationState, VolumeState,
};
use tfplugin::{Attr, Diagnostic, Path};
use tokio_util::sync::CancellationToken;

use super::api::Ec2;
use super::api::machine_tags;
use super::block::Ec2Block;
use super::volume_identity::device_letter;
use super::volume_map::Volume;
use crate::aws::{AwsError, Tags, eventually_found, retag_ec2, to_ec2};
use crate::deadline::{Backoff, Deadline};
use crate::settings::unique;

/// The tag that a volume is found by when the answer to the call that made it got lost.
const TOKEN: &str = "nixos:token";

/// What EC2 calls a volume that is not there.
const NOT_FOUND: &[&str] = &["InvalidVolume.NotFound"];

/// The instance whose volumes are changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner<'a> {
    pub(super) ec2: &'a Ec2<'a>,
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) block: &'a Ec2Block,
}

impl Volume {
    /// Whether it was made for this machine, and so may be changed and deleted with it.
    pub(crate) fn is_ours(&self) -> bool {
        self.existing_volume_id.is_null()
    }

    /// Whether it goes with the machine.
    pub(crate) fn goes_with_machine(&self) -> bool {
        self.is_ours() && self.delete_on_termination.known().copied().unwrap_or(true)
    }

    /// The token it was asked for with, where no answer has come: there is a volume of it or not.
    pub(crate) fn asked_with(&self) -> Option<&str> {
        self.client_token.known().filter(|_| self.volume_id.is_null()).map(String::as_str)
    }

    fn id(&self) -> Option<&str> {
        self.volume_id.known().or(self.existing_volume_id.known()).map(String::as_str)
    }
}

/// Brings the volumes from `there` to what is planned; `there` follows each step. One that was asked for without an
/// answer, and may be there or not, is in it with nothing but its client token.
pub(super) async fn change(
    owner: Owner<'_>,
    there: &mut BTreeMap<String, Volume>,
    planned: &BTreeMap<String, Volume>,
    deadline: &Deadline,
) -> Result<(), Diagnostic> {
    let gone: Vec<String> = there.keys().filter(|name| !planned.contains_key(*name)).cloned().collect();
    for name in gone {
        if let Some(volume) = there.get(&name).cloned() {
            owner.take_away(&name, &volume, deadline).await?;
        }
        there.remove(&name);
    }
    let mut in_order: Vec<(&String, &Volume)> = planned.iter().collect();
    in_order.sort_by_key(|(_, volume)| volume.device.known().map(|device| device_letter(device)));
    for (name, wanted) in in_order {
        let before = there.get(name).cloned();
        let mut now = match before {
            Some(volume) if volume.id().is_some() => volume,
            _ => {
                let (id, client_token) = match wanted.existing_volume_id.known() {
                    Some(id) => (id.clone(), Attr::Null),
                    None => owner.create(name, wanted, there, deadline).await?,
                };
                Volume { volume_id: Attr::Known(id), device: Attr::Null, client_token, ..wanted.clone() }
            }
        };
        there.insert(name.clone(), now.clone());
        if now.device.is_null() {
            owner.attach(name, &now, wanted, deadline).await?;
            // Until EC2 knows whether it goes with the machine, `there` has it as one that is still to be attached.
            now.device = wanted.device.clone();
            now.delete_on_termination = Attr::Null;
        }
        owner.modify(name, &now, wanted, deadline).await?;
        if now.delete_on_termination != wanted.delete_on_termination {
            owner.delete_on_termination(name, &now, wanted).await?;
        }
        let (volume_id, client_token) = (now.volume_id, now.client_token);
        there.insert(name.clone(), Volume { volume_id, client_token, ..wanted.clone() });
    }
    Ok(())
}

impl Owner<'_> {
    /// Makes an empty volume, or one from a snapshot; or finds the one that an earlier call made whose answer got
    /// lost. The id comes with the client token.
    async fn create(
        &self,
        name: &str,
        wanted: &Volume,
        there: &mut BTreeMap<String, Volume>,
        deadline: &Deadline,
    ) -> Result<(String, Attr<String>), Diagnostic> {
        let asked = there.get(name).and_then(|volume| volume.client_token.known().cloned());
        if let Some(token) = &asked
            && let Some(id) =
                made_by(self.ec2, token, &deadline.cancel).await.map_err(self.problem(name, "look for"))?
        {
            return Ok((id, Attr::Known(token.clone())));
        }
        // The plan has promised the token that there is; and where the earlier call has its effect after all, this
        // one has no other.
        let token = asked.unwrap_or_else(|| unique("nixos-"));
        let mut tags = machine_tags(self.block, self.name);
        tags.insert("Name".to_owned(), format!("{} {name}", self.name));
        tags.insert(TOKEN.to_owned(), token.clone());
        let tags =
            TagSpecification::builder().resource_type(ResourceType::Volume).set_tags(Some(to_ec2(&tags)));
        let call = self
            .ec2
            .client
            .create_volume()
            .client_token(&token)
            .set_availability_zone(self.block.availability_zone.known().cloned())
            .set_size(wanted.size.known().copied())
            .volume_type(wanted.kind.known().map_or("gp3", String::as_str).into())
            .set_iops(wanted.iops.known().copied())
            .set_throughput(wanted.throughput.known().copied())
            .set_snapshot_id(wanted.snapshot_id.known().cloned())
            .set_encrypted(wanted.encrypted.known().copied())
            .set_kms_key_id(wanted.kms_key_id.known().cloned())
            .tag_specifications(tags.build());
        match call.send().await.map_err(AwsError::of("ec2:CreateVolume")) {
            Ok(made) => Ok((made.volume_id().unwrap_or_default().to_owned(), Attr::Known(token))),
            Err(error) => {
                if error.is_open() {
                    let open = Volume { client_token: Attr::Known(token), ..Volume::default() };
                    there.insert(name.to_owned(), open);
                }
                Err(self.problem(name, "create")(error))
            }
        }
    }

    async fn attach(
        &self,
        name: &str,
        volume: &Volume,
        wanted: &Volume,
        deadline: &Deadline,
    ) -> Result<(), Diagnostic> {
        let id = volume.id().unwrap_or_default();
        self.wait(id, &[VolumeState::Available, VolumeState::InUse], deadline)
            .await
            .map_err(self.problem(name, "attach"))?;
        let device = wanted.device.known().cloned().unwrap_or_default();
        let call = || async {
            let call = self.ec2.client.attach_volume().volume_id(id).instance_id(self.id).device(&device);
            call.send().await.map_err(AwsError::of("ec2:AttachVolume"))
        };
        // The instance, or the volume, may be on its way to a state that allows it.
        let passes = |error: &AwsError| error.is(&["IncorrectState", "IncorrectInstanceState"]);
        match deadline.retry(passes, call).await {
            Ok(_) => {}
            // The answer to an earlier try got lost.
            Err(error) if error.is(&["VolumeInUse"]) && self.is_attached(id).await.unwrap_or(false) => {}
            Err(error) => return Err(self.problem(name, "attach")(error)),
        }
        let mut backoff = Backoff::default();
        while !self.is_attached(id).await.map_err(self.problem(name, "attach"))? {
            if backoff.pause(deadline).await.is_err() {
                let error = AwsError::unexpected("ec2:AttachVolume", "the volume was not attached in time");
                return Err(self.problem(name, "attach")(error));
            }
        }
        Ok(())
    }

    async fn is_attached(&self, id: &str) -> Result<bool, AwsError> {
        Ok(self.device(id).await?.is_some())
    }

    /// Where it is attached, as EC2 says it: that may be `/dev/sdf` where the configuration has `/dev/xvdf`.
    async fn device(&self, id: &str) -> Result<Option<String>, AwsError> {
        let found = self.ec2.client.describe_volumes().volume_ids(id).send().await;
        let found = found.map_err(AwsError::of("ec2:DescribeVolumes"))?;
        let mut attachments = found.volumes().iter().flat_map(|volume| volume.attachments());
        let attached = attachments.find(|attachment| {
            attachment.instance_id() == Some(self.id)
                && attachment.state() == Some(&VolumeAttachmentState::Attached)
        });
        Ok(attached.map(|attachment| attachment.device().unwrap_or_default().to_owned()))
    }

    /// Grows it or makes it faster, while it is in use.
    async fn modify(
        &self,
        name: &str,
        now: &Volume,
        wanted: &Volume,
        deadline: &Deadline,
    ) -> Result<(), Diagnostic> {
        let change = VolumeChange::between(
            [&now.size, &now.iops, &now.throughput],
            [&wanted.size, &wanted.iops, &wanted.throughput],
            &now.kind,
            &wanted.kind,
        );
        if !wanted.is_ours() || change.is_empty() {
            return Ok(());
        }
        modify_volume(self.ec2, now.id().unwrap_or_default(), &change, deadline)
            .await
            .map_err(self.problem(name, "change"))
    }

    async fn delete_on_termination(
        &self,
        name: &str,
        now: &Volume,
        wanted: &Volume,
    ) -> Result<(), Diagnostic> {
        let device =
            self.device(now.id().unwrap_or_default()).await.map_err(self.problem(name, "look for"))?;
        let device = device.or_else(|| wanted.device.known().cloned()).unwrap_or_default();
        keep_or_delete(self.ec2, self.id, &device, wanted.goes_with_machine())
            .await
            .map_err(self.problem(name, "change"))
    }

    /// Detaches it, and deletes it if it goes with the machine.
    async fn take_away(&self, name: &str, volume: &Volume, deadline: &Deadline) -> Result<(), Diagnostic> {
        let made = match volume.asked_with() {
            Some(token) => {
                made_by(self.ec2, token, &deadline.cancel).await.map_err(self.problem(name, "look for"))?
            }
            None => None,
        };
        let Some(id) = volume.id().or(made.as_deref()) else { return Ok(()) };
        if self.is_attached(id).await.or_else(none_if_gone(false)).map_err(self.problem(name, "detach"))? {
            let call = self.ec2.client.detach_volume().volume_id(id).instance_id(self.id);
            call.send()
                .await
                .map_err(AwsError::of("ec2:DetachVolume"))
                .map_err(self.problem(name, "detach"))?;
            self.wait(id, &[VolumeState::Available], deadline).await.map_err(self.problem(name, "detach"))?;
        }
        if volume.goes_with_machine() {
            delete(self.ec2, id).await.map_err(self.problem(name, "delete"))?;
        }
        Ok(())
    }

    async fn wait(&self, id: &str, wanted: &[VolumeState], deadline: &Deadline) -> Result<(), AwsError> {
        let mut backoff = Backoff::default();
        loop {
            let found = self.ec2.client.describe_volumes().volume_ids(id).send().await;
            let state = match found.map_err(AwsError::of("ec2:DescribeVolumes")) {
                Ok(found) => found.volumes().first().and_then(|volume| volume.state().cloned()),
                // EC2 has not heard yet of what it has just made.
                Err(error) if error.is(NOT_FOUND) => None,
                Err(error) => return Err(error),
            };
            match state {
                Some(state) if wanted.contains(&state) => return Ok(()),
                Some(state @ (VolumeState::Error | VolumeState::Deleted | VolumeState::Deleting)) => {
                    let message = format!("volume {id} is {}", state.as_str());
                    return Err(AwsError::unexpected("ec2:DescribeVolumes", &message));
                }
                _ => {}
            }
            if backoff.pause(deadline).await.is_err() {
                let wanted = wanted.first().map_or("", VolumeState::as_str);
                let message = format!("volume {id} was not {wanted} in time");
                return Err(AwsError::unexpected("ec2:DescribeVolumes", &message));
            }
        }
    }

    fn problem(&self, volume: &str, verb: &str) -> impl Fn(AwsError) -> Diagnostic {
        let summary = format!("AWS did not {verb} volume \"{volume}\" of machine \"{}\"", self.name);
        let path = Path::root().attribute("ec2").attribute("volumes").key(volume);
        move |error| error.diagnostic(&summary, path.clone())
    }
}

fn none_if_gone<T>(none: T) -> impl FnOnce(AwsError) -> Result<T, AwsError> {
    move |error| if error.is(NOT_FOUND) { Ok(none) } else { Err(error) }
}

/// Tells EC2 the new names of volumes, by their ids.
pub(crate) async fn name_volumes(
    ec2: &Ec2<'_>,
    machine: &str,
    block: &Ec2Block,
    renamed: &BTreeMap<String, String>,
) -> Result<(), AwsError> {
    for (id, name) in renamed {
        let volume = block.volumes.known().and_then(|volumes| volumes.get(name));
        if volume.is_some_and(Volume::is_ours) {
            let tags = Tags::from([("Name".to_owned(), format!("{machine} {name}"))]);
            retag_ec2(&ec2.client, std::slice::from_ref(id), &tags, &[]).await?;
        }
    }
    Ok(())
}

/// The volume that a call with this token made. Unlike instances, volumes do not show their client token. It is
/// looked for until EC2 should have heard of it.
pub(crate) async fn made_by(
    ec2: &Ec2<'_>,
    token: &str,
    cancel: &CancellationToken,
) -> Result<Option<String>, AwsError> {
    let filter = Filter::builder().name(format!("tag:{TOKEN}")).values(token).build();
    let look = || async {
        let found = ec2.client.describe_volumes().filters(filter.clone()).send().await;
        let found = found.map_err(AwsError::of("ec2:DescribeVolumes"))?;
        Ok(found.volumes().first().and_then(|volume| volume.volume_id().map(str::to_owned)))
    };
    eventually_found(look, cancel).await
}

/// The token of the call that made a volume.
pub(super) fn made_with(volume: &aws_sdk_ec2::types::Volume) -> Option<String> {
    let tag = volume.tags().iter().find(|tag| tag.key() == Some(TOKEN));
    tag.and_then(|tag| tag.value()).map(str::to_owned)
}

/// What is to change of a volume while it is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct VolumeChange {
    size: Option<i32>,
    iops: Option<i32>,
    throughput: Option<i32>,
    kind: Option<String>,
}

impl VolumeChange {
    /// From size, IOPS, throughput and type to others; what is not known is left to EC2.
    pub(super) fn between(
        now: [&Attr<i32>; 3],
        wanted: [&Attr<i32>; 3],
        kind_now: &Attr<String>,
        kind_wanted: &Attr<String>,
    ) -> Self {
        let [size, iops, throughput] =
            [0, 1, 2].map(|n| wanted[n].known().copied().filter(|value| now[n].known() != Some(value)));
        Self {
            size,
            iops,
            throughput,
            kind: kind_wanted.known().filter(|kind| kind_now.known() != Some(kind)).cloned(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Changes a volume and waits until it can be used as changed; EBS goes on optimizing behind that.
pub(super) async fn modify_volume(
    ec2: &Ec2<'_>,
    id: &str,
    change: &VolumeChange,
    deadline: &Deadline,
) -> Result<(), AwsError> {
    let call = ec2
        .client
        .modify_volume()
        .volume_id(id)
        .set_size(change.size)
        .set_iops(change.iops)
        .set_throughput(change.throughput)
        .set_volume_type(change.kind.as_deref().map(Into::into));
    call.send().await.map_err(AwsError::of("ec2:ModifyVolume"))?;
    let mut backoff = Backoff::default();
    loop {
        let answer = ec2.client.describe_volumes_modifications().volume_ids(id).send().await;
        let answer = answer.map_err(AwsError::of("ec2:DescribeVolumesModifications"))?;
        let found = answer.volumes_modifications().first();
        match found.and_then(|found| found.modification_state()) {
            Some(VolumeModificationState::Modifying) => {}
            Some(VolumeModificationState::Failed) => {
                let message = found.and_then(|found| found.status_message()).unwrap_or("no reason given");
                return Err(AwsError::unexpected("ec2:ModifyVolume", message));
            }
            _ => return Ok(()),
        }
        if backoff.pause(deadline).await.is_err() {
            return Err(AwsError::unexpected(
                "ec2:ModifyVolume",
                "the change was not in force in time; it goes on",
            ));
        }
    }
}

/// Says whether what is attached at `device` is deleted with the instance.
pub(crate) async fn keep_or_delete(
    ec2: &Ec2<'_>,
    id: &str,
    device: &str,
    delete: bool,
) -> Result<(), AwsError> {
    let ebs = EbsInstanceBlockDeviceSpecification::builder().delete_on_termination(delete).build();
    let mapping = InstanceBlockDeviceMappingSpecification::builder().device_name(device).ebs(ebs).build();
    let call = ec2.client.modify_instance_attribute().instance_id(id).block_device_mappings(mapping);
    call.send().await.map(drop).map_err(AwsError::of("ec2:ModifyInstanceAttribute"))
}

/// Whether there is such a volume, and it is not on its way out.
pub(crate) async fn exists(ec2: &Ec2<'_>, id: &str) -> Result<bool, AwsError> {
    let found = ec2.client.describe_volumes().volume_ids(id).send().await;
    let stays =
        |state: Option<&VolumeState>| !matches!(state, Some(VolumeState::Deleting | VolumeState::Deleted));
    found
        .map(|found| found.volumes().iter().any(|volume| stays(volume.state())))
        .map_err(AwsError::of("ec2:DescribeVolumes"))
        .or_else(none_if_gone(false))
}

/// Deletes a volume; one that is gone is deleted.
pub(crate) async fn delete(ec2: &Ec2<'_>, id: &str) -> Result<(), AwsError> {
    let deleted = ec2.client.delete_volume().volume_id(id).send().await;
    deleted.map(drop).map_err(AwsError::of("ec2:DeleteVolume")).or_else(none_if_gone(()))
}
