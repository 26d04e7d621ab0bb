//! Attributes of which a configuration has to set so many.

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

impl Group {
    pub(super) fn new(rule: GroupRule, names: &[&str]) -> Self {
        Self { rule, names: names.iter().map(|name| (*name).to_owned()).collect() }
    }
}
