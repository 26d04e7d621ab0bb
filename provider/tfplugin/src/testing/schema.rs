//! Schemas from the wire: all that Terraform knows of a provider.

use std::collections::BTreeMap;

use crate::protocol::proto;
use crate::schema::{Items, Kind, Nesting};
use crate::{Attribute, IdentityAttribute, IdentitySchema, Nested, Parameter, Schema, Signature, Type};

/// Reads a schema. What only the provider knows, such as defaults and checks, is not in it.
pub(super) fn from_wire(wire: &proto::Schema) -> Option<Schema> {
    let block = wire.block.as_ref()?;
    let schema = Schema { attributes: object(block)?, ..Schema::new(wire.version) };
    Some(schema.description(block.description.clone()))
}

fn object(block: &proto::schema::Block) -> Option<BTreeMap<String, Attribute>> {
    let mut all = attributes(&block.attributes)?;
    for nested in &block.block_types {
        use proto::schema::nested_block::NestingMode;
        let inner = nested.block.as_ref()?;
        let nesting = match nested.nesting() {
            NestingMode::Single => Nesting::Single,
            NestingMode::List => Nesting::List,
            NestingMode::Set => Nesting::Set,
            NestingMode::Map => Nesting::Map,
            NestingMode::Group | NestingMode::Invalid => return None,
        };
        let count = |items: i64| usize::try_from(items).ok();
        let items = Items { least: count(nested.min_items)?, most: count(nested.max_items)? };
        let attribute =
            Attribute::of_kind(Kind::Nested(nesting, Nested { attributes: object(inner)?, groups: vec![] }));
        let attribute = Attribute { block: Some(items), ..attribute.description(inner.description.clone()) };
        all.insert(nested.type_name.clone(), attribute);
    }
    Some(all)
}

fn attributes(wire: &[proto::schema::Attribute]) -> Option<BTreeMap<String, Attribute>> {
    wire.iter().map(|attribute| Some((attribute.name.clone(), plain(attribute)?))).collect()
}

fn plain(wire: &proto::schema::Attribute) -> Option<Attribute> {
    use proto::schema::object::NestingMode;
    let kind = match &wire.nested_type {
        None => Kind::Plain(ty(&wire.r#type)?),
        Some(nested) => {
            let nesting = match nested.nesting() {
                NestingMode::Single => Nesting::Single,
                NestingMode::List => Nesting::List,
                NestingMode::Set => Nesting::Set,
                NestingMode::Map => Nesting::Map,
                NestingMode::Invalid => return None,
            };
            Kind::Nested(nesting, Nested { attributes: attributes(&nested.attributes)?, groups: vec![] })
        }
    };
    Some(Attribute {
        required: wire.required,
        optional: wire.optional,
        computed: wire.computed,
        sensitive: wire.sensitive,
        write_only: wire.write_only,
        deprecated: wire.deprecated.then(|| wire.deprecation_message.clone()),
        ..Attribute::of_kind(kind).description(wire.description.clone())
    })
}

/// Reads an identity schema.
pub(super) fn identity(wire: &proto::ResourceIdentitySchema) -> Option<IdentitySchema> {
    wire.identity_attributes.iter().try_fold(IdentitySchema::new(wire.version), |schema, attribute| {
        let mut identity = IdentityAttribute::new(ty(&attribute.r#type)?).description(&attribute.description);
        if attribute.optional_for_import {
            identity = identity.optional_for_import();
        }
        Some(schema.attribute(&attribute.name, identity))
    })
}

/// Reads the signature of a function.
pub(super) fn signature(wire: &proto::Function) -> Option<Signature> {
    let parameter = |wire: &proto::function::Parameter| {
        let mut parameter = Parameter::new(ty(&wire.r#type)?).description(&wire.description);
        parameter.allow_null = wire.allow_null_value;
        parameter.allow_unknown = wire.allow_unknown_values;
        Some((wire.name.clone(), parameter))
    };
    let result = ty(&wire.r#return.as_ref()?.r#type)?;
    Some(Signature {
        parameters: wire.parameters.iter().map(parameter).collect::<Option<_>>()?,
        variadic: match &wire.variadic_parameter {
            Some(wire) => Some(parameter(wire)?),
            None => None,
        },
        ..Signature::returns(result).summary(&wire.summary).description(&wire.description)
    })
}

fn ty(json: &[u8]) -> Option<Type> {
    Type::from_json(&serde_json::from_slice(json).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Block;

    #[test]
    fn a_schema_survives_the_wire() {
        let nested = || Nested::new().attribute("any", Attribute::list(Type::Number).computed().sensitive());
        let schema = Schema::new(3)
            .description("what it is")
            .attribute("name", Attribute::string().required().description("a name").deprecated("use another"))
            .attribute("secret", Attribute::string().optional().write_only())
            .attribute("any", Attribute::dynamic().optional())
            .attribute("parts", Attribute::nested_map(nested()).optional().computed())
            .attribute("bag", Attribute::nested_set(nested()).optional())
            .block("rule", Block::list(nested().block("deep", Block::set(nested()))).at_least(1).at_most(3))
            .block("timeouts", Block::single(nested()));
        let wire = schema.to_wire();
        assert_eq!(from_wire(&wire).unwrap().to_wire(), wire);
    }
}
