//! What EC2 is asked about a key pair, and what is made of its answers.

use aws_sdk_ec2::Client;
use aws_sdk_ec2::primitives::Blob;
use aws_sdk_ec2::types::{Filter, KeyPairInfo, ResourceType, Tag, TagSpecification};
use nixos_activator::ssh::normalized_public_key;
use tfplugin::{Attr, Diagnostic};
use tokio_util::sync::CancellationToken;

use super::model::Model;
use crate::aws::{Aws, AwsError, CONSISTENCY, TagModel, eventually_found};
use crate::deadline::Deadline;

/// What EC2 calls a key pair that is there already.
const DUPLICATE: &[&str] = &["InvalidKeyPair.Duplicate"];

/// The key pair of this name, if there is one.
pub(super) async fn find(client: &Client, name: &str) -> Result<Option<KeyPairInfo>, AwsError> {
    let by_name = Filter::builder().name("key-name").values(name).build();
    let call = client.describe_key_pairs().filters(by_name).include_public_key(true);
    let answer = call.send().await.map_err(AwsError::of("ec2:DescribeKeyPairs"))?;
    // Filters know wildcards; names may contain them.
    Ok(answer.key_pairs().iter().find(|pair| pair.key_name() == Some(name)).cloned())
}

/// The instances that were launched with the key pair of this name and are not ended: their users go on having its
/// public key, whatever becomes of the key pair. By name, where they have one, and id.
pub(super) async fn launched_with(client: &Client, name: &str) -> Result<Vec<String>, AwsError> {
    let by = |filter: &str, values: &[&str]| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        Filter::builder().name(filter).set_values(Some(values)).build()
    };
    let pages = client
        .describe_instances()
        .filters(by("key-name", &[name]))
        .filters(by("instance-state-name", &["pending", "running", "stopping", "stopped"]))
        .into_paginator();
    let mut pages = pages.send();
    let mut found = vec![];
    while let Some(page) = pages.next().await {
        let page = page.map_err(AwsError::of("ec2:DescribeInstances"))?;
        for instance in page.reservations().iter().flat_map(|reservation| reservation.instances()) {
            let id = instance.instance_id().unwrap_or_default();
            // Filters know wildcards; names may contain them.
            if instance.key_name() == Some(name) {
                let tag = instance.tags().iter().find(|tag| tag.key() == Some("Name"));
                found.push(match tag.and_then(|tag| tag.value()).filter(|name| !name.is_empty()) {
                    Some(name) => format!("{name} ({id})"),
                    None => id.to_owned(),
                });
            }
        }
    }
    found.sort();
    Ok(found)
}

impl Model {
    /// Whether this is what was made here: by its id, or by its key as long as the id is not known.
    pub(super) fn is(&self, found: &KeyPairInfo) -> bool {
        match (&self.key_pair_id, &self.public_key) {
            (Attr::Known(id), _) => found.key_pair_id() == Some(id),
            (_, Attr::Known(key)) => {
                found.public_key().and_then(normalized_public_key) == normalized_public_key(key)
            }
            _ => false,
        }
    }

    /// What has its name by now. One of which nobody knows whether it was made is looked for until EC2 should have
    /// heard of it.
    pub(super) async fn find(
        &self,
        client: &Client,
        cancel: &CancellationToken,
    ) -> Result<Option<KeyPairInfo>, AwsError> {
        let look = || find(client, self.name());
        if self.is_open() { eventually_found(look, cancel).await } else { look().await }
    }

    /// Sends the public half to EC2. An error comes with whether the key pair may be there all the same.
    pub(super) async fn import(
        &self,
        client: &Client,
        public: &str,
        cancel: &CancellationToken,
    ) -> Result<KeyPairInfo, (Diagnostic, bool)> {
        let tags =
            self.all_tags().into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        let tags: Vec<Tag> = tags.collect();
        let specification = TagSpecification::builder()
            .resource_type(ResourceType::KeyPair)
            .set_tags(Some(tags.clone()))
            .build();
        let mut call = client.import_key_pair().key_name(self.name()).public_key_material(Blob::new(public));
        if !tags.is_empty() {
            call = call.tag_specifications(specification);
        }
        match call.send().await.map_err(AwsError::of("ec2:ImportKeyPair")) {
            Ok(_) => {}
            // It was not there a moment ago: this is what a try did whose answer got lost, if it is this very key.
            Err(error) if error.is(DUPLICATE) => {}
            Err(error) => return Err((self.problem("create")(error.clone()), error.is_open())),
        }
        // EC2 may not have heard yet of what it has just made.
        let deadline = Deadline::new(CONSISTENCY, cancel);
        let look = || async {
            find(client, self.name()).await?.ok_or_else(|| {
                AwsError::unexpected("ec2:DescribeKeyPairs", "the key pair is not there after it was created")
            })
        };
        let found = deadline.retry(|error| !error.is_denied(), look).await;
        let found = found.map_err(|error| (self.problem("read")(error), true))?;
        match found.public_key().and_then(normalized_public_key) {
            Some(there) if there != public => Err((self.duplicate(), false)),
            _ => Ok(found),
        }
    }

    /// Takes over what EC2 says.
    pub(super) fn take(&mut self, found: &KeyPairInfo, aws: &Aws) {
        let there = found.public_key().and_then(normalized_public_key);
        let here = self.public_key.known().and_then(|key| normalized_public_key(key));
        let other_fingerprint =
            self.fingerprint.known().is_some_and(|known| Some(known.as_str()) != found.key_fingerprint());
        match there {
            Some(there) if Some(&there) != here.as_ref() => self.public_key = Attr::Known(there),
            None if other_fingerprint || here.is_none() => self.public_key = Attr::Null,
            _ => {}
        }
        self.id = self.key_name.clone();
        self.key_pair_id = Attr::from(found.key_pair_id().map(str::to_owned));
        self.key_type = Attr::from(found.key_type().map(|kind| kind.as_str().to_owned()));
        self.fingerprint = Attr::from(found.key_fingerprint().map(str::to_owned));
        let mut tags = TagModel { tags: self.tags.clone(), tags_all: Attr::Null };
        tags.read(&crate::aws::ec2_tags(found.tags()), aws.tag_rules());
        (self.tags, self.tags_all) = (tags.tags, tags.tags_all);
    }
}
