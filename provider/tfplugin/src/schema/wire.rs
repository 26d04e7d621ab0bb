//! Schemas as the protocol has them.

use std::collections::BTreeMap;

use super::{Attribute, Items, Kind, Nesting, Schema};
use crate::protocol::proto;
use proto::schema::nested_block::NestingMode as BlockNesting;
use proto::schema::object::NestingMode;

impl Schema {
    pub(crate) fn to_wire(&self) -> proto::Schema {
        let block = block(&self.attributes, &self.description, self.deprecated.as_deref());
        proto::Schema { version: self.version, block: Some(block) }
    }
}

fn block(
    attributes: &BTreeMap<String, Attribute>,
    description: &str,
    deprecated: Option<&str>,
) -> proto::schema::Block {
    let blocks = attributes.iter().filter_map(|(name, attribute)| attribute.to_block(name));
    proto::schema::Block {
        version: 0,
        attributes: plain(attributes),
        block_types: blocks.collect(),
        description: description.to_owned(),
        description_kind: proto::StringKind::Markdown.into(),
        deprecated: deprecated.is_some(),
        deprecation_message: deprecated.unwrap_or_default().to_owned(),
        computed: false,
    }
}

/// Those attributes that are no blocks.
fn plain(attributes: &BTreeMap<String, Attribute>) -> Vec<proto::schema::Attribute> {
    let attributes = attributes.iter().filter(|(_, attribute)| attribute.block.is_none());
    attributes.map(|(name, attribute)| attribute.to_wire(name)).collect()
}

impl Attribute {
    fn to_wire(&self, name: &str) -> proto::schema::Attribute {
        let (ty, nested_type) = match &self.kind {
            Kind::Plain(ty) => (ty.to_json().to_string().into_bytes(), None),
            Kind::Nested(nesting, nested) => {
                let nesting = match nesting {
                    Nesting::Single => NestingMode::Single,
                    Nesting::List => NestingMode::List,
                    Nesting::Set => NestingMode::Set,
                    Nesting::Map => NestingMode::Map,
                };
                let attributes = plain(&nested.attributes);
                (vec![], Some(proto::schema::Object { attributes, nesting: nesting.into() }))
            }
        };
        proto::schema::Attribute {
            name: name.to_owned(),
            r#type: ty,
            nested_type,
            description: self.description.clone(),
            description_kind: proto::StringKind::Markdown.into(),
            required: self.required,
            optional: self.optional,
            computed: self.computed,
            sensitive: self.sensitive,
            deprecated: self.deprecated.is_some(),
            deprecation_message: self.deprecated.clone().unwrap_or_default(),
            write_only: self.write_only,
        }
    }

    fn to_block(&self, name: &str) -> Option<proto::schema::NestedBlock> {
        let (Some(Items { least, most }), Kind::Nested(nesting, nested)) = (self.block, &self.kind) else {
            return None;
        };
        let count = |items: usize| i64::try_from(items).unwrap_or(i64::MAX);
        let (nesting, most) = match nesting {
            // Terraform wants both limits to be the same where there can be one.
            Nesting::Single => (BlockNesting::Single, least),
            Nesting::List => (BlockNesting::List, most),
            Nesting::Set => (BlockNesting::Set, most),
            Nesting::Map => (BlockNesting::Map, most),
        };
        Some(proto::schema::NestedBlock {
            type_name: name.to_owned(),
            block: Some(block(&nested.attributes, &self.description, self.deprecated.as_deref())),
            nesting: nesting.into(),
            min_items: count(least),
            max_items: count(most),
        })
    }
}
