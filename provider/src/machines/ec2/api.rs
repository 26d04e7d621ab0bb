//! The calls of EC2 that the life of an instance consists of.

use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{
    BlockDeviceMapping, EbsBlockDevice, Filter, HttpTokensState, IamInstanceProfileSpecification, Image,
    Instance, InstanceIpv6Address, InstanceLifecycleType, InstanceMarketOptionsRequest,
    InstanceMetadataOptionsRequest, InstanceNetworkInterfaceSpecification, InstanceStateName, MarketType,
    Placement, ResourceType, SpotMarketOptions, TagSpecification,
};
use base64::Engine as _;
use nixos_activator::Secret;
use tfplugin::Attr;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::block::{Ec2Block, MetadataOptions, RootVolume, Spot};
use crate::aws::{
    Aws, AwsError, Beside, CONSISTENCY, MACHINE, Seen, TagModel, TagRules, Tags, eventually_found, to_ec2,
};
use crate::deadline::{Backoff, Deadline, GaveUp};
use crate::settings::known_elements;

/// EC2 in one region.
#[derive(Debug)]
pub(crate) struct Ec2<'a> {
    pub(crate) client: Client,
    pub(crate) region: String,
    aws: &'a Aws,
}

/// What EC2 says while it has not heard yet of an instance it has just made.
const NOT_YET: &[&str] = &["InvalidInstanceID.NotFound"];
/// There is nothing to be had at this price now.
const NO_CAPACITY: &[&str] = &[
    "InsufficientInstanceCapacity",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
];
/// What EC2 says of a thing that an instance is to have and that it does not know. It may have been made a second ago.
const UNKNOWN_THINGS: &[&str] = &[
    "InvalidGroup.NotFound",
    "InvalidKeyPair.NotFound",
    "InvalidNetworkInterfaceID.NotFound",
    "InvalidPlacementGroup.Unknown",
    "InvalidSecurityGroupID.NotFound",
    "InvalidSubnetID.NotFound",
];
/// What EC2 says of an instance profile that it does not know, or whose role it does not know.
const UNKNOWN_PROFILE: &[&str] = &["Invalid IAM Instance Profile", "has no associated IAM Roles"];
/// How long IAM may take to tell EC2 of a profile.
const IAM: Duration = Duration::from_mins(2);

/// How long a thing that EC2 does not know may be too new for it; `None` where the error is about something else.
fn not_heard_of(error: &AwsError) -> Option<Duration> {
    let text = error.to_string();
    if UNKNOWN_PROFILE.iter().any(|said| text.contains(said)) {
        return Some(IAM);
    }
    error.is(UNKNOWN_THINGS).then_some(CONSISTENCY)
}

/// Why an instance is not in the state that was waited for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WaitError {
    /// AWS.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// It took another way.
    #[error("the instance is {found}, not {wanted}{}", reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Elsewhere {
        /// What was waited for.
        wanted: &'static str,
        /// What it is.
        found: String,
        /// What EC2 says about it.
        reason: Option<String>,
    },
    /// It took too long, or the user stopped it.
    #[error("{}", match why { GaveUp::TimedOut => format!("the instance was not {wanted} in time"), GaveUp::Cancelled => "cancelled".to_owned() })]
    GaveUp {
        /// What was waited for.
        wanted: &'static str,
        /// Why waiting ended.
        why: GaveUp,
    },
}

impl<'a> Ec2<'a> {
    pub(crate) async fn new(aws: &'a Aws, region: &str) -> Self {
        Self { client: aws.ec2(region).await, region: region.to_owned(), aws }
    }

    /// The instance and its volumes, perhaps as another machine's refresh saw them a moment ago.
    pub(crate) async fn seen(&self, id: &str, block: &Ec2Block) -> Result<Option<Seen>, AwsError> {
        let volumes = block.volumes.known().into_iter().flatten();
        let ids: Vec<String> = volumes.filter_map(|(_, volume)| volume.volume_id.known().cloned()).collect();
        let beside = Beside { volumes: ids, elastic_ips: !block.elastic_ip.is_null() };
        self.aws.fleet.instance(&self.client, &self.region, id, &beside).await
    }

