//! The configurations that S3 keeps beside a bucket: each is read, written and removed by calls of its own.

use aws_sdk_s3::Client;
use aws_sdk_s3::error::BuildError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types as s3;
use serde::{Deserialize, Serialize};
use tfplugin::Attr;

use super::policy;
use crate::aws::AwsError;
use crate::settings::{List, known_elements};

/// A bucket to talk about.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    pub(super) client: Client,
    pub(super) name: String,
}

/// One configuration. What a state does not hold is left alone: another resource may look after it.
pub(super) trait Part: Clone + PartialEq + Send + Sync + Sized {
    /// The attribute that holds it.
    const ATTRIBUTE: &'static str;
    /// What S3 has; `None` where it has nothing.
    fn read(bucket: &Bucket) -> impl Future<Output = Result<Option<Self>, AwsError>> + Send;
    /// Puts it there.
    fn write(&self, bucket: &Bucket) -> impl Future<Output = Result<(), AwsError>> + Send;
    /// Back to what a new bucket has.
    fn remove(bucket: &Bucket) -> impl Future<Output = Result<(), AwsError>> + Send;
    /// Whether both mean the same.
    fn same(&self, other: &Self) -> bool {
        self == other
    }
}

/// `Ok(None)` for an error that says that there is nothing.
fn or_none<T>(result: Result<T, AwsError>, nothing: &str) -> Result<Option<T>, AwsError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is(&[nothing]) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The schema has checked everything that a builder asks for.
fn built<T>(action: &'static str) -> impl Fn(Result<T, BuildError>) -> Result<T, AwsError> {
    move |result| result.map_err(|error| AwsError::unexpected(action, &error.to_string()))
}

fn text(value: Option<&str>) -> Attr<String> {
    Attr::from(value.filter(|text| !text.is_empty()).map(str::to_owned))
}

fn strings(values: &[String]) -> List<String> {
    if values.is_empty() {
        Attr::Null
    } else {
        Attr::Known(values.iter().cloned().map(Attr::Known).collect())
    }
}

fn vector(list: &List<String>) -> Option<Vec<String>> {
    let values: Vec<String> = known_elements(list).cloned().collect();
    (!values.is_empty()).then_some(values)
}

/// `Enabled` or `Suspended`. A bucket that was versioned once can never be unversioned again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Versioning(pub(super) String);

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

/// The bucket policy, as the user wrote it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Policy(pub(super) String);

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
pub(super) struct Ownership(pub(super) String);

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
pub(super) struct PublicAccessBlock {
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

/// How objects are encrypted that say nothing about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Encryption {
    sse_algorithm: Attr<String>,
    kms_master_key_id: Attr<String>,
    bucket_key_enabled: Attr<bool>,
}

impl Part for Encryption {
    const ATTRIBUTE: &'static str = "server_side_encryption";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let call = bucket.client.get_bucket_encryption().bucket(&bucket.name);
        let found = call.send().await.map_err(AwsError::of("s3:GetEncryptionConfiguration"));
        let found = or_none(found, "ServerSideEncryptionConfigurationNotFoundError")?;
        let rule = found
            .as_ref()
            .and_then(|found| found.server_side_encryption_configuration())
            .and_then(|configuration| configuration.rules().first());
        let Some((rule, default)) =
            rule.and_then(|rule| Some((rule, rule.apply_server_side_encryption_by_default()?)))
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
        let algorithm = self.sse_algorithm.known().map_or("AES256", String::as_str);
        let default = s3::ServerSideEncryptionByDefault::builder()
            .sse_algorithm(algorithm.into())
            .set_kms_master_key_id(self.kms_master_key_id.known().cloned())
            .build();
        let rule = s3::ServerSideEncryptionRule::builder()
            .apply_server_side_encryption_by_default(built(ACTION)(default)?)
            .set_bucket_key_enabled(self.bucket_key_enabled.known().copied())
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

/// The bucket as a web site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Website {
    index_document: Attr<String>,
    error_document: Attr<String>,
    redirect_all_requests_to: Attr<Redirect>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Redirect {
    host_name: Attr<String>,
    protocol: Attr<String>,
}

impl Website {
    /// Whether it says what to serve, and only one thing.
    pub(super) fn is_complete(&self) -> bool {
        match (&self.index_document, &self.redirect_all_requests_to) {
            (Attr::Null, Attr::Null) | (Attr::Known(_), Attr::Known(_)) => false,
            (Attr::Null, Attr::Known(_)) => self.error_document.is_null(),
            _ => true,
        }
    }
}

impl Part for Website {
    const ATTRIBUTE: &'static str = "website";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let call = bucket.client.get_bucket_website().bucket(&bucket.name);
        let found = call.send().await.map_err(AwsError::of("s3:GetBucketWebsite"));
        let Some(found) = or_none(found, "NoSuchWebsiteConfiguration")? else { return Ok(None) };
        Ok(Some(Self {
            index_document: text(found.index_document().map(s3::IndexDocument::suffix)),
            error_document: text(found.error_document().map(s3::ErrorDocument::key)),
            redirect_all_requests_to: Attr::from(found.redirect_all_requests_to().map(|redirect| Redirect {
                host_name: text(Some(redirect.host_name())),
                protocol: text(redirect.protocol().map(s3::Protocol::as_str)),
            })),
        }))
    }

