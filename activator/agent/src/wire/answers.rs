//! What the verbs `volume` and `try` of the agent print, as JSON.

use serde::{Deserialize, Serialize};

/// The answer of `volume`: whether the machine uses a volume of its cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeUse {
    /// The machine has no device that is the volume.
    NotFound,
    /// The kernel would let any program open the device exclusively: nothing uses it.
    Free,
    /// The kernel refuses to open the device exclusively: something uses it.
    InUse {
        /// The device, e.g. `/dev/nvme1n1`.
        device: String,
        /// What uses it, as far as that can be found out: `mounted at /data`, `swap`, `/dev/mapper/secret`. Empty for a
        /// ZFS pool, of which the kernel says nothing.
        by: Vec<String>,
    },
}

/// The answer of `try`: whether the next boot starts the new system once only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    /// The next boot starts the new system, and each boot after it the fallback.
    Begun {
        /// The system that boots from then on, unless the client activates the new one after the reboot.
        fallback: String,
    },
    /// No trial: the new system boots until another one is deployed.
    Impossible {
        /// Why the machine cannot try a system.
        reason: String,
    },
}
