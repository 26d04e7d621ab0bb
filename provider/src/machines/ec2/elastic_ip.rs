//! The elastic address of an instance.

use aws_sdk_ec2::types::Address;
use tfplugin::Attr;

use super::api::Ec2;
use super::block::Ec2Block;
use crate::aws::{AwsError, CONSISTENCY};
use crate::deadline::{Backoff, Deadline};

/// Takes the address `before` from the instance, and gives it the planned one.
pub(super) async fn elastic_ip(
    ec2: &Ec2<'_>,
    id: &str,
    before: Option<&String>,
    planned: &Ec2Block,
    deadline: &Deadline,
) -> Result<(), AwsError> {
    if let Some(before) = before {
        let found = ec2.client.describe_addresses().allocation_ids(before).send().await;
        let found = match found.map_err(AwsError::of("ec2:DescribeAddresses")) {
            Ok(found) => found.addresses().first().cloned(),
            Err(error) if error.is(&["InvalidAllocationID.NotFound"]) => None,
            Err(error) => return Err(error),
        };
        let ours = found.filter(|address| address.instance_id() == Some(id));
        if let Some(association) = ours.as_ref().and_then(|address| address.association_id()) {
            let sent = ec2.client.disassociate_address().association_id(association).send().await;
            sent.map_err(AwsError::of("ec2:DisassociateAddress"))?;
            if let (Attr::Null, Some(address)) =
                (&planned.elastic_ip, ours.as_ref().and_then(Address::public_ip))
            {
                until_address_is_gone(ec2, id, address, deadline).await?;
            }
        }
    }
    let Some(allocation) = planned.elastic_ip.known() else { return Ok(()) };
    // Never from another machine: whoever has it has to give it up first.
    let call =
        ec2.client.associate_address().allocation_id(allocation).instance_id(id).allow_reassociation(false);
    call.send().await.map(drop).map_err(AwsError::of("ec2:AssociateAddress"))
}

/// Waits until EC2 shows the instance without an address that was taken from it, and, where the subnet gives it one
/// of its own in exchange, with that. It goes on where EC2 is slow: the next refresh sees the rest.
async fn until_address_is_gone(
    ec2: &Ec2<'_>,
    id: &str,
    address: &str,
    deadline: &Deadline,
) -> Result<(), AwsError> {
    let deadline = deadline.at_most(CONSISTENCY);
    let mut backoff = Backoff::default();
    loop {
        let seen = ec2.look(id, &Ec2Block::default()).await?;
        let has = seen.as_ref().is_some_and(|seen| seen.instance.public_ip_address() == Some(address));
        if !has || backoff.pause(&deadline).await.is_err() {
            return Ok(());
        }
    }
}
