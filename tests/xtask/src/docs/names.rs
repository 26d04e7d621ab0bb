//! Names in nested attributes. Terraform drops what the schema of one does not have without a word (`rollout = {
//! max_failure = 1 }`), so `terraform validate` does not find a misspelt one.

use std::collections::BTreeMap;

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, Object, ObjectKey};
use hcl_edit::structure::{Block, Body};

use super::schema::{Attribute, NestedType, Nesting, ProviderSchema};

/// A name that nothing has.
#[derive(Debug, PartialEq)]
pub(crate) struct Unknown {
    pub(crate) line: usize,
    /// Where in the block.
    pub(crate) path: String,
    pub(crate) name: String,
}

/// All of a file; none where it cannot be read, which Terraform tells better.
pub(crate) fn unknown_names(text: &str, schema: &ProviderSchema) -> Vec<Unknown> {
    let Ok(body) = text.parse::<Body>() else { return vec![] };
    let mut search = Search { text, found: vec![] };
    for block in body.blocks() {
        let Some(attributes) = attributes(block, schema) else { continue };
        for attribute in block.body.attributes() {
            let name = attribute.key.as_str();
            if let Some(nested) = attributes.get(name).and_then(|attribute| attribute.nested_type.as_ref()) {
                search.value(&attribute.value, nested, name);
            }
        }
    }
    search.found
}

/// What a block at the top of a file may have.
fn attributes<'a>(block: &Block, schema: &'a ProviderSchema) -> Option<&'a BTreeMap<String, Attribute>> {
    let label = block.labels.first()?.as_str();
    let schema = match block.ident.as_str() {
        "provider" if label == super::page::PROVIDER => Some(&schema.provider),
        "resource" => schema.resource_schemas.get(label),
        "data" => schema.data_source_schemas.get(label),
        "ephemeral" => schema.ephemeral_resource_schemas.get(label),
        _ => None,
    };
    Some(&schema?.block.attributes)
}

struct Search<'a> {
    text: &'a str,
    found: Vec<Unknown>,
}

impl Search<'_> {
    /// The value of a nested attribute: an object, or a collection of them. What is computed otherwise is not looked
    /// at.
    fn value(&mut self, value: &Expression, nested: &NestedType, path: &str) {
        match (value, nested.nesting_mode) {
            (Expression::Parenthesis(inner), _) => self.value(inner.inner(), nested, path),
            (Expression::Conditional(either), _) => {
                self.value(&either.true_expr, nested, path);
                self.value(&either.false_expr, nested, path);
            }
            (Expression::Object(object), Nesting::Single | Nesting::Group) => {
                self.object(object, &nested.attributes, path);
            }
            (Expression::Object(elements), Nesting::Map) => {
                elements.iter().for_each(|(_, element)| self.element(element.expr(), nested, path));
            }
            (Expression::Array(elements), Nesting::List | Nesting::Set) => {
                elements.iter().for_each(|element| self.element(element, nested, path));
            }
            (Expression::ForExpr(all), Nesting::List | Nesting::Set | Nesting::Map) => {
                self.element(&all.value_expr, nested, path);
            }
            _ => {}
        }
    }

    fn element(&mut self, element: &Expression, nested: &NestedType, path: &str) {
        match element {
            Expression::Parenthesis(inner) => self.element(inner.inner(), nested, path),
            Expression::Conditional(either) => {
                self.element(&either.true_expr, nested, path);
                self.element(&either.false_expr, nested, path);
            }
            Expression::Object(object) => self.object(object, &nested.attributes, path),
            _ => {}
        }
    }

    fn object(&mut self, object: &Object, attributes: &BTreeMap<String, Attribute>, path: &str) {
        for (key, value) in object {
            let name = match key {
                ObjectKey::Ident(name) => name.as_str(),
                ObjectKey::Expression(Expression::String(name)) => name.as_str(),
                ObjectKey::Expression(_) => continue,
            };
            let Some(attribute) = attributes.get(name) else {
                let before = key.span().and_then(|span| self.text.get(..span.start)).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                self.found.push(Unknown { line, path: path.to_owned(), name: name.to_owned() });
                continue;
            };
            if let Some(nested) = &attribute.nested_type {
                self.value(value.expr(), nested, &format!("{path}.{name}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, String)> {
        let schema: ProviderSchema =
            serde_json::from_str(include_str!("fixture.json")).expect("the fixture is a schema");
        unknown_names(text, &schema)
            .into_iter()
            .map(|it| (it.line, format!("{}.{}", it.path, it.name)))
            .collect()
    }

    #[test]
    fn a_misspelt_name_is_found_wherever_the_object_is() {
        let text = r#"
            resource "nixos_thing" "a" {
              place = {
                hots  = "a"
                jumps = [{ host = "b" }, { "hots" = "c" }]
              }
              parts = { any = { size = 1, colour = "red" } }
            }
            resource "nixos_thing" "b" {
              place = var.there ? ({ hosts = "a" }) : null
              parts = { for name in var.names : name => { sizes = 1 } }
            }
        "#;
        let expected = [
            (4, "place.hots"),
            (5, "place.jumps.hots"),
            (7, "parts.colour"),
            (10, "place.hosts"),
            (11, "parts.sizes"),
        ];
        assert_eq!(found(text), expected.map(|(line, name)| (line, name.to_owned())));
    }

    #[test]
    fn what_is_computed_and_what_is_not_ours_is_left_alone() {
        let text = r#"
            resource "nixos_thing" "a" {
              place = merge(var.place, { hots = "a" })
              parts = { any = { (var.key) = 1 } }
              tags  = { any = "a" }
            }
            resource "other_thing" "a" {
              place = { hots = "a" }
            }
        "#;
        assert_eq!(found(text), []);
    }
}
