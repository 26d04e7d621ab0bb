//! An attribute of a model: known, null or not known yet.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The value of an attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attr<T> {
    /// This value.
    Known(T),
    /// Null: the configuration sets no value, or there is none.
    #[default]
    Null,
    /// A value that is known only after apply.
    Unknown,
}

/// The names under which an [`Attr`] passes through serde; only this crate's own formats know them.
pub(crate) const ATTR: &str = "$tfplugin::Attr";
pub(crate) const UNKNOWN: &str = "$tfplugin::Unknown";
pub(crate) const VARIANTS: &[&str] = &["Known", "Null", "Unknown"];

impl<T> Attr<T> {
    /// The value, where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Null | Self::Unknown => None,
        }
    }

    /// The same with a reference to the value.
    pub fn as_ref(&self) -> Attr<&T> {
        match self {
            Self::Known(value) => Attr::Known(value),
            Self::Null => Attr::Null,
            Self::Unknown => Attr::Unknown,
        }
    }

    /// The value to change in place, where it is known.
    pub fn known_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Null | Self::Unknown => None,
        }
    }

    /// The value, where it is known.
    pub fn into_known(self) -> Option<T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Null | Self::Unknown => None,
        }
    }

    /// Whether it is known.
    pub fn is_known(&self) -> bool {
        matches!(self, Self::Known(_))
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Whether it is not known yet.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }

    /// The same with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Attr<U> {
        match self {
            Self::Known(value) => Attr::Known(f(value)),
            Self::Null => Attr::Null,
            Self::Unknown => Attr::Unknown,
        }
    }
}

impl<T> From<Option<T>> for Attr<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Self::Known)
    }
}

impl<T: Serialize> Serialize for Attr<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(value) => value.serialize(serializer),
            Self::Null => serializer.serialize_none(),
            Self::Unknown => serializer.serialize_unit_struct(UNKNOWN),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Attr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum(ATTR, VARIANTS, AttrVisitor(PhantomData))
    }
}

struct AttrVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for AttrVisitor<T> {
    type Value = Attr<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an attribute")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Attr<T>, A::Error> {
        let (variant, content) = access.variant::<String>()?;
        match variant.as_str() {
            "Known" => content.newtype_variant().map(Attr::Known),
            "Null" => content.unit_variant().map(|()| Attr::Null),
            _ => content.unit_variant().map(|()| Attr::Unknown),
        }
    }
}
