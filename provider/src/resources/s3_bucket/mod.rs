//! `nixos_s3_bucket`: a bucket and everything S3 keeps beside it.
//!
//! S3 has a call to read, to write and to remove each part of a bucket's configuration. Of those only the ones that are managed
//! are read, and only the ones that differ are written; a part that fails leaves a state that says which ones were done.

mod empty;
mod parts;
mod policy;
mod schema;

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration, Tag, Tagging};
use serde::{Deserialize, Serialize};
use tfplugin::{
    ApplyRequest, Attr, Cx, Diagnostic, Diagnostics, Failed, Path, PlanRequest, PlanResponse, Resource,
    Schema, State, Value,
};
use tokio_util::sync::CancellationToken;

use self::parts::{
    Bucket, Cors, Encryption, Lifecycle, Ownership, Part, Policy, PublicAccessBlock, Versioning, Website,
};
use crate::aws::{
    Aws, AwsError, Patience, TagModel, Tags, aws_unknown, import_id, planned_region, regional_id,
};
use crate::context::Context;
use crate::settings::unique;

/// How long S3 may take to know of a bucket it has just made, or to finish another change of it.
const SETTLING: Duration = Duration::from_mins(2);

pub(crate) struct BucketResource;

/// Configuration and state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Model {
    bucket: Attr<String>,
    bucket_prefix: Attr<String>,
    region: Attr<String>,
    adopt_existing: Attr<bool>,
    force_destroy: Attr<bool>,
    persist_on_destroy: Attr<bool>,
    versioning: Attr<Versioning>,
    policy: Attr<Policy>,
    object_ownership: Attr<Ownership>,
    public_access_block: Attr<PublicAccessBlock>,
    server_side_encryption: Attr<Encryption>,
    website: Attr<Website>,
    cors_rules: Attr<Cors>,
    lifecycle_rules: Attr<Lifecycle>,
    tags: Attr<BTreeMap<String, Attr<String>>>,
    tags_all: Attr<BTreeMap<String, Attr<String>>>,
    id: Attr<String>,
    arn: Attr<String>,
    bucket_domain_name: Attr<String>,
    bucket_regional_domain_name: Attr<String>,
    website_endpoint: Attr<String>,
    website_domain: Attr<String>,
}

/// What is remembered beside the state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Private {
    /// Somebody's bucket that was to be taken over, and was not completely: Terraform destroys what was not created completely,
    /// and this must not be.
    half_adopted: bool,
}

type BucketState = State<Model, Private>;
type BucketFailed = Failed<Model, Private>;

impl Resource<Context> for BucketResource {
    const TYPE: &'static str = "nixos_s3_bucket";
    type Model = Model;
    type Private = Private;

    fn schema(&self) -> Schema {
        schema::schema()
    }

    async fn validate(&self, config: Model) -> Result<(), Diagnostics> {
        schema::validate(&config)
    }

    async fn plan(
        &self,
        cx: &Cx<Context>,
        request: PlanRequest<Model, Private>,
    ) -> Result<PlanResponse<Model, Private>, Diagnostics> {
        let PlanRequest { prior, config, proposed, .. } = request;
        let aws = cx.data.aws.as_ref();
        let mut planned = proposed;
        planned.region = match &prior {
            Some(prior) if config.region.is_null() && aws.is_none() => prior.value.region.clone(),
            _ => planned_region(aws, &config.region, &Path::root().attribute("region")).await?,
        };
        planned.tags_all = TagModel::planned_all(&config.tags, aws.map(Aws::default_tags));
        if let Some(prior) = &prior {
            keep_if_same(&mut planned.policy, &prior.value.policy);
            keep_if_same(&mut planned.lifecycle_rules, &prior.value.lifecycle_rules);
        }
        planned.name_addresses();
        let private = prior.map(|prior| prior.private).unwrap_or_default();
        Ok(PlanResponse { planned, private, requires_replace: vec![] })
    }

