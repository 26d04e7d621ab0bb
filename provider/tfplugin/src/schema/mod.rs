//! Schemas: what users can write and read, declared beside the resource.

mod check;
mod identity;
pub(crate) mod validate;
mod wire;
mod written;

/// Checks of single values.
pub mod validators;

use std::collections::BTreeMap;

pub use identity::{IdentityAttribute, IdentitySchema};
pub use validators::Validator;

use crate::{Path, Step, Type, Value};

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

/// Attributes of which so many have to be set.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) names: Vec<String>,
    pub(crate) rule: GroupRule,
}

/// How many of a group's attributes have to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupRule {
    ExactlyOne,
    AtMostOne,
    AtLeastOne,
    AllOrNone,
}

/// One attribute.
#[derive(Clone, Debug)]
pub struct Attribute {
    pub(crate) kind: Kind,
    pub(crate) description: String,
    pub(crate) deprecated: Option<String>,
    pub(crate) block: Option<Items>,
    pub(crate) required: bool,
    pub(crate) optional: bool,
    pub(crate) computed: bool,
    pub(crate) sensitive: bool,
    pub(crate) write_only: bool,
    pub(crate) requires_replace: bool,
    pub(crate) use_state_for_unknown: bool,
    pub(crate) null_elements: bool,
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

/// How many blocks of a kind there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Items {
    pub(crate) least: usize,
    /// Zero: as many as one likes.
    pub(crate) most: usize,
}

/// A nested block: `rule { … }`. New schemas say the same with nested attributes, whose values may be null, computed and come
/// from expressions; blocks are for configurations that have them already.
///
/// To a resource a block is an attribute like others: a list or set of objects that is empty, never null, without blocks.
#[derive(Clone, Debug)]
pub struct Block(Attribute);

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

    /// One of these attributes must be set, and no two of them.
    #[must_use]
    pub fn exactly_one_of(self, names: &[&str]) -> Self {
        self.group(GroupRule::ExactlyOne, names)
    }

    /// No two of these attributes may be set.
    #[must_use]
    pub fn at_most_one_of(self, names: &[&str]) -> Self {
        self.group(GroupRule::AtMostOne, names)
    }

    /// One or more of these attributes must be set.
    #[must_use]
    pub fn at_least_one_of(self, names: &[&str]) -> Self {
        self.group(GroupRule::AtLeastOne, names)
    }

    /// These attributes must be set together or not at all.
    #[must_use]
    pub fn all_or_none_of(self, names: &[&str]) -> Self {
        self.group(GroupRule::AllOrNone, names)
    }

    fn group(mut self, rule: GroupRule, names: &[&str]) -> Self {
        self.groups.push(Group { rule, names: names.iter().map(|name| (*name).to_owned()).collect() });
        self
    }

    /// What of a state a user can have written: nothing that only the provider sets, nothing that is as by default, and of
    /// attributes that exclude each other the first.
    pub(crate) fn configurable(&self, state: Value) -> Value {
        let mut config = configurable(&self.attributes, state);
        if let Value::Map(entries) = &mut config {
            for group in &self.groups {
                if matches!(group.rule, GroupRule::ExactlyOne | GroupRule::AtMostOne) {
                    let set = |name: &&String| entries.get(*name).is_some_and(|value| !value.is_null());
                    let surplus: Vec<String> = group.names.iter().filter(set).skip(1).cloned().collect();
                    entries.extend(surplus.into_iter().map(|name| (name, Value::Null)));
                }
            }
        }
        config
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

    /// With a nested block; only a block can have one.
    #[must_use]
    pub fn block(self, name: &str, block: Block) -> Self {
        self.attribute(name, block.0)
    }
}

impl Block {
    fn new(nesting: Nesting, nested: Nested) -> Self {
        Self(Attribute { block: Some(Items::default()), ..Attribute::of_kind(Kind::Nested(nesting, nested)) })
    }

    /// At most one block; null where there is none.
    pub fn single(nested: Nested) -> Self {
        Self::new(Nesting::Single, nested)
    }

    /// Any number of blocks, in order.
    pub fn list(nested: Nested) -> Self {
        Self::new(Nesting::List, nested)
    }

    /// Any number of blocks, each once.
    pub fn set(nested: Nested) -> Self {
        Self::new(Nesting::Set, nested)
    }

