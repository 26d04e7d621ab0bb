//! Checks of schemas themselves: Terraform's rules, and ours that everything is described. Run by every provider's tests.

use std::collections::BTreeMap;

use super::group::Group;
use super::{Attribute, Items, Kind, Nesting, Schema};
use crate::Type;

/// Names that Terraform keeps for itself at the root of a resource.
const RESERVED: &[&str] =
    &["connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioner"];

impl Schema {
    /// What is wrong with the schema of a resource, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = self.common_problems();
        problems.extend(
            RESERVED
                .iter()
                .filter(|name| self.attributes.contains_key(**name))
                .map(|name| format!("`{name}` is reserved")),
        );
        problems
    }

    /// The same for what is not stored: data sources, ephemeral resources, lists and actions.
    pub(crate) fn unstored_problems(&self) -> Vec<String> {
        let mut problems = self.problems();
        unstored(&self.attributes, &mut problems);
        problems
    }

    /// The same for a provider block.
    pub(crate) fn provider_problems(&self) -> Vec<String> {
        let mut problems = self.common_problems();
        let reserved = ["alias", "version"].into_iter().filter(|name| self.attributes.contains_key(*name));
        problems.extend(reserved.map(|name| format!("`{name}` is reserved")));
        unstored(&self.attributes, &mut problems);
        problems
    }

    fn common_problems(&self) -> Vec<String> {
        let mut problems = vec![];
        if self.description.is_empty() {
            problems.push("the schema has no description".to_owned());
        }
        check_groups(&self.groups, &self.attributes, "", &mut problems);
        problems.extend(self.identity.iter().flat_map(|identity| identity.problems(&self.attributes)));
        check_object(&self.attributes, "", Within::default(), &mut problems);
        problems
    }
}

fn check_groups(
    groups: &[Group],
    attributes: &BTreeMap<String, Attribute>,
    prefix: &str,
    problems: &mut Vec<String>,
) {
    let names = groups.iter().flat_map(|group| &group.names);
    let lost = names.filter(|name| !attributes.contains_key(*name));
    problems.extend(lost.map(|name| format!("`{prefix}{name}` of a group is no attribute")));
}

/// What only a state gives a meaning to.
fn unstored(attributes: &BTreeMap<String, Attribute>, problems: &mut Vec<String>) {
    for (name, attribute) in attributes {
        if attribute.write_only || attribute.requires_replace || attribute.use_state_for_unknown {
            problems.push(format!(
                "`{name}` is write-only, requires replacement or keeps its value, which only attributes of resources can"
            ));
        }
        if let Kind::Nested(_, nested) = &attribute.kind {
            unstored(&nested.attributes, problems);
        }
    }
}

/// What an attribute is inside of.
#[derive(Clone, Copy, Default)]
struct Within {
    collection: bool,
    set: bool,
    attribute: bool,
}

fn check_object(
    attributes: &BTreeMap<String, Attribute>,
    prefix: &str,
    within: Within,
    problems: &mut Vec<String>,
) {
    for (name, attribute) in attributes {
        let path = format!("{prefix}{name}");
        let mut wrong = |what: &str| problems.push(format!("`{path}` {what}"));
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if name.is_empty() || !name.chars().all(legal) {
            wrong("is not named in lower case with underscores");
        }
        if attribute.description.is_empty() {
            wrong("has no description");
        }
        if let Some(Items { least, most }) = attribute.block
            && (most > 0 && least > most
                || least > 1 && matches!(attribute.kind, Kind::Nested(Nesting::Single, _)))
        {
            wrong("wants more blocks than there can be");
        }
        if attribute.block.is_some() && within.attribute {
            wrong("is a block within an attribute, where there can be attributes only");
        }
        if attribute.block.is_none() && !attribute.required && !attribute.optional && !attribute.computed {
            wrong("is neither required nor optional nor computed");
        }
        if attribute.required && (attribute.optional || attribute.computed) {
            wrong("is required, so it cannot be optional or computed");
        }
        if attribute.write_only && (attribute.computed || within.set) {
            wrong("is write-only, so it cannot be computed or in a set");
        }
        if attribute.default.is_some() && !(attribute.optional && attribute.computed) {
            wrong("has a default, so it must be optional and computed");
        }
        if attribute.use_state_for_unknown && !attribute.computed {
            wrong("keeps its value from the state, so it must be computed");
        }
        if attribute.write_only && attribute.requires_replace {
            wrong("is write-only, so nothing tells when it changes, and it cannot require replacement");
        }
        if within.collection && matches!(attribute.kind, Kind::Plain(Type::Dynamic)) {
            wrong("is dynamic within a collection");
        }
        if let Kind::Nested(nesting, nested) = &attribute.kind {
            let within = Within {
                collection: within.collection || *nesting != Nesting::Single,
                set: within.set || *nesting == Nesting::Set,
                attribute: attribute.block.is_none(),
            };
            let prefix = format!("{path}.");
            check_groups(&nested.groups, &nested.attributes, &prefix, problems);
            check_object(&nested.attributes, &prefix, within, problems);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Nested;

    #[test]
    fn mistakes_are_found() {
        let schema = Schema::new(0)
            .description("x")
            .attribute("count", Attribute::string().optional().description("x"))
            .attribute("both", Attribute::string().required().computed().description("x"))
            .attribute("none", Attribute::string().description("x"))
            .attribute(
                "map",
                Attribute::nested_map(Nested::new().attribute("any", Attribute::dynamic().optional()))
                    .optional()
                    .description("x"),
            );
        let problems = schema.problems().join("\n");
        for expected in [
            "`count` is reserved",
            "`both` is required",
            "`none` is neither",
            "`map.any` has no description",
            "`map.any` is dynamic",
        ] {
            assert!(problems.contains(expected), "{expected} not in\n{problems}");
        }
    }
}
