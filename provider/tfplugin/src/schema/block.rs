//! Nested blocks, for configurations that have them already.

use super::attribute::{Attribute, Items, Kind, Nested, Nesting};

/// A nested block: `rule { … }`. New schemas say the same with nested attributes, whose values may be null, computed
/// and come from expressions; blocks are for configurations that have them already.
///
/// To a resource a block is an attribute like others: a list or set of objects that is empty, never null, without
/// blocks.
#[derive(Clone, Debug)]
pub struct Block(pub(super) Attribute);

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

    /// A change of it replaces the resource.
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

impl Nested {
    /// With a nested block; only a block can have one.
    #[must_use]
    pub fn block(self, name: &str, block: Block) -> Self {
        self.attribute(name, block.0)
    }
}
