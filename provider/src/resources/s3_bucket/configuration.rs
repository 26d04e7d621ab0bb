//! The parts of a bucket's configuration together: read all at once, changed one after the other.

use tfplugin::{Attr, Diagnostic};
use tokio_util::sync::CancellationToken;

use super::calls::{CONSISTENCY, read_tags, write_tags};
use super::model::Model;
use super::parts::{Bucket, Part};
use crate::aws::{Aws, AwsError, TagModel, whole_set};
use crate::deadline::Deadline;

/// Which parts to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Managed {
    /// Those that the state has.
    InState,
    /// All of them.
    Everything,
}

/// A part that failed, and how.
pub(super) type PartError = (&'static str, AwsError);

impl Model {
    /// Brings the bucket from what this says to what `planned` says, part by part, and takes over each that is done.
    pub(super) async fn write_changes(
        &mut self,
        planned: &Self,
        bucket: &Bucket,
        cancel: &CancellationToken,
    ) -> Result<(), Diagnostic> {
        let deadline = Deadline::new(CONSISTENCY, cancel);
        // Ownership and access before the policy, which they may forbid.
        let opened = self.public_access_block != planned.public_access_block;
        macro_rules! change {
            ($field:ident, $denied:expr) => {
                change(&self.$field, &planned.$field, bucket, &deadline, $denied)
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
            let (managed, wanted) = (tags(self), tags(planned));
            // S3 takes only whole sets, and refuses one without the tags that AWS itself has set.
            let write = || async {
                write_tags(bucket, &whole_set(&read_tags(bucket).await?, &managed, &wanted)).await
            };
            let written = deadline.retry(|error| is_settling(error, false), write).await;
            written.map_err(|error| planned.part_problem("write", "tags", &error))?;
        }
        *self = planned.clone();
        Ok(())
    }
}

/// Reads the parts, all at once.
pub(super) async fn refresh(
    model: &mut Model,
    bucket: &Bucket,
    aws: &Aws,
    managed: Managed,
) -> Result<(), PartError> {
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
    with_defaults.read(&tags, aws.tag_rules());
    (model.tags, model.tags_all) = (with_defaults.tags, with_defaults.tags_all);
    Ok(())
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
    deadline: &Deadline,
    denied_may_pass: bool,
) -> Result<(), PartError> {
    if before == after {
        return Ok(());
    }
    let passes = |error: &AwsError| is_settling(error, denied_may_pass);
    let done = match after {
        Attr::Known(part) => deadline.retry(passes, || part.write(bucket)).await,
        _ => deadline.retry(passes, || P::remove(bucket)).await,
    };
    done.map_err(|error| (P::ATTRIBUTE, error))
}

/// Whether S3 has only not come round yet: to the bucket itself, to another change of it, to a role, or to what may
/// be public.
fn is_settling(error: &AwsError, denied_may_pass: bool) -> bool {
    error.is(&["NoSuchBucket", "OperationAborted"])
        || names_new_principal(error)
        || (denied_may_pass && error.is_denied())
}

/// Whether a policy names a role or user that S3 does not know. It may have been made a moment ago, in the same apply.
fn names_new_principal(error: &AwsError) -> bool {
    error.is(&["MalformedPolicy"]) && error.to_string().contains("Invalid principal")
}
