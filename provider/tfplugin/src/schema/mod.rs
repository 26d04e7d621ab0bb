//! Schemas: what users can write and read, declared beside the resource.

mod attribute;
mod block;
mod check;
mod choice;
mod configurable;
mod group;
mod identity;
pub(crate) mod validate;
mod wire;
mod written;

/// Checks of single values.
pub mod validators;

use std::collections::BTreeMap;

pub use attribute::{Attribute, Nested};
pub(crate) use attribute::{Items, Kind, Nesting};
pub use block::Block;
pub use identity::{IdentityAttribute, IdentitySchema};
pub use validators::Validator;

use attribute::object_type;
use group::{Group, GroupRule, group_rules};

use crate::{Path, Step, Type};

/// The schema of a provider, resource or data source.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    pub(crate) version: i64,
    pub(crate) description: String,
    pub(crate) deprecated: Option<String>,
    pub(crate) attributes: BTreeMap<String, Attribute>,
    pub(crate) groups: Vec<Group>,
    pub(crate) identity: Option<IdentitySchema>,
}

impl Schema {
    /// A schema; its version grows when states written under the old one need an upgrade.
    pub fn new(version: i64) -> Self {
        Self { version, ..Self::default() }
    }

    /// What it is for, in Markdown.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        Self { description: text.into(), ..self }
    }

    /// With an attribute.
    #[must_use]
    pub fn attribute(mut self, name: &str, attribute: Attribute) -> Self {
        self.attributes.insert(name.to_owned(), attribute);
        self
    }

    /// With a nested block.
    #[must_use]
    pub fn block(self, name: &str, block: Block) -> Self {
        self.attribute(name, block.0)
    }

    /// It should not be used any more; `instead` says what to do.
    #[must_use]
    pub fn deprecated(self, instead: impl Into<String>) -> Self {
        Self { deprecated: Some(instead.into()), ..self }
    }

    /// What tells one of its kind from all others, for Terraform 1.12 and later.
    #[must_use]
    pub fn identity(self, identity: IdentitySchema) -> Self {
        Self { identity: Some(identity), ..self }
    }

    group_rules!();

    /// The type of a whole value.
    pub(crate) fn ty(&self) -> Type {
        object_type(&self.attributes)
    }

    /// Whether the value at `path` must not be shown.
    pub(crate) fn hides(&self, path: &Path) -> bool {
        let mut attributes = Some(&self.attributes);
        for step in path.steps() {
            // Keys of maps stand among the steps too; they lead to no other attributes.
            let Step::Attribute(name) = step else { continue };
            let Some(attribute) = attributes.and_then(|attributes| attributes.get(name)) else {
                continue;
            };
            if attribute.sensitive || attribute.write_only {
                return true;
            }
            attributes = match &attribute.kind {
                Kind::Nested(_, nested) => Some(&nested.attributes),
                Kind::Plain(_) => None,
            };
        }
        false
    }
}
