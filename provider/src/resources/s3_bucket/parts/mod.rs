//! The configurations that S3 keeps beside a bucket: each is read, written and removed by calls of its own.

mod access;
mod keeping;
mod lifecycle;
mod web;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::BuildError;
use tfplugin::Attr;

use crate::aws::AwsError;
use crate::settings::{List, known_elements};

pub(super) use access::{Ownership, Policy, PublicAccessBlock};
pub(super) use keeping::{Encryption, Versioning};
pub(super) use lifecycle::{Lifecycle, is_date};
pub(super) use web::{Cors, Website};

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

/// Takes away what is as good as nothing.
fn null_if<T>(value: &mut Attr<T>, is_nothing: impl Fn(&T) -> bool) {
    if value.known().is_some_and(is_nothing) {
        *value = Attr::Null;
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
