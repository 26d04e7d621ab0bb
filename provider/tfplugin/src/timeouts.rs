//! The attribute `timeouts`: how long each operation on a resource may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Attr, Attribute, DurationText, Nested};

/// The value of the attribute in a model: `timeouts: Attr<Timeouts>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    create: Attr<DurationText>,
    read: Attr<DurationText>,
    update: Attr<DurationText>,
    delete: Attr<DurationText>,
}

impl Timeouts {
    /// The attribute. `defaults` completes its description: how long each operation may take where the user sets
    /// nothing.
    pub fn attribute(defaults: &str) -> Attribute {
        let limit = |what: &str| {
            Attribute::duration()
                .optional()
                .description(format!("How long {what} may take, e.g. `90s`, `30m` or `1h30m`."))
        };
        let nested = Nested::new()
            .attribute("create", limit("creation"))
            .attribute("read", limit("refreshing"))
            .attribute("update", limit("an update"))
            .attribute("delete", limit("deletion"));
        Attribute::nested_single(nested).optional().description(format!(
            "Limits for each operation; at the end of one the operation stops at the next safe point. {defaults}"
        ))
    }
}

impl Attr<Timeouts> {
    /// The limit for creating the resource.
    pub fn create_or(&self, default: Duration) -> Duration {
        self.known().map_or(default, |timeouts| timeouts.create.or(default))
    }

    /// The limit for looking at it.
    pub fn read_or(&self, default: Duration) -> Duration {
        self.known().map_or(default, |timeouts| timeouts.read.or(default))
    }

    /// The limit for changing it.
    pub fn update_or(&self, default: Duration) -> Duration {
        self.known().map_or(default, |timeouts| timeouts.update.or(default))
    }

    /// The limit for destroying it.
    pub fn delete_or(&self, default: Duration) -> Duration {
        self.known().map_or(default, |timeouts| timeouts.delete.or(default))
    }
}