    async fn read(&self, cx: &Cx<Context>, state: BucketState) -> Result<Option<BucketState>, Diagnostics> {
        let State { value: mut model, private } = state;
        let Some(aws) = cx.data.aws.as_ref() else {
            let why = aws_unknown();
            cx.warn(
                Diagnostic::warning(format!("Bucket \"{}\" was not refreshed", model.name()))
                    .detail(format!("{} {}\n\nIts last known state is kept.", why.summary, why.detail)),
            );
            return Ok(Some(State { value: model, private }));
        };
        let bucket = model.on(aws).await?;
        if find(&bucket).await.map_err(model.problem("read"))?.is_none() {
            return Ok(None);
        }
        Box::pin(refresh(&mut model, &bucket, aws, Managed::InState))
            .await
            .map_err(|(attribute, error)| model.part_problem("read", attribute, &error))?;
        model.name_addresses();
        Ok(Some(State { value: model, private }))
    }

    async fn create(
        &self,
        cx: &Cx<Context>,
        request: ApplyRequest<Model, Private>,
    ) -> Result<BucketState, BucketFailed> {
        let mut planned = request.planned;
        let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
        if planned.region.is_unknown() {
            planned.region = Attr::Known(aws.region(None, &Path::root().attribute("region")).await?);
        }
        if planned.bucket.is_unknown() {
            let prefix = planned.bucket_prefix.known().map_or("terraform-", String::as_str);
            planned.bucket = Attr::Known(unique(prefix));
        }
        planned.tags_all = TagModel::planned_all(&planned.tags, Some(aws.default_tags()));
        planned.name_addresses();
        let bucket = planned.on(aws).await?;
        let mut there = planned.bare();
        let adopted = match planned.make(&bucket).await {
            Ok(adopted) => adopted,
            // The next refresh sees whether there is one.
            Err((diagnostic, true)) => {
                let partial = State { value: there, private: Private::default() };
                return Err(Failed { diagnostics: diagnostic.into(), partial: Some(partial) });
            }
            Err((diagnostic, false)) => return Err(diagnostic.into()),
        };

        // From here on there is a bucket, whatever happens.
        match there.become_(&planned, &bucket, &cx.cancel).await {
            Ok(()) => Ok(State { value: there, private: Private::default() }),
            Err(diagnostic) => {
                // Terraform replaces what a create has left without its private data. So that a bucket which was there before
                // is not deleted in doing so, its state says that it stays.
                if adopted {
                    there.persist_on_destroy = Attr::Known(true);
                }
                let partial = State { value: there, private: Private { half_adopted: adopted } };
                Err(Failed { diagnostics: diagnostic.into(), partial: Some(partial) })
            }
        }
    }

    async fn update(
        &self,
        cx: &Cx<Context>,
        prior: BucketState,
        request: ApplyRequest<Model, Private>,
    ) -> Result<BucketState, BucketFailed> {
        let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
        let mut planned = request.planned;
        planned.tags_all = TagModel::planned_all(&planned.tags, Some(aws.default_tags()));
        planned.name_addresses();
        let bucket = planned.on(aws).await?;
        let mut there = prior.value;
        let done = there.become_(&planned, &bucket, &cx.cancel).await;
        let state = |value| State { value, private: prior.private };
        match done {
            Ok(()) => Ok(state(there)),
            Err(diagnostic) => Err(Failed { diagnostics: diagnostic.into(), partial: Some(state(there)) }),
        }
    }

