//! How a bucket keeps its objects: in versions, and encrypted.

use aws_sdk_s3::types as s3;
use serde::{Deserialize, Serialize};
use tfplugin::Attr;

use super::{Bucket, Part, built, or_none, text};
use crate::aws::AwsError;

/// `Enabled` or `Suspended`. A bucket that was versioned once can never be unversioned again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Versioning(pub(in super::super) String);

impl Versioning {
    async fn put(bucket: &Bucket, status: &str) -> Result<(), AwsError> {
        let configuration = s3::VersioningConfiguration::builder().status(status.into()).build();
        let call = bucket.client.put_bucket_versioning().bucket(&bucket.name);
        let sent = call.versioning_configuration(configuration).send().await;
        sent.map(drop).map_err(AwsError::of("s3:PutBucketVersioning"))
    }
}

impl Part for Versioning {
    const ATTRIBUTE: &'static str = "versioning";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let call = bucket.client.get_bucket_versioning().bucket(&bucket.name);
        let found = call.send().await.map_err(AwsError::of("s3:GetBucketVersioning"))?;
        Ok(found.status().map(|status| Self(status.as_str().to_owned())))
    }

    async fn write(&self, bucket: &Bucket) -> Result<(), AwsError> {
        Self::put(bucket, &self.0).await
    }

    async fn remove(bucket: &Bucket) -> Result<(), AwsError> {
        Self::put(bucket, "Suspended").await
    }
}

/// How objects are encrypted that say nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Encryption {
    sse_algorithm: Attr<String>,
    kms_master_key_id: Attr<String>,
    bucket_key_enabled: Attr<bool>,
}

/// The one rule that S3 keeps about the encryption of a bucket.
async fn first_rule(bucket: &Bucket) -> Result<Option<s3::ServerSideEncryptionRule>, AwsError> {
    let call = bucket.client.get_bucket_encryption().bucket(&bucket.name);
    let found = call.send().await.map_err(AwsError::of("s3:GetEncryptionConfiguration"));
    let found = or_none(found, "ServerSideEncryptionConfigurationNotFoundError")?;
    let configuration = found.as_ref().and_then(|found| found.server_side_encryption_configuration());
    Ok(configuration.and_then(|configuration| configuration.rules().first()).cloned())
}

impl Part for Encryption {
    const ATTRIBUTE: &'static str = "server_side_encryption";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let rule = first_rule(bucket).await?;
        let Some((rule, default)) =
            rule.as_ref().and_then(|rule| Some((rule, rule.apply_server_side_encryption_by_default()?)))
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            sse_algorithm: Attr::Known(default.sse_algorithm().as_str().to_owned()),
            kms_master_key_id: text(default.kms_master_key_id()),
            bucket_key_enabled: Attr::Known(rule.bucket_key_enabled().unwrap_or(false)),
        }))
    }

    async fn write(&self, bucket: &Bucket) -> Result<(), AwsError> {
        const ACTION: &str = "s3:PutEncryptionConfiguration";
        let there = first_rule(bucket).await?;
        let algorithm = self.sse_algorithm.known().map_or("AES256", String::as_str);
        let default = s3::ServerSideEncryptionByDefault::builder()
            .sse_algorithm(algorithm.into())
            .set_kms_master_key_id(self.kms_master_key_id.known().cloned())
            .build();
        let rule = s3::ServerSideEncryptionRule::builder()
            .apply_server_side_encryption_by_default(built(ACTION)(default)?)
            .set_bucket_key_enabled(self.bucket_key_enabled.known().copied())
            // S3 takes only whole rules. Which kinds of encryption are blocked, which this resource does not manage,
            // stays as it is.
            .set_blocked_encryption_types(there.and_then(|there| there.blocked_encryption_types().cloned()))
            .build();
        let configuration = s3::ServerSideEncryptionConfiguration::builder().rules(rule).build();
        let call = bucket.client.put_bucket_encryption().bucket(&bucket.name);
        let sent = call.server_side_encryption_configuration(built(ACTION)(configuration)?).send().await;
        sent.map(drop).map_err(AwsError::of(ACTION))
    }

    async fn remove(bucket: &Bucket) -> Result<(), AwsError> {
        let call = bucket.client.delete_bucket_encryption().bucket(&bucket.name);
        call.send().await.map(drop).map_err(AwsError::of("s3:PutEncryptionConfiguration"))
    }
}
