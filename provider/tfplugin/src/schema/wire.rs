//! Schemas as the protocol has them.

use std::collections::BTreeMap;

use super::{Attribute, Kind, Nesting, Schema};
use crate::server::proto;

impl Schema {
    pub(crate) fn to_wire(&self) -> proto::Schema {
        proto::Schema {
            version: self.version,
            block: Some(proto::schema::Block {
                version: 0,
                attributes: attributes(&self.attributes),
                description: self.description.clone(),
                description_kind: proto::StringKind::Markdown.into(),
                deprecated: false,
            }),
        }
    }
}

fn attributes(attributes: &BTreeMap<String, Attribute>) -> Vec<proto::schema::Attribute> {
    attributes.iter().map(|(name, attribute)| attribute.to_wire(name)).collect()
}

impl Attribute {
    fn to_wire(&self, name: &str) -> proto::schema::Attribute {
        let (ty, nested_type) = match &self.kind {
            Kind::Plain(ty) => (ty.to_json().to_string().into_bytes(), None),
            Kind::Nested(nesting, nested) => {
                use proto::schema::object::NestingMode;
                let nesting = match nesting {
                    Nesting::Single => NestingMode::Single,
                    Nesting::List => NestingMode::List,
                    Nesting::Set => NestingMode::Set,
                    Nesting::Map => NestingMode::Map,
                };
                let object = proto::schema::Object {
                    attributes: attributes(&nested.attributes),
                    nesting: nesting.into(),
                };
                (vec![], Some(object))
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
            deprecated: self.deprecated,
            write_only: self.write_only,
        }
    }
}
