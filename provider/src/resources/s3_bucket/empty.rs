//! Emptying a bucket: objects, old versions, delete markers, uploads that never ended.

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use tokio_util::sync::CancellationToken;

use super::parts::Bucket;
use crate::aws::AwsError;

/// Removes everything in the bucket, a page (1000) at a time.
pub(super) async fn empty(bucket: &Bucket, cancel: &CancellationToken) -> Result<(), AwsError> {
    abort_uploads(bucket, cancel).await?;
    loop {
        let call = bucket.client.list_object_versions().bucket(&bucket.name);
        let page = call.send().await.map_err(AwsError::of("s3:ListBucketVersions"))?;
        let versions = page.versions().iter().map(|version| (version.key(), version.version_id()));
        let markers = page.delete_markers().iter().map(|marker| (marker.key(), marker.version_id()));
        let objects: Vec<ObjectIdentifier> = versions
            .chain(markers)
            .filter_map(|(key, version)| {
                ObjectIdentifier::builder().key(key?).set_version_id(version.map(str::to_owned)).build().ok()
            })
            .collect();
        if objects.is_empty() {
            return Ok(());
        }
        delete(bucket, objects).await?;
        if cancel.is_cancelled() {
            return Err(AwsError::unexpected(
                "s3:DeleteObjectVersion",
                "cancelled; the bucket is partly emptied",
            ));
        }
    }
}

async fn delete(bucket: &Bucket, objects: Vec<ObjectIdentifier>) -> Result<(), AwsError> {
    const ACTION: &str = "s3:DeleteObjectVersion";
    let what = Delete::builder().set_objects(Some(objects)).quiet(true).build();
    let what = what.map_err(|error| AwsError::unexpected(ACTION, &error.to_string()))?;
    let call = bucket.client.delete_objects().bucket(&bucket.name).delete(what);
    let done = call.send().await.map_err(AwsError::of(ACTION))?;
    // The call as a whole succeeds also where single objects stay.
    match done.errors().first() {
        None => Ok(()),
        Some(error) => {
            let (key, code) = (error.key().unwrap_or("?"), error.code().unwrap_or("?"));
            let message = format!("{key}: {code}: {}", error.message().unwrap_or("no reason given"));
            Err(AwsError::unexpected(ACTION, &message))
        }
    }
}

async fn abort_uploads(bucket: &Bucket, cancel: &CancellationToken) -> Result<(), AwsError> {
    loop {
        let call = bucket.client.list_multipart_uploads().bucket(&bucket.name);
        let page = call.send().await.map_err(AwsError::of("s3:ListBucketMultipartUploads"))?;
        let uploads: Vec<_> =
            page.uploads().iter().filter_map(|upload| Some((upload.key()?, upload.upload_id()?))).collect();
        for (key, id) in &uploads {
            let call = bucket.client.abort_multipart_upload().bucket(&bucket.name).key(*key).upload_id(*id);
            match call.send().await.map_err(AwsError::of("s3:AbortMultipartUpload")) {
                Err(error) if !error.is(&["NoSuchUpload"]) => return Err(error),
                _ => {}
            }
        }
        if uploads.is_empty() || page.is_truncated() != Some(true) || cancel.is_cancelled() {
            return Ok(());
        }
    }
}
