//! Schemas: what users can write and read, declared beside the resource.

mod check;
pub(crate) mod validate;
mod wire;

/// Checks of single values.
pub mod validators;

use std::collections::BTreeMap;

pub use validators::Validator;

use crate::{Path, Step, Type, Value};

/// The schema of a provider, resource or data source.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    pub(crate) version: i64,
    pub(crate) description: String,
    pub(crate) attributes: BTreeMap<String, Attribute>,
    pub(crate) exactly_one_of: Vec<Vec<String>>,
}

/// One attribute.
#[derive(Clone, Debug)]
pub struct Attribute {
    pub(crate) kind: Kind,
    pub(crate) description: String,
    pub(crate) deprecated: bool,
    pub(crate) required: bool,
    pub(crate) optional: bool,
    pub(crate) computed: bool,
    pub(crate) sensitive: bool,
    pub(crate) write_only: bool,
    pub(crate) requires_replace: bool,
    pub(crate) use_state_for_unknown: bool,
    pub(crate) default: Option<Value>,
    pub(crate) validators: Vec<Validator>,
}

/// What an attribute holds.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Plain(Type),
    Nested(Nesting, Nested),
}

/// How nested attributes are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nesting {
    Single,
    List,
    Set,
    Map,
}

/// The attributes of a nested object.
#[derive(Clone, Debug, Default)]
pub struct Nested {
    pub(crate) attributes: BTreeMap<String, Attribute>,
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

    /// One of these attributes must be set, and no two of them.
    #[must_use]
    pub fn exactly_one_of(mut self, names: &[&str]) -> Self {
        self.exactly_one_of.push(names.iter().map(|name| (*name).to_owned()).collect());
        self
    }

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

impl Nested {
    /// No attributes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With an attribute.
    #[must_use]
    pub fn attribute(mut self, name: &str, attribute: Attribute) -> Self {
        self.attributes.insert(name.to_owned(), attribute);
        self
    }
}

fn object_type(attributes: &BTreeMap<String, Attribute>) -> Type {
    Type::Object(attributes.iter().map(|(name, attribute)| (name.clone(), attribute.ty())).collect())
}

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        $($(#[$doc])* #[must_use] pub fn $name(self) -> Self { Self { $name: true, ..self } })*
    };
}

impl Attribute {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            description: String::new(),
            deprecated: false,
            required: false,
            optional: false,
            computed: false,
            sensitive: false,
            write_only: false,
            requires_replace: false,
            use_state_for_unknown: false,
            default: None,
            validators: vec![],
        }
    }

    /// A string.
    pub fn string() -> Self {
        Self::new(Kind::Plain(Type::String))
    }

    /// A number.
    pub fn number() -> Self {
        Self::new(Kind::Plain(Type::Number))
    }

    /// A bool.
    pub fn bool() -> Self {
        Self::new(Kind::Plain(Type::Bool))
    }

    /// A value of any type.
    pub fn dynamic() -> Self {
        Self::new(Kind::Plain(Type::Dynamic))
    }

    /// A list.
    pub fn list(element: Type) -> Self {
        Self::new(Kind::Plain(Type::List(Box::new(element))))
    }

    /// A set.
    pub fn set(element: Type) -> Self {
        Self::new(Kind::Plain(Type::Set(Box::new(element))))
    }

    /// A map.
    pub fn map(element: Type) -> Self {
        Self::new(Kind::Plain(Type::Map(Box::new(element))))
    }

    /// One nested object.
    pub fn nested_single(nested: Nested) -> Self {
        Self::new(Kind::Nested(Nesting::Single, nested))
    }

    /// A list of nested objects.
    pub fn nested_list(nested: Nested) -> Self {
        Self::new(Kind::Nested(Nesting::List, nested))
    }

    /// A set of nested objects.
    pub fn nested_set(nested: Nested) -> Self {
        Self::new(Kind::Nested(Nesting::Set, nested))
    }

    /// A map of nested objects.
    pub fn nested_map(nested: Nested) -> Self {
        Self::new(Kind::Nested(Nesting::Map, nested))
    }

    flags! {
        /// The user must set it.
        required,
        /// The user may set it.
        optional,
        /// The provider may set it.
        computed,
        /// It is not shown in plans.
        sensitive,
        /// It is never stored: only the configuration has it.
        write_only,
        /// Changing it means another resource.
        requires_replace,
        /// Once it has a value it keeps it, whatever else changes.
        use_state_for_unknown,
        /// It should not be used any more.
        deprecated,
    }

    /// What it is, in Markdown.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        Self { description: text.into(), ..self }
    }

    /// The value where the user sets none; the attribute must be optional and computed.
    #[must_use]
    pub fn default(self, value: impl Into<Value>) -> Self {
        Self { default: Some(value.into()), ..self }
    }

    /// With a check of its value.
    #[must_use]
    pub fn validate(mut self, validator: Validator) -> Self {
        self.validators.push(validator);
        self
    }

    pub(crate) fn ty(&self) -> Type {
        match &self.kind {
            Kind::Plain(ty) => ty.clone(),
            Kind::Nested(nesting, nested) => {
                let object = object_type(&nested.attributes);
                match nesting {
                    Nesting::Single => object,
                    Nesting::List => Type::List(Box::new(object)),
                    Nesting::Set => Type::Set(Box::new(object)),
                    Nesting::Map => Type::Map(Box::new(object)),
                }
            }
        }
    }
}
