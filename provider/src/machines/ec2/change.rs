//! From what an instance is to what is planned.

use aws_sdk_ec2::types::{AttributeBooleanValue, AttributeValue, Filter};
use tfplugin::{Attr, Diagnostic, Diagnostics, Path};

use super::api::Ec2;
use super::api::{machine_tags, profile_specification};
use super::block::{Ec2Block, RootVolume, is_same_key};
use super::elastic_ip::elastic_ip;
use super::found::Found;
use super::ipv6::{self, primary};
use super::root_volume::{change_root_volume, check_encryption, own_root_volume, root_volume_of};
use super::volume_identity::device_letter;
use super::volume_map::Volumes;
use super::volumes::{self, Owner};
use crate::aws::{AwsError, difference, retag_ec2};
use crate::deadline::Deadline;
use crate::settings::known_elements;

/// Whether the change is one that only a stopped instance takes, or may be one as long as the new type is not known.
pub(crate) fn needs_stop(before: &Ec2Block, after: &Ec2Block) -> bool {
    before.instance_type != after.instance_type
        || (after.ebs_optimized.is_known() && before.ebs_optimized != after.ebs_optimized)
}

/// What about a plan cannot be done. `found` is what of the machine came with an import.
pub(crate) fn check_change(before: &Ec2Block, after: &Ec2Block, runs: bool, found: &Found) -> Diagnostics {
    let mut problems = Diagnostics::default();
    let block = || Path::root().attribute("ec2");
    let mut say = |path: Path, summary: String, detail: String| {
        problems.push(Diagnostic::error(summary).detail(detail).at(path));
    };
    // A type that is not known yet may be the one that the machine has. Terraform plans again when it is known.
    let is_decided = !after.instance_type.is_unknown();
    if runs && is_decided && needs_stop(before, after) && after.allow_stopping_for_update != Attr::Known(true)
    {
        let (name, from, to) = match (&before.instance_type, &after.instance_type) {
            (Attr::Known(from), Attr::Known(to)) if from != to => ("instance_type", from.clone(), to.clone()),
            _ => ("ebs_optimized", "what it is".to_owned(), "the other".to_owned()),
        };
        say(
            block().attribute(name),
            "The change would stop the machine".to_owned(),
            format!(
                "`{name}` can be changed (from {from} to {to}) only while the machine is stopped. Set \
                 ec2.allow_stopping_for_update = true to have it stopped and started, or power_state = \
                 \"stopped\"."
            ),
        );
    }
    let mut shrinks = |path: Path, what: &str, before: &Attr<i32>, after: &Attr<i32>| {
        if let (Attr::Known(from), Attr::Known(to)) = (before, after)
            && to < from
        {
            say(
                path.attribute("size"),
                "A volume cannot shrink".to_owned(),
                format!(
                    "Found size = {to} for {what}, which has {from} GiB; expected at least that. For a \
                     smaller one, make another volume and copy."
                ),
            );
        }
    };
    if let (Attr::Known(old), Attr::Known(new)) = (&before.root_volume, &after.root_volume) {
        shrinks(block().attribute("root_volume"), "the root volume", &old.size, &new.size);
    }
    let none = Volumes::default();
    let new = after.volumes.known().unwrap_or(&none);
    let mut fixed = vec![];
    for (name, volume) in new {
        let was = before.earlier_volume(new, name, volume, found).filter(|was| was.volume_id.is_known());
        let Some(was) = was else { continue };
        let path = block().attribute("volumes").key(name);
        shrinks(path.clone(), &format!("volume \"{name}\""), &was.size, &volume.size);
        let differs = |before: &Attr<String>, after: &Attr<String>| before != after && !after.is_unknown();
        // A volume that was detached behind our back has no device any more; it gets it back.
        // `sdX` and `xvdX` are one device.
        let letter = |device: &Attr<String>| device.known().map(|device| device_letter(device));
        let moved = was.device.is_known()
            && volume.device.is_known()
            && letter(&was.device) != letter(&volume.device);
        let checks = [
            ("device", moved),
            ("snapshot_id", differs(&was.snapshot_id, &volume.snapshot_id)),
            ("existing_volume_id", !was.may_be_owned_as(volume, found)),
            (
                "kms_key_id",
                differs(&was.kms_key_id, &volume.kms_key_id)
                    && !is_same_key(&was.kms_key_id, &volume.kms_key_id),
            ),
            ("encrypted", was.encrypted != volume.encrypted && !volume.encrypted.is_unknown()),
        ];
        fixed.extend(
            checks
                .iter()
                .filter(|(_, changes)| *changes)
                .map(|(attribute, _)| (path.clone(), name, *attribute)),
        );
    }
    for (path, name, attribute) in fixed {
        say(
            path.attribute(attribute),
            format!("`{attribute}` of a volume cannot be changed"),
            format!(
                "It would take another volume in the place of \"{name}\", without its data. Put it back; \
                 or add a volume under another name, copy what is needed, and remove this one."
            ),
        );
    }
    problems
}

