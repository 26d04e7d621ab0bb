//! A host to jump over on the way to a machine.

use serde::{Deserialize, Serialize};
use tfplugin::Attr;

/// A host to jump over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bastion {
    pub(crate) host: Attr<String>,
    pub(crate) port: Attr<u16>,
    pub(crate) user: Attr<String>,
    pub(crate) key: Attr<String>,
    pub(crate) private_key_file: Attr<String>,
    pub(crate) host_public_key: Attr<String>,
}
