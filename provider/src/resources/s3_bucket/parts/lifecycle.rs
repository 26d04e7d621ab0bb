//! What becomes of objects as they grow old.

use std::collections::BTreeMap;

use aws_sdk_s3::operation::get_bucket_lifecycle_configuration::GetBucketLifecycleConfigurationOutput;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sdk_s3::types as s3;
use serde::{Deserialize, Serialize};
use tfplugin::Attr;

use super::{Bucket, Part, built, null_if, or_none, text};
use crate::aws::AwsError;
use crate::settings::List;

/// When objects move to cheaper storage and when they go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Lifecycle(Vec<Attr<LifecycleRule>>);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LifecycleRule {
    id: Attr<String>,
    enabled: Attr<bool>,
    filter: Attr<LifecycleFilter>,
    expiration: Attr<Expiration>,
    transitions: List<Transition>,
    noncurrent_version_expiration: Attr<NoncurrentExpiration>,
    noncurrent_version_transitions: List<NoncurrentTransition>,
    abort_incomplete_multipart_upload_days: Attr<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LifecycleFilter {
    prefix: Attr<String>,
    tags: Attr<BTreeMap<String, Attr<String>>>,
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
pub(crate) fn is_date(text: &str) -> bool {
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

    /// The prefix of a rule that was written before S3 had filters. Without it the rule would come to mean the whole
    /// bucket when it is written again.
    fn before_filters(rule: &s3::LifecycleRule) -> Option<Self> {
        #[expect(deprecated, reason = "S3 still returns it for rules that old tools have written")]
        let prefix = rule.prefix().filter(|prefix| !prefix.is_empty())?;
        Some(Self { prefix: Attr::Known(prefix.to_owned()), ..Self::default() })
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
        let tags: BTreeMap<_, _> =
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
            transitions.iter().filter_map(Attr::known).map(one).collect()
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
            transitions.iter().filter_map(Attr::known).map(one).collect()
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

    /// The rule as S3 gives it back: what is empty is not there.
    fn plain(&self) -> Self {
        let mut plain = self.clone();
        if plain.enabled.is_null() {
            plain.enabled = Attr::Known(true);
        }
        if let Attr::Known(filter) = &mut plain.filter {
            null_if(&mut filter.tags, BTreeMap::is_empty);
            null_if(&mut filter.prefix, String::is_empty);
        }
        null_if(&mut plain.filter, |filter| *filter == LifecycleFilter::default());
        null_if(&mut plain.transitions, Vec::is_empty);
        null_if(&mut plain.noncurrent_version_transitions, Vec::is_empty);
        plain
    }

    fn from_s3(rule: &s3::LifecycleRule) -> Self {
        let transition = |transition: &s3::Transition| {
            Attr::Known(Transition {
                days: Attr::from(transition.days()),
                date: date_text(transition.date()),
                storage_class: text(transition.storage_class().map(s3::TransitionStorageClass::as_str)),
            })
        };
        let moved = |transition: &s3::NoncurrentVersionTransition| {
            Attr::Known(NoncurrentTransition {
                noncurrent_days: Attr::from(transition.noncurrent_days()),
                newer_noncurrent_versions: Attr::from(transition.newer_noncurrent_versions()),
                storage_class: text(transition.storage_class().map(s3::TransitionStorageClass::as_str)),
            })
        };
        let some = |items: Vec<_>| if items.is_empty() { Attr::Null } else { Attr::Known(items) };
        let some_moved = |items: Vec<_>| if items.is_empty() { Attr::Null } else { Attr::Known(items) };
        Self {
            id: text(rule.id()),
            enabled: Attr::Known(rule.status().as_str() == "Enabled"),
            filter: Attr::from(
                rule.filter()
                    .and_then(LifecycleFilter::from_s3)
                    .or_else(|| LifecycleFilter::before_filters(rule)),
            ),
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

/// The configuration as S3 has it.
async fn get(bucket: &Bucket) -> Result<Option<GetBucketLifecycleConfigurationOutput>, AwsError> {
    let call = bucket.client.get_bucket_lifecycle_configuration().bucket(&bucket.name);
    let found = call.send().await.map_err(AwsError::of("s3:GetLifecycleConfiguration"));
    or_none(found, "NoSuchLifecycleConfiguration")
}

impl Part for Lifecycle {
    const ATTRIBUTE: &'static str = "lifecycle_rules";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let found = get(bucket).await?;
        Ok(found.map(|found| {
            Self(found.rules().iter().map(|rule| Attr::Known(LifecycleRule::from_s3(rule))).collect())
        }))
    }

    async fn write(&self, bucket: &Bucket) -> Result<(), AwsError> {
        const ACTION: &str = "s3:PutLifecycleConfiguration";
        let rules =
            self.0.iter().filter_map(Attr::known).map(LifecycleRule::to_s3).collect::<Result<Vec<_>, _>>()?;
        let configuration = s3::BucketLifecycleConfiguration::builder().set_rules(Some(rules)).build();
        // What the whole configuration has beside its rules stays as it is. Without it S3 would go back to its default.
        let there = get(bucket).await?;
        let smallest = there.and_then(|there| there.transition_default_minimum_object_size().cloned());
        let call = bucket.client.put_bucket_lifecycle_configuration().bucket(&bucket.name);
        let call = call.set_transition_default_minimum_object_size(smallest);
        let sent = call.lifecycle_configuration(built(ACTION)(configuration)?).send().await;
        sent.map(drop).map_err(AwsError::of(ACTION))
    }

    async fn remove(bucket: &Bucket) -> Result<(), AwsError> {
        let call = bucket.client.delete_bucket_lifecycle().bucket(&bucket.name);
        call.send().await.map(drop).map_err(AwsError::of("s3:PutLifecycleConfiguration"))
    }

    /// S3 may give rules back in another order.
    fn same(&self, other: &Self) -> bool {
        let [ours, theirs] = [self, other].map(|rules| {
            rules.0.iter().map(|rule| rule.as_ref().map(LifecycleRule::plain)).collect::<Vec<_>>()
        });
        ours.len() == theirs.len() && ours.iter().all(|rule| theirs.contains(rule))
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
            transitions: known(vec![known(Transition {
                days: known(30),
                storage_class: known("GLACIER".into()),
                ..Transition::default()
            })]),
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
    fn a_rule_from_before_there_were_filters_keeps_its_prefix() {
        #[expect(deprecated, reason = "this is how they are")]
        let old = s3::LifecycleRule::builder()
            .id("logs")
            .prefix("logs/")
            .status("Enabled".into())
            .expiration(s3::LifecycleExpiration::builder().days(1).build())
            .build()
            .unwrap();
        let read = LifecycleRule::from_s3(&old);
        let written = read.to_s3().unwrap();
        assert_eq!(written.filter().and_then(s3::LifecycleRuleFilter::prefix), Some("logs/"));
    }

    #[test]
    fn what_is_empty_means_the_same_as_what_is_not_there() {
        let bare =
            LifecycleRule { id: known("all".into()), enabled: known(true), ..LifecycleRule::default() };
        let empty = LifecycleRule {
            filter: known(LifecycleFilter {
                prefix: known(String::new()),
                tags: known(BTreeMap::new()),
                ..LifecycleFilter::default()
            }),
            transitions: known(vec![]),
            noncurrent_version_transitions: known(vec![]),
            ..bare.clone()
        };
        assert!(Lifecycle(vec![known(bare.clone())]).same(&Lifecycle(vec![known(empty.clone())])));
        let other = LifecycleRule {
            filter: known(LifecycleFilter { prefix: known("a".into()), ..LifecycleFilter::default() }),
            ..empty
        };
        assert!(!Lifecycle(vec![known(bare)]).same(&Lifecycle(vec![known(other)])));
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
}