    /// What it is, in Markdown.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        Self(self.0.description(text))
    }

    /// It should not be used any more; `instead` says what to do.
    #[must_use]
    pub fn deprecated(self, instead: impl Into<String>) -> Self {
        Self(self.0.deprecated(instead))
    }

    /// Changing it means another resource.
    #[must_use]
    pub fn requires_replace(self) -> Self {
        Self(self.0.requires_replace())
    }

    /// At least so many.
    #[must_use]
    pub fn at_least(self, least: usize) -> Self {
        self.items(|items| Items { least, ..items })
    }

    /// At most so many.
    #[must_use]
    pub fn at_most(self, most: usize) -> Self {
        self.items(|items| Items { most, ..items })
    }

    fn items(self, change: impl FnOnce(Items) -> Items) -> Self {
        Self(Attribute { block: self.0.block.map(change), ..self.0 })
    }
}

fn configurable(attributes: &BTreeMap<String, Attribute>, value: Value) -> Value {
    let Value::Map(entries) = value else {
        return value;
    };
    let entries = entries.into_iter().map(|(name, value)| {
        let Some(attribute) = attributes.get(&name) else {
            return (name, value);
        };
        let fixed = attribute.computed && !attribute.optional;
        if fixed || attribute.write_only || attribute.default.as_ref() == Some(&value) {
            return (name, Value::Null);
        }
        let Kind::Nested(nesting, nested) = &attribute.kind else {
            return (name, value);
        };
        let inner = |value| configurable(&nested.attributes, value);
        let value = match (nesting, value) {
            (Nesting::Single, value) => inner(value),
            (Nesting::Map, Value::Map(entries)) => {
                Value::Map(entries.into_iter().map(|(key, value)| (key, inner(value))).collect())
            }
            (_, Value::List(items)) => Value::List(items.into_iter().map(inner).collect()),
            (_, value) => value,
        };
        (name, value)
    });
    Value::Map(entries.collect())
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
    pub(crate) fn of_kind(kind: Kind) -> Self {
        Self {
            kind,
            description: String::new(),
            deprecated: None,
            block: None,
            required: false,
            optional: false,
            computed: false,
            sensitive: false,
            write_only: false,
            requires_replace: false,
            use_state_for_unknown: false,
            null_elements: false,
            default: None,
            validators: vec![],
        }
    }

    /// A string.
    pub fn string() -> Self {
        Self::of_kind(Kind::Plain(Type::String))
    }

    /// A number.
    pub fn number() -> Self {
        Self::of_kind(Kind::Plain(Type::Number))
    }

    /// A bool.
    pub fn bool() -> Self {
        Self::of_kind(Kind::Plain(Type::Bool))
    }

    /// A value of any type.
    pub fn dynamic() -> Self {
        Self::of_kind(Kind::Plain(Type::Dynamic))
    }

    /// A list.
    pub fn list(element: Type) -> Self {
        Self::of_kind(Kind::Plain(Type::List(Box::new(element))))
    }

    /// A set.
    pub fn set(element: Type) -> Self {
        Self::of_kind(Kind::Plain(Type::Set(Box::new(element))))
    }

    /// A map.
    pub fn map(element: Type) -> Self {
        Self::of_kind(Kind::Plain(Type::Map(Box::new(element))))
    }

    /// One nested object.
    pub fn nested_single(nested: Nested) -> Self {
        Self::of_kind(Kind::Nested(Nesting::Single, nested))
    }

    /// A list of nested objects.
    pub fn nested_list(nested: Nested) -> Self {
        Self::of_kind(Kind::Nested(Nesting::List, nested))
    }

    /// A set of nested objects.
    pub fn nested_set(nested: Nested) -> Self {
        Self::of_kind(Kind::Nested(Nesting::Set, nested))
    }

    /// A map of nested objects.
    pub fn nested_map(nested: Nested) -> Self {
        Self::of_kind(Kind::Nested(Nesting::Map, nested))
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
        /// Elements of the list, set or map may be null. Elsewhere a null element is an error of the configuration.
        null_elements,
    }

    /// It should not be used any more; `instead` says what to do.
    #[must_use]
    pub fn deprecated(self, instead: impl Into<String>) -> Self {
        Self { deprecated: Some(instead.into()), ..self }
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

    /// Whether it holds nested objects by name.
    pub(crate) fn is_map(&self) -> bool {
        matches!(self.kind, Kind::Nested(Nesting::Map, _))
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
