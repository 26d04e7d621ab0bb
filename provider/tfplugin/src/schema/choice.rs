//! Whether a configuration sets as many attributes of a group as it has to.

use std::collections::BTreeMap;

use super::attribute::Attribute;
use super::group::{Group, GroupRule};
use crate::{Diagnostic, Path, Value};

/// What is wrong with the attributes of `group` in the object `config`, which stands at `path`.
pub(super) fn problem(
    group: &Group,
    attributes: &BTreeMap<String, Attribute>,
    config: &Value,
    path: &Path,
) -> Option<Diagnostic> {
    let Group { names, rule } = group;
    // A value that is not known yet may turn out to be null, or not.
    let set = those(names, attributes, config, |value| !value.is_null());
    let known = those(names, attributes, config, |value| !value.is_null() && !value.is_unknown());
    let all = list(&names.iter().collect::<Vec<_>>());
    let place = if path.steps().is_empty() { String::new() } else { format!(" in `{path}`") };
    let at_last = |diagnostic: Diagnostic| match set.last() {
        Some(name) => diagnostic.at(path.clone().attribute(name)),
        None => diagnostic,
    };
    match rule {
        GroupRule::ExactlyOne | GroupRule::AtLeastOne if set.is_empty() => {
            let summary = if names.len() == 1 {
                format!("{all} is missing{place}")
            } else {
                format!("One of {all} is missing{place}")
            };
            let count = if *rule == GroupRule::ExactlyOne { "exactly" } else { "at least" };
            let diagnostic = Diagnostic::error(summary)
                .detail(format!("None of them is set, {count} one of {all} is expected."));
            Some(if path.steps().is_empty() { diagnostic } else { diagnostic.at(path.clone()) })
        }
        GroupRule::ExactlyOne | GroupRule::AtMostOne if known.len() > 1 => {
            let diagnostic = Diagnostic::error(format!("Only one of {all} can be set{place}"))
                .detail(format!("Found {}. Remove all but one.", list(&set)));
            Some(at_last(diagnostic))
        }
        GroupRule::AllOrNone if !known.is_empty() && set.len() < names.len() => {
            let missing: Vec<_> = names.iter().filter(|name| !set.contains(name)).collect();
            let (found, missing) = (list(&set), list(&missing));
            let diagnostic = Diagnostic::error(format!("{all} belong together{place}"))
                .detail(format!("Found {found} without {missing}. Set all of them or none."));
            Some(at_last(diagnostic))
        }
        _ => None,
    }
}

/// Those of `names` whose value passes `check`. A list of blocks that is empty counts as null.
fn those<'n>(
    names: &'n [String],
    attributes: &BTreeMap<String, Attribute>,
    config: &Value,
    check: impl Fn(&Value) -> bool,
) -> Vec<&'n String> {
    let no_blocks = |name: &str, value: &Value| {
        attributes.get(name).is_some_and(|attribute| attribute.block.is_some())
            && matches!(value, Value::List(blocks) if blocks.is_empty())
    };
    let passes =
        |name: &&String| config.get(name).is_some_and(|value| check(value) && !no_blocks(name, value));
    names.iter().filter(passes).collect()
}

fn list(names: &[&String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