    /// The same as it is now.
    pub(crate) async fn look(&self, id: &str, block: &Ec2Block) -> Result<Option<Seen>, AwsError> {
        self.changed().await;
        self.seen(id, block).await
    }

    /// The same of an instance that there is, with the addresses it was given: EC2 may not have heard yet of what it
    /// has just made.
    pub(crate) async fn described(
        &self,
        id: &str,
        block: &Ec2Block,
        deadline: &Deadline,
    ) -> Result<Seen, AwsError> {
        let deadline = deadline.at_most(CONSISTENCY);
        let mut backoff = Backoff::default();
        loop {
            let seen = self.look(id, block).await?;
            if let Some(seen) = seen.as_ref().filter(|seen| block.has_addresses(seen)) {
                return Ok(seen.clone());
            }
            if backoff.pause(&deadline).await.is_err() {
                return seen.ok_or_else(|| {
                    AwsError::unexpected("ec2:DescribeInstances", "the instance is not there any more")
                });
            }
        }
    }

    /// The instance that was made by a call with this client token. It is looked for until EC2 should have heard of it.
    pub(crate) async fn made_by(
        &self,
        token: &str,
        cancel: &CancellationToken,
    ) -> Result<Option<String>, AwsError> {
        let made = |instance: &Instance| instance.client_token() == Some(token);
        let look = || async {
            self.changed().await;
            let found = self.aws.fleet.find(&self.client, &self.region, made).await?;
            Ok(found.and_then(|instance| instance.instance_id().map(str::to_owned)))
        };
        eventually_found(look, cancel).await
    }

