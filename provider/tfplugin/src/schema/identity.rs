//! Resource identity: the few attributes that tell one resource from all others, also after its state is lost.
//!
//! Terraform 1.12 and later keep it beside the state, import by it, and list by it. Each attribute has the value of the state's
//! attribute of the same name, so a resource has nothing more to do than to declare it.

use std::collections::BTreeMap;

use super::attribute::{Attribute, Kind};
use crate::protocol::proto;
use crate::{Type, Value};

/// The attributes that identify a resource.
#[derive(Clone, Debug, Default)]
pub struct IdentitySchema {
    version: i64,
    attributes: BTreeMap<String, IdentityAttribute>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct IdentityAttribute {
    ty: Type,
    description: String,
    optional_for_import: bool,
}

impl IdentitySchema {
    /// A schema; its version grows when identities written under the old one need an upgrade.
    pub fn new(version: i64) -> Self {
        Self { version, ..Self::default() }
    }

    /// With the root attribute `name` of the resource.
    #[must_use]
    pub fn attribute(mut self, name: &str, attribute: IdentityAttribute) -> Self {
        self.attributes.insert(name.to_owned(), attribute);
        self
    }

    pub(crate) fn version(&self) -> i64 {
        self.version
    }

    pub(crate) fn ty(&self) -> Type {
        Type::Object(
            self.attributes.iter().map(|(name, attribute)| (name.clone(), attribute.ty.clone())).collect(),
        )
    }

    /// The identity of what has this state. `Err` names an attribute that has no value.
    pub(crate) fn of<'s>(&'s self, state: &Value) -> Result<Value, &'s str> {
        let entries = self.attributes.iter().map(|(name, attribute)| match state.get(name) {
            Some(value) if !value.is_null() => Ok((name.clone(), value.clone())),
            _ if attribute.optional_for_import => Ok((name.clone(), Value::Null)),
            _ => Err(name.as_str()),
        });
        entries.collect::<Result<_, _>>().map(Value::Map)
    }

    pub(super) fn problems(&self, attributes: &BTreeMap<String, Attribute>) -> Vec<String> {
        let mut problems = vec![];
        if self.attributes.is_empty() {
            problems.push("the identity has no attributes".to_owned());
        }
        for (name, identity) in &self.attributes {
            match attributes.get(name) {
                Some(attribute) if attribute.ty() != identity.ty => {
                    problems.push(format!("`{name}` of the identity has another type than the attribute"));
                }
                Some(attribute) if attribute.write_only || attribute.sensitive => {
                    problems.push(format!("`{name}` is sensitive, so it cannot be part of the identity"));
                }
                Some(attribute) if matches!(attribute.kind, Kind::Nested(..)) => {
                    problems.push(format!("`{name}` is nested, so it cannot be part of the identity"));
                }
                Some(_) => {}
                None => problems.push(format!("`{name}` of the identity is no attribute")),
            }
        }
        problems
    }

    pub(crate) fn to_wire(&self) -> proto::ResourceIdentitySchema {
        let attribute = |(name, attribute): (&String, &IdentityAttribute)| {
            proto::resource_identity_schema::IdentityAttribute {
                name: name.clone(),
                r#type: attribute.ty.to_json().to_string().into_bytes(),
                required_for_import: !attribute.optional_for_import,
                optional_for_import: attribute.optional_for_import,
                description: attribute.description.clone(),
            }
        };
        proto::ResourceIdentitySchema {
            version: self.version,
            identity_attributes: self.attributes.iter().map(attribute).collect(),
        }
    }
}

impl IdentityAttribute {
    /// An attribute of a primitive type, or a list of one.
    pub fn new(ty: Type) -> Self {
        Self { ty, description: String::new(), optional_for_import: false }
    }

    /// What it is.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        Self { description: text.into(), ..self }
    }

    /// An import may leave it out, because the provider knows it otherwise.
    #[must_use]
    pub fn optional_for_import(self) -> Self {
        Self { optional_for_import: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Schema;

    fn identity() -> IdentitySchema {
        IdentitySchema::new(0)
            .attribute("name", IdentityAttribute::new(Type::String))
            .attribute("region", IdentityAttribute::new(Type::String).optional_for_import())
    }

    #[test]
    fn an_identity_is_taken_from_the_state() {
        let state = |name: Value| {
            Value::Map(
                [("name".into(), name), ("region".into(), Value::Null), ("size".into(), 1i64.into())].into(),
            )
        };
        let expected = Value::Map([("name".into(), "x".into()), ("region".into(), Value::Null)].into());
        assert_eq!(identity().of(&state("x".into())), Ok(expected));
        assert_eq!(identity().of(&state(Value::Null)), Err("name"));
    }

    #[test]
    fn an_identity_that_cannot_be_taken_is_a_problem() {
        let schema = Schema::new(0)
            .description("x")
            .attribute("name", Attribute::number().required().description("x"))
            .identity(identity());
        let problems = schema.problems().join("\n");
        for expected in
            ["`name` of the identity has another type", "`region` of the identity is no attribute"]
        {
            assert!(problems.contains(expected), "{problems}");
        }
    }
}
