//! Tags: the resource's own, the provider's `default_tags` below them, and those that other tools set and
//! `ignore_tags` names.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::Tag;
use tfplugin::{Attr, Attribute, Type};

use super::AwsError;

/// Tags by key.
pub(crate) type Tags = BTreeMap<String, String>;

/// What the provider's `aws` block says about tags.
#[derive(Clone, Debug, Default)]
pub(crate) struct TagRules {
    /// Tags of everything that is made; a resource's own win.
    pub(crate) defaults: Tags,
    /// Tags that other tools set: they are neither shown nor removed.
    pub(crate) ignored: IgnoredTags,
}

/// Keys of tags that are not Terraform's.
#[derive(Clone, Debug, Default)]
pub(crate) struct IgnoredTags {
    /// Whole keys.
    pub(crate) keys: Vec<String>,
    /// The beginnings of keys.
    pub(crate) key_prefixes: Vec<String>,
}

impl IgnoredTags {
    fn has(&self, key: &str) -> bool {
        self.keys.iter().any(|ignored| ignored == key)
            || self.key_prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }
}

/// The two attributes that every tagged resource has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TagModel {
    pub(crate) tags: Attr<BTreeMap<String, Attr<String>>>,
    pub(crate) tags_all: Attr<BTreeMap<String, Attr<String>>>,
}

/// The attribute `tags`.
pub(crate) fn tags_attribute() -> Attribute {
    Attribute::map(Type::String)
        .optional()
        .description("Tags. They win over the provider's `aws.default_tags`.")
}

/// The attribute `tags_all`.
pub(crate) fn tags_all_attribute() -> Attribute {
    Attribute::map(Type::String).computed().description("All tags, with the provider's `aws.default_tags`.")
}

/// Tags that are not the user's business: AWS' own, and those by which we find what is ours.
fn is_reserved(key: &str) -> bool {
    key.starts_with("aws:") || key == MACHINE
}

/// The tag by which all machines of a region are found in one call. Its value is the machine's name.
pub(crate) const MACHINE: &str = "nixos:machine";

impl TagModel {
    /// The planned `tags_all`. `defaults` is `None` while the provider block is not known.
    pub(crate) fn planned_all(
        tags: &Attr<BTreeMap<String, Attr<String>>>,
        defaults: Option<&Tags>,
    ) -> Attr<BTreeMap<String, Attr<String>>> {
        let Some(defaults) = defaults else { return Attr::Unknown };
        let mut all: BTreeMap<String, Attr<String>> =
            defaults.iter().map(|(key, value)| (key.clone(), Attr::Known(value.clone()))).collect();
        match tags {
            Attr::Unknown => return Attr::Unknown,
            Attr::Null => {}
            Attr::Known(tags) => all.extend(tags.clone()),
        }
        Attr::Known(all)
    }

    /// Both attributes as AWS has them: what the state did not have and `defaults` explains is not the resource's
    /// own. What the configuration sets is shown even where `ignore_tags` names it.
    pub(crate) fn read(&mut self, found: &Tags, rules: &TagRules) {
        let defaults = &rules.defaults;
        let before = self.tags.known();
        let is_set =
            |key: &String| before.is_some_and(|tags| tags.contains_key(key)) || defaults.contains_key(key);
        let shows = |key: &String| !is_reserved(key) && (!rules.ignored.has(key) || is_set(key));
        let found: Tags =
            found.iter().filter(|(key, _)| shows(key)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let own: BTreeMap<String, Attr<String>> = found
            .iter()
            .filter(|(key, value)| {
                before.is_some_and(|before| before.contains_key(*key)) || defaults.get(*key) != Some(*value)
            })
            .map(|(key, value)| (key.clone(), Attr::Known(value.clone())))
            .collect();
        self.tags = if own.is_empty() && before.is_none() { Attr::Null } else { Attr::Known(own) };
        self.tags_all =
            Attr::Known(found.into_iter().map(|(key, value)| (key, Attr::Known(value))).collect());
    }

    /// All tags as values, once they are known.
    pub(crate) fn all(&self) -> Tags {
        let known = |(key, value): (&String, &Attr<String>)| Some((key.clone(), value.known()?.clone()));
        self.tags_all.known().into_iter().flatten().filter_map(known).collect()
    }
}

/// All tags to write where AWS takes only whole sets: those that are wanted, and beside them those there that are not
/// Terraform's. `managed` are the ones that Terraform has set so far.
pub(crate) fn whole_set(there: &Tags, managed: &Tags, wanted: &Tags) -> Tags {
    let others = there.iter().filter(|(key, _)| !managed.contains_key(*key));
    let mut all: Tags = others.map(|(key, value)| (key.clone(), value.clone())).collect();
    all.extend(wanted.clone());
    all
}

/// What to set and what to remove to get from one to the other.
pub(crate) fn difference(before: &Tags, after: &Tags) -> (Tags, Vec<String>) {
    let set = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    (set.map(|(key, value)| (key.clone(), value.clone())).collect(), gone.cloned().collect())
}

/// EC2's tags as values.
pub(crate) fn ec2_tags(found: &[Tag]) -> Tags {
    let pair = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()));
    found.iter().filter_map(pair).collect()
}

