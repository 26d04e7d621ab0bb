//! The key pair as it is configured and stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tfplugin::Attr;

/// Configuration and state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Model {
    pub(super) key_name: Attr<String>,
    pub(super) key_name_prefix: Attr<String>,
    pub(super) region: Attr<String>,
    pub(super) public_key: Attr<String>,
    pub(super) generate: Attr<Generate>,
    pub(super) private_key_file: Attr<String>,
    pub(super) tags: Attr<BTreeMap<String, Attr<String>>>,
    pub(super) tags_all: Attr<BTreeMap<String, Attr<String>>>,
    pub(super) id: Attr<String>,
    pub(super) key_pair_id: Attr<String>,
    pub(super) key_type: Attr<String>,
    pub(super) fingerprint: Attr<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Generate {
    #[serde(rename = "type")]
    pub(super) kind: Attr<String>,
    pub(super) bits: Attr<u16>,
}

/// What is remembered beside the state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Private {
    /// The public half of the key that was generated: the one that the private half belongs to, whatever EC2 has by
    /// now.
    #[serde(default)]
    pub(super) generated: Option<String>,
}