    /// The image an instance is to be made from.
    pub(crate) async fn image(&self, id: &str) -> Result<Option<Image>, AwsError> {
        let call = self.client.describe_images().image_ids(id);
        match call.send().await.map_err(AwsError::of("ec2:DescribeImages")) {
            Ok(found) => Ok(found.images().first().cloned()),
            Err(error)
                if error.is(&[
                    "InvalidAMIID.NotFound",
                    "InvalidAMIID.Malformed",
                    "InvalidAMIID.Unavailable",
                ]) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes an instance. The same `token` gives the same instance, however often the answer gets lost.
    pub(crate) async fn run(
        &self,
        block: &Ec2Block,
        name: &str,
        image: &Image,
        user_data: Option<&Secret>,
        token: &str,
        deadline: &Deadline,
    ) -> Result<Instance, AwsError> {
        const ACTION: &str = "ec2:RunInstances";
        let text = |value: &tfplugin::Attr<String>| value.known().cloned();
        let tags = machine_tags(block, name);
        let of = |kind| TagSpecification::builder().resource_type(kind).set_tags(Some(to_ec2(&tags))).build();
        let placement = Placement::builder()
            .set_availability_zone(text(&block.availability_zone))
            .set_group_name(text(&block.placement_group))
            .set_tenancy(block.tenancy.known().map(|tenancy| tenancy.as_str().into()))
            .build();
        let encoded = user_data.map(|data| base64::engine::general_purpose::STANDARD.encode(data.expose()));
        let mut call = self
            .client
            .run_instances()
            .client_token(token)
            .min_count(1)
            .max_count(1)
            .set_image_id(text(&block.ami))
            .instance_type(block.instance_type.known().map_or("", String::as_str).into())
            .set_key_name(text(&block.key_name))
            .placement(placement)
            .set_ebs_optimized(block.ebs_optimized.known().copied())
            .metadata_options(metadata(block.metadata_options.known()))
            .set_iam_instance_profile(
                block.instance_profile.known().map(|profile| profile_specification(profile)),
            )
            .set_instance_market_options(block.spot.known().map(market))
            .set_block_device_mappings(block.root_volume.known().map(|volume| vec![root(volume, image)]))
            .tag_specifications(of(ResourceType::Instance))
            .tag_specifications(of(ResourceType::Volume))
            .set_user_data(encoded);
        let groups: Vec<String> = known_elements(&block.security_group_ids).cloned().collect();
        let groups = Some(groups).filter(|groups| !groups.is_empty());
        let ipv6: Vec<_> = known_elements(&block.ipv6_addresses)
            .map(|address| InstanceIpv6Address::builder().ipv6_address(address).build())
            .collect();
        let ipv6 = Some(ipv6).filter(|addresses| !addresses.is_empty());
        let ipv6_count = block.ipv6_address_count.known().copied().filter(|_| ipv6.is_none());
        // A public address is asked for on a network interface, and then everything else about the network is said
        // there too.
        call = match block.associate_public_ip_address.known() {
            None => call
                .set_subnet_id(text(&block.subnet_id))
                .set_private_ip_address(text(&block.private_ip))
                .set_ipv6_address_count(ipv6_count)
                .set_ipv6_addresses(ipv6)
                .set_security_group_ids(groups),
            Some(public) => call.network_interfaces(
                InstanceNetworkInterfaceSpecification::builder()
                    .device_index(0)
                    .delete_on_termination(true)
                    .associate_public_ip_address(*public)
                    .set_subnet_id(text(&block.subnet_id))
                    .set_private_ip_address(text(&block.private_ip))
                    .set_ipv6_address_count(ipv6_count)
                    .set_ipv6_addresses(ipv6)
                    .set_groups(groups)
                    .build(),
            ),
        };
        let send = || async { call.clone().send().await.map_err(AwsError::of(ACTION)) };
        let no_capacity = |error: &AwsError| block.spot.is_known() && error.is(NO_CAPACITY);
        let start = Instant::now();
        // Both kinds of waiting are over when `deadline` is, and what EC2 does not know is waited for only as long as
        // it may be new.
        let passes = |error: &AwsError| {
            no_capacity(error) || not_heard_of(error).is_some_and(|limit| start.elapsed() < limit)
        };
        let answer = deadline.retry(passes, send).await?;
        self.changed().await;
        let made = answer.instances().first().cloned();
        made.ok_or_else(|| AwsError::unexpected(ACTION, "the answer names no instance"))
    }

    /// Waits until the instance is in a state, and says how it looks then.
    pub(crate) async fn wait(
        &self,
        id: &str,
        wanted: &InstanceStateName,
        deadline: &Deadline,
    ) -> Result<Option<Instance>, WaitError> {
        let name = state_word(wanted);
        let mut backoff = Backoff::default();
        loop {
            let answer = self.client.describe_instances().instance_ids(id).send().await;
            let found = match answer.map_err(AwsError::of("ec2:DescribeInstances")) {
                Ok(found) => found
                    .reservations()
                    .iter()
                    .flat_map(|reservation| reservation.instances())
                    .next()
                    .cloned(),
                Err(error) if error.is(NOT_YET) => None,
                Err(error) => return Err(error.into()),
            };
            let state = found.as_ref().and_then(|found| found.state()?.name().cloned());
            match (&state, wanted) {
                (Some(state), wanted) if state == wanted => return Ok(found),
                (None, InstanceStateName::Terminated) => return Ok(None),
                // From here it goes nowhere but away.
                (Some(state @ (InstanceStateName::Terminated | InstanceStateName::ShuttingDown)), wanted)
                    if *wanted != InstanceStateName::Terminated =>
                {
                    let reason =
                        found.as_ref().and_then(|found| found.state_reason()?.message().map(str::to_owned));
                    return Err(WaitError::Elsewhere {
                        wanted: name,
                        found: state.as_str().to_owned(),
                        reason,
                    });
                }
                _ => {}
            }
            if let Err(why) = backoff.pause(deadline).await {
                return Err(WaitError::GaveUp { wanted: name, why });
            }
        }
    }

    /// Shuts the instance down and waits for it.
    pub(crate) async fn stop(&self, id: &str, deadline: &Deadline) -> Result<(), WaitError> {
        let sent = self.client.stop_instances().instance_ids(id).send().await;
        sent.map_err(AwsError::of("ec2:StopInstances"))?;
        self.changed().await;
        self.wait(id, &InstanceStateName::Stopped, deadline).await.map(drop)
    }

    /// Starts the instance and waits until it runs.
    pub(crate) async fn start(&self, id: &str, deadline: &Deadline) -> Result<(), WaitError> {
        let call = || async {
            self.client
                .start_instances()
                .instance_ids(id)
                .send()
                .await
                .map_err(AwsError::of("ec2:StartInstances"))
        };
        // It may still be on its way down.
        let passes = |error: &AwsError| error.is(&["IncorrectInstanceState", "InsufficientInstanceCapacity"]);
        deadline.retry(passes, call).await?;
        self.changed().await;
        self.wait(id, &InstanceStateName::Running, deadline).await.map(drop)
    }

    /// Ends the instance and waits until it is gone. One that is gone already is gone.
    pub(crate) async fn terminate(&self, id: &str, deadline: &Deadline) -> Result<(), WaitError> {
        let sent = self.client.terminate_instances().instance_ids(id).send().await;
        match sent.map_err(AwsError::of("ec2:TerminateInstances")) {
            Err(error) if error.is(NOT_YET) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        self.changed().await;
        self.wait(id, &InstanceStateName::Terminated, deadline).await.map(drop)
    }

    /// Ends the request that would make another instance when this one goes.
    pub(crate) async fn cancel_spot_request(&self, id: &str) -> Result<(), AwsError> {
        let seen = self.look(id, &Ec2Block::default()).await?;
        let request = seen.as_ref().and_then(|seen| seen.instance.spot_instance_request_id());
        let Some(request) = request else { return Ok(()) };
        let call = self.client.cancel_spot_instance_requests().spot_instance_request_ids(request);
        call.send().await.map(drop).map_err(AwsError::of("ec2:CancelSpotInstanceRequests"))
    }

    /// The end of what the machine printed on its console, where EC2 has it.
    pub(crate) async fn console(&self, id: &str) -> Option<String> {
        let answer = self.client.get_console_output().instance_id(id).latest(true).send().await;
        let answer = match answer {
            Ok(answer) => answer,
            // Only newer kinds of machines show the latest output.
            Err(error) if error.code() == Some("UnsupportedOperation") => {
                self.client.get_console_output().instance_id(id).send().await.ok()?
            }
            Err(_) => return None,
        };
        let bytes = base64::engine::general_purpose::STANDARD.decode(answer.output()?.trim()).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let end = lines.get(lines.len().saturating_sub(15)..)?.join("\n");
        (!end.is_empty()).then_some(end)
    }

    /// Whether the instance is protected against termination. Not part of what a description says.
    pub(crate) async fn is_protected(&self, id: &str) -> Result<bool, AwsError> {
        let attribute = aws_sdk_ec2::types::InstanceAttributeName::DisableApiTermination;
        let call = self.client.describe_instance_attribute().instance_id(id).attribute(attribute);
        let answer = call.send().await.map_err(AwsError::of("ec2:DescribeInstanceAttribute"))?;
        Ok(answer.disable_api_termination().and_then(|value| value.value()).unwrap_or(false))
    }

    /// The user data of the instance, where they are text.
    pub(super) async fn user_data(&self, id: &str) -> Result<Option<String>, AwsError> {
        let attribute = aws_sdk_ec2::types::InstanceAttributeName::UserData;
        let call = self.client.describe_instance_attribute().instance_id(id).attribute(attribute);
        let answer = call.send().await.map_err(AwsError::of("ec2:DescribeInstanceAttribute"))?;
        let encoded = answer.user_data().and_then(|data| data.value()).unwrap_or_default();
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok();
        Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok()).filter(|text| !text.is_empty()))
    }

    /// What the instance was asked for with, where it is a spot instance.
    pub(super) async fn spot(&self, instance: &Instance) -> Result<Option<Spot>, AwsError> {
        if instance.instance_lifecycle() != Some(&InstanceLifecycleType::Spot) {
            return Ok(None);
        }
        let Some(id) = instance.spot_instance_request_id() else { return Ok(Some(Spot::default())) };
        let by_id = Filter::builder().name("spot-instance-request-id").values(id).build();
        let found = self.client.describe_spot_instance_requests().filters(by_id).send().await;
        let found = found.map_err(AwsError::of("ec2:DescribeSpotInstanceRequests"))?;
        let Some(request) = found.spot_instance_requests().first() else { return Ok(Some(Spot::default())) };
        Ok(Some(Spot {
            max_price: Attr::from(request.spot_price().map(short_price)),
            kind: Attr::from(request.r#type().map(|kind| kind.as_str().to_owned())),
            interruption_behavior: Attr::from(
                request.instance_interruption_behavior().map(|what| what.as_str().to_owned()),
            ),
        }))
    }

    /// Something was changed.
    pub(crate) async fn changed(&self) {
        self.aws.fleet.forget(&self.region).await;
    }

    /// The tags that everything gets.
    pub(crate) fn tag_rules(&self) -> &TagRules {
        self.aws.tag_rules()
    }
}

/// All tags of an instance: the user's, its name, and the one by which all machines are found.
pub(crate) fn machine_tags(block: &Ec2Block, name: &str) -> Tags {
    let mut tags = TagModel { tags: tfplugin::Attr::Null, tags_all: block.tags_all.clone() }.all();
    tags.entry("Name".to_owned()).or_insert_with(|| name.to_owned());
    tags.insert(MACHINE.to_owned(), name.to_owned());
    tags
}

/// A price as people write it: EC2 says 0.050000 for 0.05.
fn short_price(price: &str) -> String {
    let short = if price.contains('.') { price.trim_end_matches('0').trim_end_matches('.') } else { price };
    short.to_owned()
}

/// A profile by name or by ARN.
pub(crate) fn profile_specification(profile: &str) -> IamInstanceProfileSpecification {
    let builder = IamInstanceProfileSpecification::builder();
    if profile.starts_with("arn:") { builder.arn(profile).build() } else { builder.name(profile).build() }
}

fn metadata(options: Option<&MetadataOptions>) -> InstanceMetadataOptionsRequest {
    let Some(options) = options else {
        return InstanceMetadataOptionsRequest::builder().http_tokens(HttpTokensState::Required).build();
    };
    InstanceMetadataOptionsRequest::builder()
        .set_http_endpoint(options.http_endpoint.known().map(|value| value.as_str().into()))
        .set_http_tokens(options.http_tokens.known().map(|value| value.as_str().into()))
        .set_http_put_response_hop_limit(options.http_put_response_hop_limit.known().copied())
        .set_instance_metadata_tags(options.instance_metadata_tags.known().map(|value| value.as_str().into()))
        .build()
}

fn market(spot: &Spot) -> InstanceMarketOptionsRequest {
    let options = SpotMarketOptions::builder()
        .set_max_price(spot.max_price.known().cloned())
        .set_spot_instance_type(spot.kind.known().map(|kind| kind.as_str().into()))
        .set_instance_interruption_behavior(
            spot.interruption_behavior.known().map(|what| what.as_str().into()),
        )
        .set_valid_until(None::<DateTime>)
        .build();
    InstanceMarketOptionsRequest::builder().market_type(MarketType::Spot).spot_options(options).build()
}

/// The root volume as it differs from what the image says.
fn root(volume: &RootVolume, image: &Image) -> BlockDeviceMapping {
    let device = image.root_device_name().unwrap_or("/dev/xvda");
    let snapshot = image
        .block_device_mappings()
        .iter()
        .find(|mapping| mapping.device_name() == Some(device))
        .and_then(|mapping| mapping.ebs());
    let size = volume.size.known().copied().or_else(|| snapshot.and_then(|ebs| ebs.volume_size()));
    let ebs = EbsBlockDevice::builder()
        .set_volume_size(size)
        .set_volume_type(volume.kind.known().map(|kind| kind.as_str().into()))
        .set_iops(volume.iops.known().copied())
        .set_throughput(volume.throughput.known().copied())
        .set_encrypted(volume.encrypted.known().copied())
        .set_kms_key_id(volume.kms_key_id.known().cloned())
        .delete_on_termination(volume.delete_on_termination.known().copied().unwrap_or(true))
        .build();
    BlockDeviceMapping::builder().device_name(device).ebs(ebs).build()
}

fn state_word(state: &InstanceStateName) -> &'static str {
    match state {
        InstanceStateName::Running => "running",
        InstanceStateName::Stopped => "stopped",
        InstanceStateName::Terminated => "terminated",
        _ => "settled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_as_people_write_them() {
        let prices = ["0.050000", "1.000000", "10", "0.0104"].map(short_price);
        assert_eq!(prices, ["0.05", "1", "10", "0.0104"]);
    }
}