/// Changes what only a stopped instance takes.
pub(crate) async fn while_stopped(
    ec2: &Ec2<'_>,
    id: &str,
    there: &mut Ec2Block,
    planned: &Ec2Block,
) -> Result<(), AwsError> {
    const ACTION: &str = "ec2:ModifyInstanceAttribute";
    let call = || ec2.client.modify_instance_attribute().instance_id(id);
    if there.instance_type != planned.instance_type {
        let value = AttributeValue::builder().set_value(planned.instance_type.known().cloned()).build();
        call().instance_type(value).send().await.map_err(AwsError::of(ACTION))?;
        there.instance_type = planned.instance_type.clone();
    }
    if there.ebs_optimized != planned.ebs_optimized && planned.ebs_optimized.is_known() {
        let value = flag(planned.ebs_optimized.known().copied());
        call().ebs_optimized(value).send().await.map_err(AwsError::of(ACTION))?;
        there.ebs_optimized = planned.ebs_optimized.clone();
    }
    ec2.changed().await;
    Ok(())
}

/// Changes what can be changed while the instance runs; `there` follows each step. `before` is the name the machine
/// had.
pub(crate) async fn apply_changes(
    ec2: &Ec2<'_>,
    id: &str,
    (before, name): (&str, &str),
    there: &mut Ec2Block,
    planned: &Ec2Block,
    deadline: &Deadline,
) -> Result<(), Diagnostic> {
    let at = |attribute: &str| {
        let path = Path::root().attribute("ec2").attribute(attribute);
        let summary = format!("AWS did not change `{attribute}` of machine \"{name}\"");
        move |error: AwsError| error.diagnostic(&summary, path)
    };
    macro_rules! step {
        ($field:ident, $does:expr) => {
            if there.$field != planned.$field && !planned.$field.is_unknown() {
                $does.await.map_err(at(stringify!($field)))?;
                there.$field = planned.$field.clone();
            }
        };
    }
    step!(security_group_ids, groups(ec2, id, planned));
    step!(source_dest_check, source_dest_check(ec2, id, planned));
    step!(disable_api_termination, protection(ec2, id, planned));
    step!(metadata_options, metadata(ec2, id, planned));
    if same_profile(&there.instance_profile, &planned.instance_profile) {
        there.instance_profile = planned.instance_profile.clone();
    }
    step!(instance_profile, profile(ec2, id, planned));
    step!(elastic_ip, elastic_ip(ec2, id, there.elastic_ip.known(), planned, deadline));
    if there.ipv6_addresses != planned.ipv6_addresses
        || there.ipv6_address_count != planned.ipv6_address_count
    {
        ipv6::change(ec2, id, there, planned).await.map_err(at("ipv6_addresses"))?;
    }
    if let Attr::Known(wanted) = &planned.root_volume {
        let now = match &there.root_volume {
            Attr::Known(now) => now.clone(),
            // The configuration did not name it so far, so that the state does not have it.
            _ => root_volume_of(ec2, id).await.map_err(at("root_volume"))?,
        };
        check_encryption(&now, wanted, name)?;
        change_root_volume(ec2, id, &now, wanted, deadline).await.map_err(at("root_volume"))?;
        there.root_volume = Attr::Known(RootVolume { volume_id: now.volume_id, ..wanted.clone() });
    }
    let owner = Owner { ec2, id, name, block: planned };
    let mut volumes = there.volumes.known().cloned().unwrap_or_default();
    let wanted = planned.volumes.known().cloned().unwrap_or_default();
    let done = volumes::change(owner, &mut volumes, &wanted, deadline).await;
    there.volumes = if volumes.is_empty() { planned.volumes.clone() } else { Attr::Known(volumes.clone()) };
    done?;
    let (set, gone) = difference(&machine_tags(there, before), &machine_tags(planned, name));
    let ours = volumes
        .values()
        .filter(|volume| volume.is_ours())
        .filter_map(|volume| volume.volume_id.known().cloned());
    // A volume's `Name` says which one it is.
    let of_volumes = set
        .iter()
        .filter(|(key, _)| *key != "Name")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut volume_ids: Vec<String> = ours.collect();
    if !set.is_empty() || !gone.is_empty() {
        volume_ids.extend(own_root_volume(ec2, id).await.map_err(at("tags"))?);
    }
    retag_ec2(&ec2.client, &[id.to_owned()], &set, &gone).await.map_err(at("tags"))?;
    if !volume_ids.is_empty() {
        retag_ec2(&ec2.client, &volume_ids, &of_volumes, &gone).await.map_err(at("tags"))?;
    }
    (there.tags, there.tags_all) = (planned.tags.clone(), planned.tags_all.clone());
    ec2.changed().await;
    Ok(())
}

