//! Attributes: what each holds, who sets it, and what changing it means.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::group::{Group, GroupRule, group_rules};
use super::sameness::Sameness;
use super::validators::{self, Validator};
use crate::{Type, Value};

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
    pub(crate) same: Option<Sameness>,
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
    /// Zero: any number.
    pub(crate) most: usize,
}

/// The attributes of a nested object.
#[derive(Clone, Debug, Default)]
pub struct Nested {
    pub(crate) attributes: BTreeMap<String, Attribute>,
    pub(crate) groups: Vec<Group>,
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
            same: None,
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

    /// A duration such as `1h30m`, in a model [`DurationText`](crate::DurationText).
    pub fn duration() -> Self {
        Self::string().validate(validators::duration())
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
        /// Terraform does not show its value.
        sensitive,
        /// Its value is in the configuration only, never in a plan or a state (Terraform 1.11, OpenTofu 1.11).
        write_only,
        /// A change of it replaces the resource.
        requires_replace,
        /// It keeps its value from the state, whatever else changes. Without this a computed value becomes unknown with
        /// any change.
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

    /// Values that mean the same, by this comparison, are no change: what is planned, read or made keeps the spelling
    /// that was there before. `T` is what the model has for the value; it is asked about known values only.
    ///
    /// ```
    /// # use tfplugin::Attribute;
    /// let address = Attribute::string().required().same_if(|a: &String, b: &String| a.eq_ignore_ascii_case(b));
    /// ```
    #[must_use]
    pub fn same_if<T: DeserializeOwned>(self, same: impl Fn(&T, &T) -> bool + Send + Sync + 'static) -> Self {
        Self { same: Some(Sameness::new(same)), ..self }
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

    group_rules!();
}

pub(super) fn object_type(attributes: &BTreeMap<String, Attribute>) -> Type {
    Type::Object(attributes.iter().map(|(name, attribute)| (name.clone(), attribute.ty())).collect())
}