    async fn delete(&self, cx: &Cx<Context>, state: BucketState) -> Result<(), Diagnostics> {
        let State { value: model, private } = state;
        if model.persist_on_destroy == Attr::Known(true) || private.half_adopted {
            cx.warn(Diagnostic::warning(format!("Bucket \"{}\" stays", model.name())).detail(
                if private.half_adopted {
                    "It was there before and was not completely taken over. Terraform forgets it."
                } else {
                    "As `persist_on_destroy` says. Terraform forgets it."
                },
            ));
            return Ok(());
        }
        let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
        let bucket = model.on(aws).await?;
        let mut gone = remove(&bucket, &cx.cancel).await;
        if model.force_destroy == Attr::Known(true) {
            // Somebody may be writing still; each time there is less.
            for _ in 0..3 {
                match &gone {
                    Err(error) if error.is(&["BucketNotEmpty"]) => {}
                    _ => break,
                }
                empty::empty(&bucket, &cx.cancel).await.map_err(model.problem("empty"))?;
                gone = remove(&bucket, &cx.cancel).await;
            }
        }
        gone.map_err(|error| {
            let diagnostic = model.problem("delete")(error.clone());
            if error.is(&["BucketNotEmpty"]) {
                Diagnostics::from(diagnostic.appended(
                    "Nothing was deleted. Set `force_destroy = true` and apply to delete the objects with the bucket, or \
                     `persist_on_destroy = true` and apply to leave it there.",
                ))
            } else {
                diagnostic.into()
            }
        })
    }

    async fn import_identity(
        &self,
        cx: &Cx<Context>,
        identity: BTreeMap<String, Value>,
    ) -> Result<BucketState, Diagnostics> {
        self.import(cx, &regional_id(&identity, "bucket")).await
    }

    async fn import(&self, cx: &Cx<Context>, id: &str) -> Result<BucketState, Diagnostics> {
        let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
        let (region, name) = import_id(id);
        let region = match region {
            Some(region) => region.to_owned(),
            None => location(aws, name).await?,
        };
        let no = Attr::Known(false);
        let mut model = Model {
            bucket: Attr::Known(name.to_owned()),
            region: Attr::Known(region),
            adopt_existing: no.clone(),
            force_destroy: no.clone(),
            persist_on_destroy: no,
            ..Model::default()
        };
        model.name_addresses();
        let bucket = model.on(aws).await?;
        if find(&bucket).await.map_err(model.problem("read"))?.is_none() {
            return Err(no_bucket(name).into());
        }
        let read = Box::pin(refresh(&mut model, &bucket, aws, Managed::Everything)).await;
        read.map_err(|(attribute, error)| model.part_problem("read", attribute, &error))?;
        model.name_addresses();
        Ok(State { value: model, private: Private::default() })
    }
}

/// Which parts to read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Managed {
    /// Those that the state has.
    InState,
    /// All of them.
    Everything,
}

