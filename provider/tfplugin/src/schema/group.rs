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

/// The methods of a builder that has `attributes` and `groups`.
macro_rules! group_rules {
    () => {
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
            self.groups.push(Group::new(rule, names));
            self
        }
    };
}
pub(super) use group_rules;
