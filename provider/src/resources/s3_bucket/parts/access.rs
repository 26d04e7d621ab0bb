//! Who may get at a bucket and what is in it: policy, ownership, and what may be public.

use aws_sdk_s3::types as s3;
use serde::{Deserialize, Serialize};
use tfplugin::Attr;

use super::super::policy;
use super::{Bucket, Part, built, or_none};
use crate::aws::AwsError;

/// The bucket policy, as the user wrote it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Policy(pub(in super::super) String);

impl Part for Policy {
    const ATTRIBUTE: &'static str = "policy";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let call = bucket.client.get_bucket_policy().bucket(&bucket.name);
        let found = call.send().await.map_err(AwsError::of("s3:GetBucketPolicy"));
        let found = or_none(found, "NoSuchBucketPolicy")?;
        Ok(found.and_then(|found| {
            found.policy().filter(|text| !text.is_empty()).map(|text| Self(text.to_owned()))
        }))
    }

    async fn write(&self, bucket: &Bucket) -> Result<(), AwsError> {
        let call = bucket.client.put_bucket_policy().bucket(&bucket.name).policy(&self.0);
        call.send().await.map(drop).map_err(AwsError::of("s3:PutBucketPolicy"))
    }

    async fn remove(bucket: &Bucket) -> Result<(), AwsError> {
        let call = bucket.client.delete_bucket_policy().bucket(&bucket.name);
        call.send().await.map(drop).map_err(AwsError::of("s3:DeleteBucketPolicy"))
    }

    fn same(&self, other: &Self) -> bool {
        policy::same(&self.0, &other.0)
    }
}

/// Who owns objects that others put into the bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ownership(pub(in super::super) String);

impl Ownership {
    async fn put(bucket: &Bucket, ownership: &str) -> Result<(), AwsError> {
        const ACTION: &str = "s3:PutBucketOwnershipControls";
        let rule = s3::OwnershipControlsRule::builder().object_ownership(ownership.into()).build();
        let controls = s3::OwnershipControls::builder().rules(built(ACTION)(rule)?).build();
        let call = bucket.client.put_bucket_ownership_controls().bucket(&bucket.name);
        let sent = call.ownership_controls(built(ACTION)(controls)?).send().await;
        sent.map(drop).map_err(AwsError::of(ACTION))
    }
}

impl Part for Ownership {
    const ATTRIBUTE: &'static str = "object_ownership";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let call = bucket.client.get_bucket_ownership_controls().bucket(&bucket.name);
        let found = call.send().await.map_err(AwsError::of("s3:GetBucketOwnershipControls"));
        let found = or_none(found, "OwnershipControlsNotFoundError")?;
        let rule = found
            .as_ref()
            .and_then(|found| found.ownership_controls())
            .and_then(|controls| controls.rules().first());
        Ok(rule.map(|rule| Self(rule.object_ownership().as_str().to_owned())))
    }

    async fn write(&self, bucket: &Bucket) -> Result<(), AwsError> {
        Self::put(bucket, &self.0).await
    }

    async fn remove(bucket: &Bucket) -> Result<(), AwsError> {
        Self::put(bucket, "BucketOwnerEnforced").await
    }
}

/// What may be public.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PublicAccessBlock {
    block_public_acls: Attr<bool>,
    block_public_policy: Attr<bool>,
    ignore_public_acls: Attr<bool>,
    restrict_public_buckets: Attr<bool>,
}

impl Part for PublicAccessBlock {
    const ATTRIBUTE: &'static str = "public_access_block";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let call = bucket.client.get_public_access_block().bucket(&bucket.name);
        let found = call.send().await.map_err(AwsError::of("s3:GetBucketPublicAccessBlock"));
        let found = or_none(found, "NoSuchPublicAccessBlockConfiguration")?;
        let block = found.as_ref().and_then(|found| found.public_access_block_configuration());
        let flag = |flag: Option<bool>| Attr::Known(flag.unwrap_or(false));
        Ok(block.map(|block| Self {
            block_public_acls: flag(block.block_public_acls()),
            block_public_policy: flag(block.block_public_policy()),
            ignore_public_acls: flag(block.ignore_public_acls()),
            restrict_public_buckets: flag(block.restrict_public_buckets()),
        }))
    }

    async fn write(&self, bucket: &Bucket) -> Result<(), AwsError> {
        // What is not said is blocked, as AWS does it for new buckets.
        let flag = |flag: &Attr<bool>| flag.known().copied().unwrap_or(true);
        let block = s3::PublicAccessBlockConfiguration::builder()
            .block_public_acls(flag(&self.block_public_acls))
            .block_public_policy(flag(&self.block_public_policy))
            .ignore_public_acls(flag(&self.ignore_public_acls))
            .restrict_public_buckets(flag(&self.restrict_public_buckets))
            .build();
        let call = bucket.client.put_public_access_block().bucket(&bucket.name);
        let sent = call.public_access_block_configuration(block).send().await;
        sent.map(drop).map_err(AwsError::of("s3:PutBucketPublicAccessBlock"))
    }

    async fn remove(bucket: &Bucket) -> Result<(), AwsError> {
        Self::default().write(bucket).await
    }
}
