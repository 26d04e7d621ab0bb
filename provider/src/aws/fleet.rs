//! Instances and volumes of a region, looked up for all machines at once.
//!
//! Terraform refreshes each machine by a call of its own. Everything the provider makes has the tag `nixos:machine`,
//! so the first call of a region asks for all of them and the others find their answer there: two calls a region
//! instead of two a machine. What has lost the tag, or was imported, is asked for by its id.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{Address, Filter, Instance, Volume};
use tokio::time::Instant;

use super::AwsError;
use super::tags::MACHINE;

/// How old an answer may be. A refresh is over sooner; a later one in the same process has to ask again.
const FRESH: Duration = Duration::from_secs(10);

/// The machines of each region, as far as they were asked for.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    regions: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Option<Snapshot>>>>>,
}

#[derive(Debug)]
struct Snapshot {
    taken: Instant,
    instances: HashMap<String, Instance>,
    volumes: HashMap<String, Volume>,
    /// The elastic addresses that an instance has, by allocation id, once a caller asked for them.
    addresses: Option<HashMap<String, ElasticAddress>>,
}

/// An elastic address and the instance that has it.
#[derive(Clone, Debug)]
struct ElasticAddress {
    instance: String,
    public_ip: String,
}

/// An instance and what is attached to it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) instance: Instance,
    pub(crate) volumes: HashMap<String, Volume>,
    /// Its elastic addresses by allocation id, each as `198.51.100.7`, where they were asked for.
    pub(crate) elastic_ips: BTreeMap<String, String>,
}

/// What to look at beside an instance and what is attached to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beside {
    /// Volumes, even if they are not attached.
    pub(crate) volumes: Vec<String>,
    /// Its elastic addresses: a call more for each region.
    pub(crate) elastic_ips: bool,
}

impl Fleet {
    /// The instance of this id with what is attached and what else is asked for; `None` where there is no such
    /// instance, or none any more that EC2 remembers.
    pub(crate) async fn instance(
        &self,
        client: &Client,
        region: &str,
        id: &str,
        beside: &Beside,
    ) -> Result<Option<Seen>, AwsError> {
        let slot = self.slot(region);
        // Whoever comes while somebody asks waits for that answer.
        let mut slot = slot.lock().await;
        let snapshot = current(&mut slot, client).await?;
        if !snapshot.instances.contains_key(id) {
            let found = instances(client, by("instance-id", [id])).await?;
            snapshot
                .instances
                .extend(found.into_iter().filter_map(|found| Some((found.instance_id()?.to_owned(), found))));
        }
        let Some(instance) = snapshot.instances.get(id).cloned() else { return Ok(None) };
        let mut wanted = volume_ids(&instance);
        wanted.extend(beside.volumes.iter().cloned());
        let missing: Vec<&str> =
            wanted.iter().map(String::as_str).filter(|id| !snapshot.volumes.contains_key(*id)).collect();
        if !missing.is_empty() {
            let found = volumes(client, by("volume-id", missing)).await?;
            snapshot
                .volumes
                .extend(found.into_iter().filter_map(|found| Some((found.volume_id()?.to_owned(), found))));
        }
        let volumes =
            wanted.into_iter().filter_map(|id| Some((id.clone(), snapshot.volumes.get(&id)?.clone())));
        let volumes = volumes.collect();
        let mut elastic_ips = BTreeMap::new();
        if beside.elastic_ips {
            if snapshot.addresses.is_none() {
                snapshot.addresses = Some(addresses(client).await?);
            }
            let all = snapshot.addresses.iter().flatten();
            let of_instance = all.filter(|(_, address)| address.instance == id);
            elastic_ips.extend(
                of_instance.map(|(allocation, address)| (allocation.clone(), address.public_ip.clone())),
            );
        }
        Ok(Some(Seen { instance, volumes, elastic_ips }))
    }