    async fn write(&self, bucket: &Bucket) -> Result<(), AwsError> {
        const ACTION: &str = "s3:PutBucketWebsite";
        let mut configuration = s3::WebsiteConfiguration::builder();
        if let Attr::Known(suffix) = &self.index_document {
            let document = s3::IndexDocument::builder().suffix(suffix).build();
            configuration = configuration.index_document(built(ACTION)(document)?);
        }
        if let Attr::Known(key) = &self.error_document {
            let document = s3::ErrorDocument::builder().key(key).build();
            configuration = configuration.error_document(built(ACTION)(document)?);
        }
        if let Attr::Known(redirect) = &self.redirect_all_requests_to {
            let target = s3::RedirectAllRequestsTo::builder()
                .host_name(redirect.host_name.known().map_or("", String::as_str))
                .set_protocol(redirect.protocol.known().map(|protocol| protocol.as_str().into()))
                .build();
            configuration = configuration.redirect_all_requests_to(built(ACTION)(target)?);
        }
        let call = bucket.client.put_bucket_website().bucket(&bucket.name);
        let sent = call.website_configuration(configuration.build()).send().await;
        sent.map(drop).map_err(AwsError::of(ACTION))
    }

    async fn remove(bucket: &Bucket) -> Result<(), AwsError> {
        let call = bucket.client.delete_bucket_website().bucket(&bucket.name);
        call.send().await.map(drop).map_err(AwsError::of("s3:DeleteBucketWebsite"))
    }
}

/// Which pages of other sites may read from the bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Cors(Vec<CorsRule>);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct CorsRule {
    id: Attr<String>,
    allowed_headers: List<String>,
    allowed_methods: List<String>,
    allowed_origins: List<String>,
    expose_headers: List<String>,
    max_age_seconds: Attr<i32>,
}

impl Part for Cors {
    const ATTRIBUTE: &'static str = "cors_rules";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let call = bucket.client.get_bucket_cors().bucket(&bucket.name);
        let found = call.send().await.map_err(AwsError::of("s3:GetBucketCORS"));
        let Some(found) = or_none(found, "NoSuchCORSConfiguration")? else { return Ok(None) };
        let rule = |rule: &s3::CorsRule| CorsRule {
            id: text(rule.id()),
            allowed_headers: strings(rule.allowed_headers()),
            allowed_methods: strings(rule.allowed_methods()),
            allowed_origins: strings(rule.allowed_origins()),
            expose_headers: strings(rule.expose_headers()),
            max_age_seconds: Attr::from(rule.max_age_seconds()),
        };
        Ok(Some(Self(found.cors_rules().iter().map(rule).collect())))
    }

    async fn write(&self, bucket: &Bucket) -> Result<(), AwsError> {
        const ACTION: &str = "s3:PutBucketCORS";
        let mut configuration = s3::CorsConfiguration::builder();
        for rule in &self.0 {
            let rule = s3::CorsRule::builder()
                .set_id(rule.id.known().cloned())
                .set_allowed_headers(vector(&rule.allowed_headers))
                .set_allowed_methods(vector(&rule.allowed_methods))
                .set_allowed_origins(vector(&rule.allowed_origins))
                .set_expose_headers(vector(&rule.expose_headers))
                .set_max_age_seconds(rule.max_age_seconds.known().copied())
                .build();
            configuration = configuration.cors_rules(built(ACTION)(rule)?);
        }
        let call = bucket.client.put_bucket_cors().bucket(&bucket.name);
        let sent = call.cors_configuration(built(ACTION)(configuration.build())?).send().await;
        sent.map(drop).map_err(AwsError::of(ACTION))
    }

    async fn remove(bucket: &Bucket) -> Result<(), AwsError> {
        let call = bucket.client.delete_bucket_cors().bucket(&bucket.name);
        call.send().await.map(drop).map_err(AwsError::of("s3:PutBucketCORS"))
    }
}

