//! The IPv6 addresses of an instance: what it has, and how it gets others.

use std::collections::BTreeSet;

use aws_sdk_ec2::types::{Instance, InstanceNetworkInterface};
use tfplugin::Attr;

use super::api::Ec2;
use super::block::Ec2Block;
use crate::aws::{AwsError, Seen};
use crate::settings::known_elements;

/// The first network interface: the one that EC2 makes with the instance.
pub(super) fn primary(interfaces: &[InstanceNetworkInterface]) -> Option<&InstanceNetworkInterface> {
    let is_first = |interface: &&InstanceNetworkInterface| {
        interface.attachment().and_then(|attachment| attachment.device_index()) == Some(0)
    };
    interfaces.iter().find(is_first).or(interfaces.first())
}

/// The IPv6 addresses of the first network interface. The one that EC2 calls primary comes first: it stays as long as
/// the instance.
pub(crate) fn addresses(instance: &Instance) -> Vec<String> {
    let found =
        primary(instance.network_interfaces()).map_or(&[][..], |interface| interface.ipv6_addresses());
    let mut found: Vec<_> = found
        .iter()
        .filter_map(|address| {
            Some((address.is_primary_ipv6() != Some(true), address.ipv6_address()?.to_owned()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, address)| address).collect()
}

impl Ec2Block {
    /// Whether EC2 shows all addresses that the machine is to have.
    pub(super) fn has_addresses(&self, seen: &Seen) -> bool {
        let wanted = self.ipv6_address_count.known().and_then(|count| usize::try_from(*count).ok());
        let wanted = wanted.unwrap_or_default().max(known_elements(&self.ipv6_addresses).count());
        self.elastic_ip.known().is_none_or(|elastic| seen.elastic_ips.contains_key(elastic))
            && addresses(&seen.instance).len() >= wanted
    }

    /// Takes over which IPv6 addresses there are.
    pub(super) fn take_ipv6(&mut self, instance: &Instance) {
        let found = addresses(instance);
        self.ipv6_address_count = Attr::Known(i32::try_from(found.len()).unwrap_or(i32::MAX));
        self.ipv6_addresses = Attr::Known(found.into_iter().map(Attr::Known).collect());
    }
}

/// Gives the instance the planned addresses, or as many as planned, and takes others away; `there` follows each step.
pub(super) async fn change(
    ec2: &Ec2<'_>,
    id: &str,
    there: &mut Ec2Block,
    planned: &Ec2Block,
) -> Result<(), AwsError> {
    let Some(seen) = ec2.look(id, &Ec2Block::default()).await? else { return Ok(()) };
    let interface = primary(seen.instance.network_interfaces());
    let interface = interface.and_then(|interface| interface.network_interface_id()).unwrap_or_default();
    let has = addresses(&seen.instance);
    let (more, count, fewer) = match (&planned.ipv6_addresses, planned.ipv6_address_count.known()) {
        (Attr::Known(_), _) => {
            let wanted: BTreeSet<&String> = known_elements(&planned.ipv6_addresses).collect();
            let more =
                wanted.iter().filter(|address| !has.contains(address)).map(|address| (*address).clone());
            let fewer = has.iter().filter(|address| !wanted.contains(address)).cloned();
            (more.collect(), 0, fewer.collect())
        }
        (_, Some(count)) => {
            let count = usize::try_from(*count).unwrap_or_default();
            // The last ones go, so that the address by which the machine is known stays.
            (vec![], count.saturating_sub(has.len()), has.iter().skip(count).cloned().collect())
        }
        _ => (vec![], 0, Vec::<String>::new()),
    };
    if !more.is_empty() || count > 0 {
        let call = ec2.client.assign_ipv6_addresses().network_interface_id(interface);
        let call = match i32::try_from(count) {
            Ok(count) if count > 0 => call.ipv6_address_count(count),
            _ => call.set_ipv6_addresses(Some(more)),
        };
        call.send().await.map_err(AwsError::of("ec2:AssignIpv6Addresses"))?;
    }
    if !fewer.is_empty() {
        let call = ec2.client.unassign_ipv6_addresses().network_interface_id(interface);
        let sent = call.set_ipv6_addresses(Some(fewer)).send().await;
        sent.map_err(AwsError::of("ec2:UnassignIpv6Addresses"))?;
    }
    ec2.changed().await;
    if let Some(seen) = ec2.look(id, &Ec2Block::default()).await? {
        there.take_ipv6(&seen.instance);
    }
    Ok(())
}
