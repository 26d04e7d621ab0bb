//! Calls of S3 about a bucket itself: where it is, that it goes, its tags.

use std::time::Duration;

use aws_sdk_s3::types::{BucketLocationConstraint, Tag, Tagging};
use tfplugin::{Diagnostic, Path};
use tokio_util::sync::CancellationToken;

use super::parts::Bucket;
use crate::aws::{Aws, AwsError, Tags};
use crate::deadline::Deadline;

/// How long S3 may take to know of a bucket it has just made, or to finish another change of it.
pub(super) const CONSISTENCY: Duration = Duration::from_mins(2);

/// A bucket of some name that is there.
pub(super) struct Existing {
    /// Its region; `None` where the server does not say it.
    pub(super) region: Option<String>,
}

/// The bucket; `None` where no account has one of this name.
///
/// # Errors
///
/// Also where a bucket of this name is there and these credentials must not see it ([`AwsError::is_denied`]): most
/// likely it belongs to another account.
pub(super) async fn find(bucket: &Bucket) -> Result<Option<Existing>, AwsError> {
    let found = bucket.client.head_bucket().bucket(&bucket.name).send().await;
    match found.map_err(AwsError::of("s3:ListBucket")) {
        Ok(found) => Ok(Some(Existing { region: found.bucket_region().map(str::to_owned) })),
        Err(error) if error.status() == Some(404) => Ok(None),
        // S3 sends whoever asks in another region there, and the SDK does not go.
        Err(error) if matches!(error.status(), Some(301 | 307)) && error.bucket_region().is_some() => {
            Ok(Some(Existing { region: error.bucket_region().map(str::to_owned) }))
        }
        Err(error) => Err(error),
    }
}

/// Where a bucket is.
pub(super) async fn location(aws: &Aws, name: &str) -> Result<String, Diagnostic> {
    let region = aws.region(None, &Path::root()).await?;
    let client = aws.s3(&region).await;
    // Every region answers this one, at least with the region to ask.
    match find(&Bucket { client: client.clone(), name: name.to_owned() }).await {
        Ok(Some(Existing { region: Some(region) })) => return Ok(region),
        Err(error) if error.bucket_region().is_some_and(|found| found != region) => {
            return Ok(error.bucket_region().unwrap_or_default().to_owned());
        }
        _ => {}
    }
    let call = client.get_bucket_location().bucket(name);
    match call.send().await.map_err(AwsError::of("s3:GetBucketLocation")) {
        Ok(found) => Ok(match found.location_constraint().map(BucketLocationConstraint::as_str) {
            None | Some("") => "us-east-1".to_owned(),
            Some("EU") => "eu-west-1".to_owned(),
            Some(region) => region.to_owned(),
        }),
        Err(error) if error.is(&["NoSuchBucket"]) => Err(no_bucket(name)),
        Err(error) => {
            Err(error.diagnostic(&format!("AWS did not say where bucket \"{name}\" is"), Path::root()))
        }
    }
}

pub(super) fn no_bucket(name: &str) -> Diagnostic {
    Diagnostic::error(format!("There is no bucket \"{name}\""))
        .detail("Expected the name of a bucket of this account, or REGION:NAME.")
}

/// Deletes an empty bucket; one that is gone is deleted.
pub(super) async fn remove(bucket: &Bucket, cancel: &CancellationToken) -> Result<(), AwsError> {
    let deadline = Deadline::new(CONSISTENCY, cancel);
    let call = || async {
        bucket
            .client
            .delete_bucket()
            .bucket(&bucket.name)
            .send()
            .await
            .map_err(AwsError::of("s3:DeleteBucket"))
    };
    match deadline.retry(|error| error.is(&["OperationAborted"]), call).await {
        Err(error) if !error.is(&["NoSuchBucket"]) => Err(error),
        _ => Ok(()),
    }
}

pub(super) async fn read_tags(bucket: &Bucket) -> Result<Tags, AwsError> {
    let found = bucket.client.get_bucket_tagging().bucket(&bucket.name).send().await;
    match found.map_err(AwsError::of("s3:GetBucketTagging")) {
        Ok(found) => {
            Ok(found.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect())
        }
        Err(error) if error.is(&["NoSuchTagSet"]) => Ok(Tags::new()),
        Err(error) => Err(error),
    }
}

pub(super) async fn write_tags(bucket: &Bucket, tags: &Tags) -> Result<(), AwsError> {
    const ACTION: &str = "s3:PutBucketTagging";
    if tags.is_empty() {
        let sent = bucket.client.delete_bucket_tagging().bucket(&bucket.name).send().await;
        return sent.map(drop).map_err(AwsError::of(ACTION));
    }
    let set = tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
    let set = set.collect::<Result<Vec<_>, _>>();
    let tagging = set.and_then(|set| Tagging::builder().set_tag_set(Some(set)).build());
    let tagging = tagging.map_err(|error| AwsError::unexpected(ACTION, &error.to_string()))?;
    let call = bucket.client.put_bucket_tagging().bucket(&bucket.name).tagging(tagging);
    call.send().await.map(drop).map_err(AwsError::of(ACTION))
}