fn flag(value: Option<bool>) -> AttributeBooleanValue {
    AttributeBooleanValue::builder().set_value(value).build()
}

/// The first network interface of an instance that has several. EC2 refuses to change such an instance where a change
/// of the interface is meant.
async fn primary_of_several(ec2: &Ec2<'_>, id: &str) -> Result<Option<String>, AwsError> {
    let seen = ec2.look(id, &Ec2Block::default()).await?;
    let interfaces = seen.as_ref().map_or(&[][..], |seen| seen.instance.network_interfaces());
    Ok(primary(interfaces)
        .filter(|_| interfaces.len() > 1)
        .and_then(|interface| interface.network_interface_id().map(str::to_owned)))
}

async fn groups(ec2: &Ec2<'_>, id: &str, planned: &Ec2Block) -> Result<(), AwsError> {
    let groups: Vec<String> = known_elements(&planned.security_group_ids).cloned().collect();
    if let Some(interface) = primary_of_several(ec2, id).await? {
        let call = ec2.client.modify_network_interface_attribute().network_interface_id(interface);
        let sent = call.set_groups(Some(groups)).send().await;
        return sent.map(drop).map_err(AwsError::of("ec2:ModifyNetworkInterfaceAttribute"));
    }
    let call = ec2.client.modify_instance_attribute().instance_id(id).set_groups(Some(groups));
    call.send().await.map(drop).map_err(AwsError::of("ec2:ModifyInstanceAttribute"))
}

async fn source_dest_check(ec2: &Ec2<'_>, id: &str, planned: &Ec2Block) -> Result<(), AwsError> {
    let value = flag(planned.source_dest_check.known().copied());
    if let Some(interface) = primary_of_several(ec2, id).await? {
        let call = ec2.client.modify_network_interface_attribute().network_interface_id(interface);
        let sent = call.source_dest_check(value).send().await;
        return sent.map(drop).map_err(AwsError::of("ec2:ModifyNetworkInterfaceAttribute"));
    }
    let call = ec2.client.modify_instance_attribute().instance_id(id).source_dest_check(value);
    call.send().await.map(drop).map_err(AwsError::of("ec2:ModifyInstanceAttribute"))
}

async fn protection(ec2: &Ec2<'_>, id: &str, planned: &Ec2Block) -> Result<(), AwsError> {
    // What is not managed any more is not protected any more.
    let value = flag(Some(planned.disable_api_termination == Attr::Known(true)));
    let call = ec2.client.modify_instance_attribute().instance_id(id).disable_api_termination(value);
    call.send().await.map(drop).map_err(AwsError::of("ec2:ModifyInstanceAttribute"))
}

async fn metadata(ec2: &Ec2<'_>, id: &str, planned: &Ec2Block) -> Result<(), AwsError> {
    // Without the block, as machines are created without it.
    let options = planned.metadata_options.known().cloned().unwrap_or_default();
    let text = |value: &Attr<String>, default: &str| value.known().map_or(default, String::as_str).to_owned();
    let call = ec2
        .client
        .modify_instance_metadata_options()
        .instance_id(id)
        .http_endpoint(text(&options.http_endpoint, "enabled").as_str().into())
        .http_tokens(text(&options.http_tokens, "required").as_str().into())
        .http_put_response_hop_limit(options.http_put_response_hop_limit.known().copied().unwrap_or(1))
        .instance_metadata_tags(text(&options.instance_metadata_tags, "disabled").as_str().into());
    call.send().await.map(drop).map_err(AwsError::of("ec2:ModifyInstanceMetadataOptions"))
}

/// A profile by name, and the same by ARN.
fn same_profile(one: &Attr<String>, other: &Attr<String>) -> bool {
    let is = |arn: &str, name: &str| arn.starts_with("arn:") && arn.ends_with(&format!("/{name}"));
    match (one, other) {
        (Attr::Known(one), Attr::Known(other)) => is(one, other) || is(other, one),
        _ => false,
    }
}

