//! Checks of schemas themselves: Terraform's rules, and ours that everything is described. Run by every provider's tests.

use std::collections::BTreeMap;

use super::{Attribute, Kind, Nesting, Schema};
use crate::Type;

/// Names that Terraform keeps for itself at the root of a resource.
const RESERVED: &[&str] =
    &["connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioner"];

impl Schema {
    /// What is wrong with the schema, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = vec![];
        if self.description.is_empty() {
            problems.push("the schema has no description".to_owned());
        }
        problems.extend(
            RESERVED
                .iter()
                .filter(|name| self.attributes.contains_key(**name))
                .map(|name| format!("`{name}` is reserved")),
        );
        for name in self.exactly_one_of.iter().flatten() {
            if !self.attributes.contains_key(name) {
                problems.push(format!("`{name}` in exactly_one_of is no attribute"));
            }
        }
        check_object(&self.attributes, "", Within::default(), &mut problems);
        problems
    }
}

/// What an attribute is inside of.
#[derive(Clone, Copy, Default)]
struct Within {
    collection: bool,
    set: bool,
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
        if !attribute.required && !attribute.optional && !attribute.computed {
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
        if within.collection && matches!(attribute.kind, Kind::Plain(Type::Dynamic)) {
            wrong("is dynamic within a collection");
        }
        if let Kind::Nested(nesting, nested) = &attribute.kind {
            let within = Within {
                collection: within.collection || *nesting != Nesting::Single,
                set: within.set || *nesting == Nesting::Set,
            };
            check_object(&nested.attributes, &format!("{path}."), within, problems);
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