    /// The instance of which something holds, among those with the tag.
    pub(crate) async fn find(
        &self,
        client: &Client,
        region: &str,
        holds: impl Fn(&Instance) -> bool,
    ) -> Result<Option<Instance>, AwsError> {
        let slot = self.slot(region);
        let mut slot = slot.lock().await;
        let snapshot = current(&mut slot, client).await?;
        Ok(snapshot.instances.values().find(|instance| holds(instance)).cloned())
    }

    /// Something was changed: what was seen before is not true any more.
    pub(crate) async fn forget(&self, region: &str) {
        *self.slot(region).lock().await = None;
    }

    fn slot(&self, region: &str) -> Arc<tokio::sync::Mutex<Option<Snapshot>>> {
        self.regions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(region.to_owned())
            .or_default()
            .clone()
    }
}

impl Snapshot {
    async fn take(client: &Client) -> Result<Self, AwsError> {
        let taken = Instant::now();
        let (instances, volumes) = tokio::try_join!(
            instances(client, by("tag-key", [MACHINE])),
            volumes(client, by("tag-key", [MACHINE]))
        )?;
        Ok(Self {
            taken,
            addresses: None,
            instances: instances
                .into_iter()
                .filter_map(|found| Some((found.instance_id()?.to_owned(), found)))
                .collect(),
            volumes: volumes
                .into_iter()
                .filter_map(|found| Some((found.volume_id()?.to_owned(), found)))
                .collect(),
        })
    }
}

/// What was seen a moment ago, or is now.
async fn current<'a>(slot: &'a mut Option<Snapshot>, client: &Client) -> Result<&'a mut Snapshot, AwsError> {
    match slot.take() {
        Some(snapshot) if snapshot.taken.elapsed() <= FRESH => Ok(slot.insert(snapshot)),
        _ => Ok(slot.insert(Snapshot::take(client).await?)),
    }
}

/// The ids of what is attached, the root volume included.
pub(crate) fn volume_ids(instance: &Instance) -> BTreeSet<String> {
    let id = |mapping: &aws_sdk_ec2::types::InstanceBlockDeviceMapping| {
        mapping.ebs()?.volume_id().map(str::to_owned)
    };
    instance.block_device_mappings().iter().filter_map(id).collect()
}

fn by<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.into_iter().map(str::to_owned).collect())).build()
}

/// A filter and not a list of ids: one id that is gone must not spoil the answer for the others.
async fn instances(client: &Client, filter: Filter) -> Result<Vec<Instance>, AwsError> {
    let pages = client.describe_instances().filters(filter).max_results(1000).into_paginator();
    let mut pages = pages.send();
    let mut found = vec![];
    while let Some(page) = pages.next().await {
        let page = page.map_err(AwsError::of("ec2:DescribeInstances"))?;
        found.extend(page.reservations().iter().flat_map(|reservation| reservation.instances().to_vec()));
    }
    Ok(found)
}

async fn addresses(client: &Client) -> Result<HashMap<String, ElasticAddress>, AwsError> {
    let found = client.describe_addresses().send().await.map_err(AwsError::of("ec2:DescribeAddresses"))?;
    let of_instance = |address: &Address| {
        let instance = address.instance_id().filter(|id| !id.is_empty())?.to_owned();
        let public_ip = address.public_ip()?.to_owned();
        Some((address.allocation_id()?.to_owned(), ElasticAddress { instance, public_ip }))
    };
    Ok(found.addresses().iter().filter_map(of_instance).collect())
}

async fn volumes(client: &Client, filter: Filter) -> Result<Vec<Volume>, AwsError> {
    let pages = client.describe_volumes().filters(filter).max_results(1000).into_paginator();
    let mut pages = pages.items().send();
    let mut found = vec![];
    while let Some(volume) = pages.next().await {
        found.push(volume.map_err(AwsError::of("ec2:DescribeVolumes"))?);
    }
    Ok(found)
}
