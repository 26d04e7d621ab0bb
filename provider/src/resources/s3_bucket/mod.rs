//! `nixos_s3_bucket`: a bucket and everything S3 keeps beside it.
//!
//! S3 has a call to read, to write and to remove each part of a bucket's configuration. Of those only the ones that
//! are managed are read, and only the ones that differ are written; a part that fails leaves a state that says which
//! ones were done.

mod addresses;
mod calls;
mod configuration;
mod empty;
mod model;
mod parts;
mod policy;
mod schema;

use std::collections::BTreeMap;

use aws_sdk_s3::types::{BucketLocationConstraint, CreateBucketConfiguration};
use tfplugin::{
    ApplyRequest, Attr, Cx, Diagnostic, Diagnostics, Failed, Path, PlanRequest, PlanResponse, Resource,
    Schema, State, Value,
};
use tokio_util::sync::CancellationToken;

use self::calls::{CONSISTENCY, Existing, find, location, no_bucket, remove};
use self::configuration::{Managed, refresh};
use self::model::{Model, Private};
use self::parts::Bucket;
use crate::aws::{
    Aws, AwsError, TagModel, aws_unknown, import_id, moves_with_surroundings, planned_region, regional_id,
};
use crate::context::Context;
use crate::deadline::Deadline;
use crate::settings::unique;

pub(crate) struct BucketResource;

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
            let (bucket, path) = (format!("Bucket \"{}\"", planned.name()), Path::root().attribute("region"));
            let (from, to) = (&prior.value.region, &planned.region);
            if let Some(warning) = moves_with_surroundings(&bucket, from, &config.region, to, path) {
                cx.warn(warning);
            }
        }
        planned.name_addresses();
        let private = prior.map(|prior| prior.private).unwrap_or_default();
        Ok(PlanResponse::new(planned, private))
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
        let adopted = match planned.make(&bucket, &cx.cancel).await {
            Ok(adopted) => adopted,
            // The next refresh sees whether there is one.
            Err((diagnostic, true)) => {
                let partial = State { value: there, private: Private::default() };
                return Err(Failed { diagnostics: diagnostic.into(), partial: Some(partial) });
            }
            Err((diagnostic, false)) => return Err(diagnostic.into()),
        };

        // From here on there is a bucket, whatever happens.
        match there.write_changes(&planned, &bucket, &cx.cancel).await {
            Ok(()) => Ok(State { value: there, private: Private::default() }),
            Err(diagnostic) => {
                // Terraform replaces what a create has left without its private data. So that a bucket which was
                // there before is not deleted in doing so, its state says that it stays.
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
        let done = there.write_changes(&planned, &bucket, &cx.cancel).await;
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
                    "Nothing was deleted. Set `force_destroy = true` and apply to delete the objects with \
                     the bucket, or `persist_on_destroy = true` and apply to leave it there.",
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

    /// Creates the bucket, or finds the one to take over; whether it is such a one. An error comes with whether the
    /// bucket may have been created all the same.
    async fn make(&self, bucket: &Bucket, cancel: &CancellationToken) -> Result<bool, (Diagnostic, bool)> {
        let region = self.region.known().map_or("", String::as_str);
        let before = |diagnostic| (diagnostic, false);
        let found = find(bucket).await.map_err(|error| {
            let diagnostic = self.problem("look for")(error.clone());
            if error.is_denied() { self.is_others(&error) } else { diagnostic }
        });
        if let Some(Existing { region: found }) = found.map_err(before)? {
            let elsewhere = found.filter(|found| found != region);
            return match elsewhere {
                Some(elsewhere) => Err(before(self.is_elsewhere(&elsewhere))),
                None if self.adopt_existing == Attr::Known(true) => Ok(true),
                None => Err(before(self.exists_already())),
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
        let send = || async { call.clone().send().await.map_err(AwsError::of("s3:CreateBucket")) };
        // A bucket of this name may have been deleted a moment ago.
        let deadline = Deadline::new(CONSISTENCY, cancel);
        match deadline.retry(|error: &AwsError| error.is(&["OperationAborted"]), send).await {
            Ok(_) => Ok(false),
            // It was not there a moment ago: this is what a try did whose answer got lost.
            Err(error) if error.is(&["BucketAlreadyOwnedByYou"]) => Ok(false),
            Err(error) if error.is(&["BucketAlreadyExists"]) => Err(before(self.is_others(&error))),
            Err(error) => Err((self.problem("create")(error.clone()), error.is_open())),
        }
    }

    fn problem(&self, verb: &str) -> impl Fn(AwsError) -> Diagnostic {
        let summary = format!("AWS did not {verb} bucket \"{}\"", self.name());
        move |error| error.diagnostic(&summary, Path::root().attribute("bucket"))
    }

    fn part_problem(&self, verb: &str, attribute: &str, error: &AwsError) -> Diagnostic {
        let summary = format!("AWS did not {verb} `{attribute}` of bucket \"{}\"", self.name());
        error.diagnostic(&summary, Path::root().attribute(attribute))
    }

    /// A bucket that these credentials must not see.
    fn is_others(&self, error: &AwsError) -> Diagnostic {
        let name = self.name();
        Diagnostic::error(format!("The name \"{name}\" is taken"))
            .detail(format!(
                "{error}\n\nThere is a bucket of this name that these credentials must not see. Names of \
                 buckets are unique in all of AWS, so most likely it belongs to another account: choose \
                 another `bucket`, or `bucket_prefix` for a name that is made up. If it is yours, allow \
                 `s3:ListBucket` on it; S3 says the same to credentials that have expired."
            ))
            .at(Path::root().attribute("bucket"))
    }

    fn exists_already(&self) -> Diagnostic {
        let name = self.name();
        Diagnostic::error(format!("There is a bucket \"{name}\" already"))
            .detail(format!(
                "This account has a bucket of this name that this resource did not create; nothing was \
                 changed. Import it (terraform import ADDRESS {name}), set `adopt_existing = true`, or \
                 choose another name."
            ))
            .at(Path::root().attribute("bucket"))
    }

    fn is_elsewhere(&self, region: &str) -> Diagnostic {
        Diagnostic::error(format!("Bucket \"{}\" is in another region", self.name()))
            .detail(format!(
                "Found it in {region}. Set `region = \"{region}\"`, or choose another name; buckets do not \
                 move."
            ))
            .at(Path::root().attribute("region"))
    }
}