/// A part that failed, and how.
type PartError = (&'static str, AwsError);

impl Model {
    fn name(&self) -> &str {
        self.bucket.known().map_or("", String::as_str)
    }

    async fn on(&self, aws: &Aws) -> Result<Bucket, Diagnostic> {
        let region =
            aws.region(self.region.known().map(String::as_str), &Path::root().attribute("region")).await?;
        Ok(Bucket { client: aws.s3(&region).await, name: self.name().to_owned() })
    }

    /// The bucket without any of its parts.
    fn bare(&self) -> Self {
        Self {
            versioning: Attr::Null,
            policy: Attr::Null,
            object_ownership: Attr::Null,
            public_access_block: Attr::Null,
            server_side_encryption: Attr::Null,
            website: Attr::Null,
            cors_rules: Attr::Null,
            lifecycle_rules: Attr::Null,
            tags: Attr::Null,
            tags_all: Attr::Known(BTreeMap::new()),
            ..self.clone()
        }
    }

    /// Creates the bucket, or finds the one to take over; whether it is such a one. An error comes with whether the bucket may have
    /// been created all the same.
    async fn make(&self, bucket: &Bucket) -> Result<bool, (Diagnostic, bool)> {
        let region = self.region.known().map_or("", String::as_str);
        let before = |diagnostic| (diagnostic, false);
        if let Some(found) = find(bucket).await.map_err(self.problem("look for")).map_err(before)? {
            if self.adopt_existing != Attr::Known(true) {
                return Err(before(self.exists_already()));
            }
            return match found {
                Some(elsewhere) if elsewhere != region => Err(before(self.is_elsewhere(&elsewhere))),
                _ => Ok(true),
            };
        }
        let mut call = bucket.client.create_bucket().bucket(&bucket.name);
        // The oldest region is the one that must not be named.
        if region != "us-east-1" {
            let place = BucketLocationConstraint::from(region);
            call = call.create_bucket_configuration(
                CreateBucketConfiguration::builder().location_constraint(place).build(),
            );
        }
        match call.send().await.map_err(AwsError::of("s3:CreateBucket")) {
            Ok(_) => Ok(false),
            // It was not there a moment ago: this is what a try did whose answer got lost.
            Err(error) if error.is(&["BucketAlreadyOwnedByYou"]) => Ok(false),
            Err(error) if error.is(&["BucketAlreadyExists"]) => Err(before(self.problem("create")(error).appended(
                "Names are unique in all of AWS, and somebody else has this one. Choose another `bucket`.",
            ))),
            Err(error) => Err((self.problem("create")(error.clone()), error.is_open())),
        }
    }

    /// Brings the bucket from what this says to what `planned` says, part by part, and takes over each that is done.
    async fn become_(
        &mut self,
        planned: &Self,
        bucket: &Bucket,
        cancel: &CancellationToken,
    ) -> Result<(), Diagnostic> {
        let patience = Patience::new(SETTLING, cancel);
        // Ownership and access before the policy, which they may forbid.
        let opened = self.public_access_block != planned.public_access_block;
        macro_rules! change {
            ($field:ident, $denied:expr) => {
                change(&self.$field, &planned.$field, bucket, &patience, $denied)
                    .await
                    .map_err(|(attribute, error)| planned.part_problem("write", attribute, &error))?;
                self.$field = planned.$field.clone();
            };
        }
        change!(object_ownership, false);
        change!(public_access_block, false);
        change!(versioning, false);
        change!(server_side_encryption, false);
        change!(policy, opened);
        change!(website, false);
        change!(cors_rules, false);
        change!(lifecycle_rules, false);
        let tags = |model: &Self| TagModel { tags: Attr::Null, tags_all: model.tags_all.clone() }.all();
        if tags(self) != tags(planned) {
            let wanted = tags(planned);
            let written =
                patience.retry(|error| is_settling(error, false), || write_tags(bucket, &wanted)).await;
            written.map_err(|error| planned.part_problem("write", "tags", &error))?;
        }
        *self = planned.clone();
        Ok(())
    }

    /// Everything that follows from name and region.
    fn name_addresses(&mut self) {
        let (Attr::Known(name), Attr::Known(region)) = (&self.bucket, &self.region) else { return };
        let (partition, domain) = partition(region);
        self.id = self.bucket.clone();
        self.arn = Attr::Known(format!("arn:{partition}:s3:::{name}"));
        self.bucket_domain_name = Attr::Known(format!("{name}.s3.{domain}"));
        self.bucket_regional_domain_name = Attr::Known(format!("{name}.s3.{region}.{domain}"));
        let site = match &self.website {
            Attr::Known(_) => Attr::Known(website_domain(region)),
            Attr::Null => Attr::Null,
            Attr::Unknown => Attr::Unknown,
        };
        self.website_endpoint = site.clone().map(|site| format!("{name}.{site}"));
        self.website_domain = site;
    }

    fn problem(&self, verb: &str) -> impl Fn(AwsError) -> Diagnostic {
        let summary = format!("AWS did not {verb} bucket \"{}\"", self.name());
        move |error| error.diagnostic(&summary, Path::root().attribute("bucket"))
    }

    fn part_problem(&self, verb: &str, attribute: &str, error: &AwsError) -> Diagnostic {
        let summary = format!("AWS did not {verb} `{attribute}` of bucket \"{}\"", self.name());
        error.diagnostic(&summary, Path::root().attribute(attribute))
    }

    fn exists_already(&self) -> Diagnostic {
        let name = self.name();
        Diagnostic::error(format!("There is a bucket \"{name}\" already"))
            .detail(format!(
                "This account has a bucket of this name that this resource did not create; nothing was changed. Import it \
                 (terraform import ADDRESS {name}), set `adopt_existing = true`, or choose another name."
            ))
            .at(Path::root().attribute("bucket"))
    }

    fn is_elsewhere(&self, region: &str) -> Diagnostic {
        Diagnostic::error(format!("Bucket \"{}\" is in another region", self.name()))
            .detail(format!("Found it in {region}. Set `region = \"{region}\"`, or choose another name; buckets do not move."))
            .at(Path::root().attribute("region"))
    }
}

/// Reads the parts, all at once.
async fn refresh(model: &mut Model, bucket: &Bucket, aws: &Aws, managed: Managed) -> Result<(), PartError> {
    let (versioning, policy, ownership, access, encryption, website, cors, lifecycle, tags) = tokio::try_join!(
        read(&model.versioning, bucket, managed),
        read(&model.policy, bucket, managed),
        read(&model.object_ownership, bucket, managed),
        read(&model.public_access_block, bucket, managed),
        read(&model.server_side_encryption, bucket, managed),
        read(&model.website, bucket, managed),
        read(&model.cors_rules, bucket, managed),
        read(&model.lifecycle_rules, bucket, managed),
        async { read_tags(bucket).await.map_err(|error| ("tags", error)) },
    )?;
    (model.versioning, model.policy, model.object_ownership) = (versioning, policy, ownership);
    (model.public_access_block, model.server_side_encryption) = (access, encryption);
    (model.website, model.cors_rules, model.lifecycle_rules) = (website, cors, lifecycle);
    let mut with_defaults = TagModel { tags: model.tags.clone(), tags_all: Attr::Null };
    with_defaults.read(&tags, aws.default_tags());
    (model.tags, model.tags_all) = (with_defaults.tags, with_defaults.tags_all);
    Ok(())
}

/// The planned part, in the words of the state where both mean the same.
fn keep_if_same<P: Part>(planned: &mut Attr<P>, prior: &Attr<P>) {
    if let (Attr::Known(new), Attr::Known(old)) = (&*planned, prior)
        && new.same(old)
    {
        *planned = prior.clone();
    }
}

/// Reads a part, if it is managed.
async fn read<P: Part>(state: &Attr<P>, bucket: &Bucket, managed: Managed) -> Result<Attr<P>, PartError> {
    if state.is_null() && managed == Managed::InState {
        return Ok(Attr::Null);
    }
    let found = P::read(bucket).await.map_err(|error| (P::ATTRIBUTE, error))?;
    Ok(match (found, state) {
        (Some(found), Attr::Known(known)) if found.same(known) => state.clone(),
        (found, _) => Attr::from(found),
    })
}

/// Writes or removes a part, if it has to change.
async fn change<P: Part>(
    before: &Attr<P>,
    after: &Attr<P>,
    bucket: &Bucket,
    patience: &Patience,
    denied_may_pass: bool,
) -> Result<(), PartError> {
    if before == after {
        return Ok(());
    }
    let passes = |error: &AwsError| is_settling(error, denied_may_pass);
    let done = match after {
        Attr::Known(part) => patience.retry(passes, || part.write(bucket)).await,
        _ => patience.retry(passes, || P::remove(bucket)).await,
    };
    done.map_err(|error| (P::ATTRIBUTE, error))
}

/// Whether S3 has only not come round yet: to the bucket itself, to another change of it, or to what may be public.
fn is_settling(error: &AwsError, denied_may_pass: bool) -> bool {
    error.is(&["NoSuchBucket", "OperationAborted"]) || (denied_may_pass && error.is_denied())
}

/// The bucket's region, where S3 says it; outer `None`: there is no such bucket of ours.
async fn find(bucket: &Bucket) -> Result<Option<Option<String>>, AwsError> {
    let found = bucket.client.head_bucket().bucket(&bucket.name).send().await;
    match found.map_err(AwsError::of("s3:ListBucket")) {
        Ok(found) => Ok(Some(found.bucket_region().map(str::to_owned))),
        Err(error) if error.status() == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a bucket is.
async fn location(aws: &Aws, name: &str) -> Result<String, Diagnostic> {
    let region = aws.region(None, &Path::root()).await?;
    let call = aws.s3(&region).await.get_bucket_location().bucket(name);
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

fn no_bucket(name: &str) -> Diagnostic {
    Diagnostic::error(format!("There is no bucket \"{name}\""))
        .detail("Expected the name of a bucket of this account, or REGION:NAME.")
}

/// Deletes an empty bucket; one that is gone is deleted.
async fn remove(bucket: &Bucket, cancel: &CancellationToken) -> Result<(), AwsError> {
    let patience = Patience::new(SETTLING, cancel);
    let call = || async {
        bucket
            .client
            .delete_bucket()
            .bucket(&bucket.name)
            .send()
            .await
            .map_err(AwsError::of("s3:DeleteBucket"))
    };
    match patience.retry(|error| error.is(&["OperationAborted"]), call).await {
        Err(error) if !error.is(&["NoSuchBucket"]) => Err(error),
        _ => Ok(()),
    }
}

async fn read_tags(bucket: &Bucket) -> Result<Tags, AwsError> {
    let found = bucket.client.get_bucket_tagging().bucket(&bucket.name).send().await;
    match found.map_err(AwsError::of("s3:GetBucketTagging")) {
        Ok(found) => {
            Ok(found.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect())
        }
        Err(error) if error.is(&["NoSuchTagSet"]) => Ok(Tags::new()),
        Err(error) => Err(error),
    }
}

async fn write_tags(bucket: &Bucket, tags: &Tags) -> Result<(), AwsError> {
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

/// The partition of a region and its domain.
fn partition(region: &str) -> (&'static str, &'static str) {
    if region.starts_with("cn-") {
        ("aws-cn", "amazonaws.com.cn")
    } else if region.starts_with("us-gov-") {
        ("aws-us-gov", "amazonaws.com")
    } else {
        ("aws", "amazonaws.com")
    }
}

/// Where web sites of a region are. The oldest regions have a dash before their name.
/// Source: "Amazon S3 endpoints and quotas" of the AWS General Reference.
fn website_domain(region: &str) -> String {
    const DASHED: &[&str] = &[
        "ap-northeast-1",
        "ap-southeast-1",
        "ap-southeast-2",
        "eu-west-1",
        "sa-east-1",
        "us-east-1",
        "us-gov-west-1",
        "us-west-1",
        "us-west-2",
    ];
    let separator = if DASHED.contains(&region) { '-' } else { '.' };
    format!("s3-website{separator}{region}.{}", partition(region).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_its_addresses_once_name_and_region_are_known() {
        let known = |text: &str| Attr::Known(text.to_owned());
        let mut model = Model { bucket: known("b"), region: known("eu-central-1"), ..Model::default() };
        model.website = Attr::Known(Website::default());
        model.name_addresses();
        assert_eq!(model.arn, known("arn:aws:s3:::b"));
        assert_eq!(model.bucket_regional_domain_name, known("b.s3.eu-central-1.amazonaws.com"));
        assert_eq!(model.website_endpoint, known("b.s3-website.eu-central-1.amazonaws.com"));
        assert_eq!(website_domain("eu-west-1"), "s3-website-eu-west-1.amazonaws.com");
        assert_eq!(website_domain("cn-north-1"), "s3-website.cn-north-1.amazonaws.com.cn");
    }

    #[test]
    fn a_policy_in_other_words_is_no_change() {
        let policy = |text: &str| Attr::Known(Policy(text.to_owned()));
        let prior = policy(r#"{"Statement":[{"Action":["s3:GetObject"],"Effect":"Allow"}]}"#);
        let mut planned = policy(r#"{"Statement": {"Effect": "Allow", "Action": "s3:GetObject"}}"#);
        keep_if_same(&mut planned, &prior);
        assert_eq!(planned, prior);
        let mut other = policy(r#"{"Statement":[]}"#);
        keep_if_same(&mut other, &prior);
        assert_ne!(other, prior);
    }
}