/// When objects move to cheaper storage and when they go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Lifecycle(Vec<LifecycleRule>);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LifecycleRule {
    id: Attr<String>,
    enabled: Attr<bool>,
    filter: Attr<LifecycleFilter>,
    expiration: Attr<Expiration>,
    transitions: Attr<Vec<Transition>>,
    noncurrent_version_expiration: Attr<NoncurrentExpiration>,
    noncurrent_version_transitions: Attr<Vec<NoncurrentTransition>>,
    abort_incomplete_multipart_upload_days: Attr<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LifecycleFilter {
    prefix: Attr<String>,
    tags: Attr<std::collections::BTreeMap<String, Attr<String>>>,
    object_size_greater_than: Attr<i64>,
    object_size_less_than: Attr<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Expiration {
    days: Attr<i32>,
    date: Attr<String>,
    expired_object_delete_marker: Attr<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Transition {
    days: Attr<i32>,
    date: Attr<String>,
    storage_class: Attr<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct NoncurrentExpiration {
    noncurrent_days: Attr<i32>,
    newer_noncurrent_versions: Attr<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct NoncurrentTransition {
    noncurrent_days: Attr<i32>,
    newer_noncurrent_versions: Attr<i32>,
    storage_class: Attr<String>,
}

/// Whether S3 understands this as a date.
pub(super) fn is_date(text: &str) -> bool {
    date(text).is_some()
}

fn date(text: &str) -> Option<DateTime> {
    DateTime::from_str(text, DateTimeFormat::DateTime).ok()
}

fn date_text(date: Option<&DateTime>) -> Attr<String> {
    Attr::from(date.and_then(|date| date.fmt(DateTimeFormat::DateTime).ok()))
}

impl LifecycleFilter {
    /// S3 wants one condition plainly and several in `And`; none is the empty prefix.
    fn to_s3(&self) -> s3::LifecycleRuleFilter {
        let tags: Vec<s3::Tag> = self
            .tags
            .known()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| s3::Tag::builder().key(key).value(value.known()?).build().ok())
            .collect();
        let (greater, less) =
            (self.object_size_greater_than.known().copied(), self.object_size_less_than.known().copied());
        let prefix = self.prefix.known().cloned();
        let conditions = tags.len()
            + [prefix.is_some(), greater.is_some(), less.is_some()].iter().filter(|set| **set).count();
        let filter = s3::LifecycleRuleFilter::builder();
        if conditions > 1 {
            let and = s3::LifecycleRuleAndOperator::builder()
                .set_prefix(prefix)
                .set_tags(Some(tags).filter(|tags| !tags.is_empty()))
                .set_object_size_greater_than(greater)
                .set_object_size_less_than(less);
            return filter.and(and.build()).build();
        }
        let prefix = if conditions == 0 { Some(String::new()) } else { prefix };
        filter
            .set_prefix(prefix)
            .set_tag(tags.into_iter().next())
            .set_object_size_greater_than(greater)
            .set_object_size_less_than(less)
            .build()
    }

    fn from_s3(filter: &s3::LifecycleRuleFilter) -> Option<Self> {
        let (prefix, tags, greater, less) = match filter.and() {
            Some(and) => (
                and.prefix(),
                and.tags().to_vec(),
                and.object_size_greater_than(),
                and.object_size_less_than(),
            ),
            None => (
                filter.prefix(),
                filter.tag().cloned().into_iter().collect(),
                filter.object_size_greater_than(),
                filter.object_size_less_than(),
            ),
        };
        let tags: std::collections::BTreeMap<_, _> =
            tags.iter().map(|tag| (tag.key().to_owned(), Attr::Known(tag.value().to_owned()))).collect();
        let read = Self {
            prefix: text(prefix),
            tags: if tags.is_empty() { Attr::Null } else { Attr::Known(tags) },
            object_size_greater_than: Attr::from(greater),
            object_size_less_than: Attr::from(less),
        };
        (read != Self::default()).then_some(read)
    }
}

impl LifecycleRule {
    fn to_s3(&self) -> Result<s3::LifecycleRule, AwsError> {
        let status = if self.enabled.known() == Some(&false) { "Disabled" } else { "Enabled" };
        let filter = self.filter.known().cloned().unwrap_or_default().to_s3();
        let number = |value: &Attr<i32>| value.known().copied();
        let when = |value: &Attr<String>| value.known().and_then(|text| date(text));
        let expiration = self.expiration.known().map(|expiration| {
            s3::LifecycleExpiration::builder()
                .set_days(number(&expiration.days))
                .set_date(when(&expiration.date))
                .set_expired_object_delete_marker(expiration.expired_object_delete_marker.known().copied())
                .build()
        });
        let class = |value: &Attr<String>| value.known().map(|class| class.as_str().into());
        let transitions = self.transitions.known().map(|transitions| {
            let one = |transition: &Transition| {
                s3::Transition::builder()
                    .set_days(number(&transition.days))
                    .set_date(when(&transition.date))
                    .set_storage_class(class(&transition.storage_class))
                    .build()
            };
            transitions.iter().map(one).collect()
        });
        let noncurrent = self.noncurrent_version_expiration.known().map(|expiration| {
            s3::NoncurrentVersionExpiration::builder()
                .set_noncurrent_days(number(&expiration.noncurrent_days))
                .set_newer_noncurrent_versions(number(&expiration.newer_noncurrent_versions))
                .build()
        });
        let moved = self.noncurrent_version_transitions.known().map(|transitions| {
            let one = |transition: &NoncurrentTransition| {
                s3::NoncurrentVersionTransition::builder()
                    .set_noncurrent_days(number(&transition.noncurrent_days))
                    .set_newer_noncurrent_versions(number(&transition.newer_noncurrent_versions))
                    .set_storage_class(transition.storage_class.known().map(|class| class.as_str().into()))
                    .build()
            };
            transitions.iter().map(one).collect()
        });
        let abort = self
            .abort_incomplete_multipart_upload_days
            .known()
            .map(|days| s3::AbortIncompleteMultipartUpload::builder().days_after_initiation(*days).build());
        let rule = s3::LifecycleRule::builder()
            .set_id(self.id.known().cloned())
            .status(status.into())
            .filter(filter)
            .set_expiration(expiration)
            .set_transitions(transitions)
            .set_noncurrent_version_expiration(noncurrent)
            .set_noncurrent_version_transitions(moved)
            .set_abort_incomplete_multipart_upload(abort)
            .build();
        built("s3:PutLifecycleConfiguration")(rule)
    }

    fn from_s3(rule: &s3::LifecycleRule) -> Self {
        let transition = |transition: &s3::Transition| Transition {
            days: Attr::from(transition.days()),
            date: date_text(transition.date()),
            storage_class: text(transition.storage_class().map(s3::TransitionStorageClass::as_str)),
        };
        let moved = |transition: &s3::NoncurrentVersionTransition| NoncurrentTransition {
            noncurrent_days: Attr::from(transition.noncurrent_days()),
            newer_noncurrent_versions: Attr::from(transition.newer_noncurrent_versions()),
            storage_class: text(transition.storage_class().map(s3::TransitionStorageClass::as_str)),
        };
        let some = |items: Vec<_>| if items.is_empty() { Attr::Null } else { Attr::Known(items) };
        let some_moved = |items: Vec<_>| if items.is_empty() { Attr::Null } else { Attr::Known(items) };
        Self {
            id: text(rule.id()),
            enabled: Attr::Known(rule.status().as_str() == "Enabled"),
            filter: Attr::from(rule.filter().and_then(LifecycleFilter::from_s3)),
            expiration: Attr::from(rule.expiration().map(|expiration| Expiration {
                days: Attr::from(expiration.days().filter(|days| *days > 0)),
                date: date_text(expiration.date()),
                expired_object_delete_marker: Attr::from(
                    expiration.expired_object_delete_marker().filter(|marker| *marker),
                ),
            })),
            transitions: some(rule.transitions().iter().map(transition).collect()),
            noncurrent_version_expiration: Attr::from(rule.noncurrent_version_expiration().map(
                |expiration| NoncurrentExpiration {
                    noncurrent_days: Attr::from(expiration.noncurrent_days()),
                    newer_noncurrent_versions: Attr::from(expiration.newer_noncurrent_versions()),
                },
            )),
            noncurrent_version_transitions: some_moved(
                rule.noncurrent_version_transitions().iter().map(moved).collect(),
            ),
            abort_incomplete_multipart_upload_days: Attr::from(
                rule.abort_incomplete_multipart_upload()
                    .and_then(s3::AbortIncompleteMultipartUpload::days_after_initiation),
            ),
        }
    }
}

impl Part for Lifecycle {
    const ATTRIBUTE: &'static str = "lifecycle_rules";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let call = bucket.client.get_bucket_lifecycle_configuration().bucket(&bucket.name);
        let found = call.send().await.map_err(AwsError::of("s3:GetLifecycleConfiguration"));
        let found = or_none(found, "NoSuchLifecycleConfiguration")?;
        Ok(found.map(|found| Self(found.rules().iter().map(LifecycleRule::from_s3).collect())))
    }

    async fn write(&self, bucket: &Bucket) -> Result<(), AwsError> {
        const ACTION: &str = "s3:PutLifecycleConfiguration";
        let rules = self.0.iter().map(LifecycleRule::to_s3).collect::<Result<Vec<_>, _>>()?;
        let configuration = s3::BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build();
        let call = bucket.client.put_bucket_lifecycle_configuration().bucket(&bucket.name);
        let sent = call.lifecycle_configuration(built(ACTION)(configuration)?).send().await;
        sent.map(drop).map_err(AwsError::of(ACTION))
    }

    async fn remove(bucket: &Bucket) -> Result<(), AwsError> {
        let call = bucket.client.delete_bucket_lifecycle().bucket(&bucket.name);
        call.send().await.map(drop).map_err(AwsError::of("s3:PutLifecycleConfiguration"))
    }

    /// S3 may give rules back in another order.
    fn same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|rule| other.0.contains(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known<T>(value: T) -> Attr<T> {
        Attr::Known(value)
    }

    #[test]
    fn a_lifecycle_rule_survives_the_way_to_s3_and_back() {
        let rule = LifecycleRule {
            id: known("old".into()),
            enabled: known(false),
            filter: known(LifecycleFilter {
                prefix: known("log/".into()),
                tags: known([("class".to_owned(), known("cold".to_owned()))].into()),
                ..LifecycleFilter::default()
            }),
            expiration: known(Expiration {
                date: known("2030-01-01T00:00:00Z".into()),
                ..Expiration::default()
            }),
            transitions: known(vec![Transition {
                days: known(30),
                storage_class: known("GLACIER".into()),
                ..Transition::default()
            }]),
            noncurrent_version_expiration: known(NoncurrentExpiration {
                noncurrent_days: known(90),
                newer_noncurrent_versions: known(3),
            }),
            noncurrent_version_transitions: Attr::Null,
            abort_incomplete_multipart_upload_days: known(7),
        };
        assert_eq!(LifecycleRule::from_s3(&rule.to_s3().unwrap()), rule);
        let bare =
            LifecycleRule { id: known("all".into()), enabled: known(true), ..LifecycleRule::default() };
        assert_eq!(
            LifecycleRule::from_s3(&bare.to_s3().unwrap()),
            bare,
            "no filter is the empty prefix and back"
        );
    }

    #[test]
    fn one_condition_of_a_filter_stands_alone_and_several_stand_together() {
        let one = LifecycleFilter { object_size_greater_than: known(10), ..LifecycleFilter::default() };
        assert!(one.to_s3().and().is_none());
        let two = LifecycleFilter { prefix: known("a".into()), ..one.clone() };
        assert_eq!(two.to_s3().and().and_then(s3::LifecycleRuleAndOperator::prefix), Some("a"));
        for filter in [one, two] {
            assert_eq!(LifecycleFilter::from_s3(&filter.to_s3()), Some(filter));
        }
    }

    #[test]
    fn a_web_site_serves_pages_or_redirects() {
        let index = Website { index_document: known("index.html".into()), ..Website::default() };
        let redirect = Redirect { host_name: known("example.org".into()), protocol: Attr::Null };
        assert!(index.is_complete());
        assert!(!Website::default().is_complete());
        assert!(!Website { redirect_all_requests_to: known(redirect), ..index }.is_complete());
    }
}