/// Values as EC2's tags.
pub(crate) fn to_ec2(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// Sets and removes tags of things in EC2; without a difference, nothing is called.
pub(crate) async fn retag_ec2(
    client: &aws_sdk_ec2::Client,
    ids: &[String],
    set: &Tags,
    gone: &[String],
) -> Result<(), AwsError> {
    if !gone.is_empty() {
        let keys = gone.iter().map(|key| Tag::builder().key(key).build()).collect();
        let call = client.delete_tags().set_resources(Some(ids.to_vec())).set_tags(Some(keys));
        call.send().await.map_err(AwsError::of("ec2:DeleteTags"))?;
    }
    if !set.is_empty() {
        let call = client.create_tags().set_resources(Some(ids.to_vec())).set_tags(Some(to_ec2(set)));
        call.send().await.map_err(AwsError::of("ec2:CreateTags"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(entries: &[(&str, &str)]) -> Tags {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn known(entries: &[(&str, &str)]) -> Attr<BTreeMap<String, Attr<String>>> {
        Attr::Known(tags(entries).into_iter().map(|(key, value)| (key, Attr::Known(value))).collect())
    }

    #[test]
    fn what_the_defaults_explain_is_not_the_resources_own() {
        let rules =
            |defaults: &Tags| TagRules { defaults: defaults.clone(), ignored: IgnoredTags::default() };
        let defaults = &rules(&tags(&[("team", "infra")]));
        let mut model = TagModel { tags: Attr::Null, tags_all: Attr::Null };
        model.read(&tags(&[("team", "infra"), ("aws:x", "y"), (MACHINE, "db")]), defaults);
        assert_eq!(model, TagModel { tags: Attr::Null, tags_all: known(&[("team", "infra")]) });

        // Declared on the resource as well, it stays there: the next plan is empty.
        let mut model = TagModel { tags: known(&[("team", "infra")]), tags_all: Attr::Null };
        model.read(&tags(&[("team", "infra")]), defaults);
        assert_eq!(model.tags, known(&[("team", "infra")]));

        // What somebody else added shows, and the plan removes it.
        let mut model = TagModel { tags: Attr::Null, tags_all: Attr::Null };
        model.read(&tags(&[("team", "infra"), ("who", "me")]), defaults);
        assert_eq!(model.tags, known(&[("who", "me")]));
    }

    #[test]
    fn what_other_tools_set_is_not_seen_where_the_provider_ignores_it() {
        let ignored = IgnoredTags { keys: vec!["cost".to_owned()], key_prefixes: vec!["backup/".to_owned()] };
        let rules = TagRules { defaults: Tags::new(), ignored };
        let there = tags(&[("cost", "1"), ("backup/last", "now"), ("role", "db")]);
        let mut model = TagModel { tags: known(&[("role", "db")]), tags_all: Attr::Null };
        model.read(&there, &rules);
        assert_eq!((&model.tags, &model.tags_all), (&known(&[("role", "db")]), &known(&[("role", "db")])));
        // What the configuration sets is Terraform's all the same.
        let mut model = TagModel { tags: known(&[("cost", "2")]), tags_all: Attr::Null };
        model.read(&there, &rules);
        assert_eq!(model.tags, known(&[("cost", "1"), ("role", "db")]));
    }

    #[test]
    fn a_whole_set_keeps_the_tags_of_others() {
        let there = tags(&[("aws:cloudformation:stack-name", "s"), ("a", "1"), ("cost", "1")]);
        let written = whole_set(&there, &tags(&[("a", "1")]), &tags(&[("b", "2")]));
        assert_eq!(written, tags(&[("aws:cloudformation:stack-name", "s"), ("b", "2"), ("cost", "1")]));
    }

    #[test]
    fn own_tags_win_over_the_defaults() {
        let all = TagModel::planned_all(
            &known(&[("team", "web")]),
            Some(&tags(&[("team", "infra"), ("env", "test")])),
        );
        assert_eq!(all, known(&[("env", "test"), ("team", "web")]));
        assert_eq!(TagModel::planned_all(&Attr::Unknown, Some(&tags(&[]))), Attr::Unknown);
    }

    #[test]
    fn only_what_differs_is_written() {
        let (set, gone) =
            difference(&tags(&[("a", "1"), ("b", "2")]), &tags(&[("a", "1"), ("b", "3"), ("c", "4")]));
        assert_eq!((set, gone), (tags(&[("b", "3"), ("c", "4")]), vec![]));
        assert_eq!(difference(&tags(&[("a", "1")]), &tags(&[])), (tags(&[]), vec!["a".to_owned()]));
    }
}