async fn profile(ec2: &Ec2<'_>, id: &str, planned: &Ec2Block) -> Result<(), AwsError> {
    let of_instance = Filter::builder().name("instance-id").values(id).build();
    let found = ec2.client.describe_iam_instance_profile_associations().filters(of_instance).send().await;
    let found = found.map_err(AwsError::of("ec2:DescribeIamInstanceProfileAssociations"))?;
    let association = found
        .iam_instance_profile_associations()
        .iter()
        .find(|association| association.state().is_none_or(|state| state.as_str().starts_with("associat")))
        .and_then(|association| association.association_id().map(str::to_owned));
    let wanted = planned.instance_profile.known().map(|profile| profile_specification(profile));
    match (association, wanted) {
        (Some(association), Some(wanted)) => {
            let call = ec2.client.replace_iam_instance_profile_association();
            let sent = call.association_id(association).iam_instance_profile(wanted).send().await;
            sent.map(drop).map_err(AwsError::of("ec2:ReplaceIamInstanceProfileAssociation"))
        }
        (None, Some(wanted)) => {
            let call = ec2.client.associate_iam_instance_profile();
            let sent = call.instance_id(id).iam_instance_profile(wanted).send().await;
            sent.map(drop).map_err(AwsError::of("ec2:AssociateIamInstanceProfile"))
        }
        (Some(association), None) => {
            let call = ec2.client.disassociate_iam_instance_profile().association_id(association);
            call.send().await.map(drop).map_err(AwsError::of("ec2:DisassociateIamInstanceProfile"))
        }
        (None, None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machines::ec2::volume_map::Volume;

    fn known(text: &str) -> Attr<String> {
        Attr::Known(text.to_owned())
    }

    /// Nothing of the machine came with an import.
    fn none() -> Found {
        Found::default()
    }

    fn with_volume(volume: Volume) -> Ec2Block {
        Ec2Block {
            volumes: Attr::Known([("data".to_owned(), volume)].into_iter().collect()),
            ..Ec2Block::default()
        }
    }

    fn summaries(found: &Diagnostics) -> Vec<&str> {
        found.iter().map(|one| one.summary.as_str()).collect()
    }

    #[test]
    fn only_who_allows_it_has_a_running_machine_stopped() {
        let before = Ec2Block { instance_type: known("t3.nano"), ..Ec2Block::default() };
        let after = Ec2Block { instance_type: known("t3.micro"), ..Ec2Block::default() };
        assert_eq!(
            summaries(&check_change(&before, &after, true, &none())),
            ["The change would stop the machine"]
        );
        assert!(check_change(&before, &after, false, &none()).is_empty());
        // A type that is not known yet stops no plan.
        let later = Ec2Block { instance_type: Attr::Unknown, ..after.clone() };
        assert!(check_change(&before, &later, true, &none()).is_empty());
        let allowed = Ec2Block { allow_stopping_for_update: Attr::Known(true), ..after };
        assert!(check_change(&before, &allowed, true, &none()).is_empty());
    }

    #[test]
    fn no_plan_loses_the_data_of_a_volume() {
        let volume = Volume {
            device: known("/dev/sdf"),
            size: Attr::Known(10),
            volume_id: known("vol-1"),
            ..Volume::default()
        };
        let change =
            |after: Volume| check_change(&with_volume(volume.clone()), &with_volume(after), true, &none());
        assert!(change(Volume { size: Attr::Known(20), ..volume.clone() }).is_empty());
        assert!(change(Volume { device: known("/dev/xvdf"), ..volume.clone() }).is_empty());
        assert_eq!(
            summaries(&change(Volume { size: Attr::Known(5), ..volume.clone() })),
            ["A volume cannot shrink"]
        );
        assert_eq!(
            summaries(&change(Volume { device: known("/dev/sdg"), ..volume.clone() })),
            ["`device` of a volume cannot be changed"]
        );
        assert_eq!(
            summaries(&change(Volume { snapshot_id: known("snap-1"), ..volume.clone() })),
            ["`snapshot_id` of a volume cannot be changed"]
        );
        // Somebody else's volume is not the machine's because nobody says any more that it is not.
        let others = Volume { existing_volume_id: known("vol-1"), ..volume.clone() };
        let summaries_of = |found: &Found| {
            let found = check_change(&with_volume(others.clone()), &with_volume(volume.clone()), true, found);
            summaries(&found).len()
        };
        assert_eq!(
            (summaries_of(&none()), summaries_of(&Found::in_block(&with_volume(others.clone())))),
            (1, 0)
        );
        assert!(change(others.clone()).is_empty(), "it may be left to itself");
        // One that was detached behind our back gets its device back.
        let detached = with_volume(Volume { device: Attr::Null, ..volume.clone() });
        assert!(check_change(&detached, &with_volume(volume.clone()), true, &none()).is_empty());
    }
}
