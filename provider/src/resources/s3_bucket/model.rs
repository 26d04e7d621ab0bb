//! The bucket as it is configured and stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tfplugin::Attr;

use super::parts::{Cors, Encryption, Lifecycle, Ownership, Policy, PublicAccessBlock, Versioning, Website};

/// Configuration and state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Model {
    pub(super) bucket: Attr<String>,
    pub(super) bucket_prefix: Attr<String>,
    pub(super) region: Attr<String>,
    pub(super) adopt_existing: Attr<bool>,
    pub(super) force_destroy: Attr<bool>,
    pub(super) persist_on_destroy: Attr<bool>,
    pub(super) versioning: Attr<Versioning>,
    pub(super) policy: Attr<Policy>,
    pub(super) object_ownership: Attr<Ownership>,
    pub(super) public_access_block: Attr<PublicAccessBlock>,
    pub(super) server_side_encryption: Attr<Encryption>,
    pub(super) website: Attr<Website>,
    pub(super) cors_rules: Attr<Cors>,
    pub(super) lifecycle_rules: Attr<Lifecycle>,
    pub(super) tags: Attr<BTreeMap<String, Attr<String>>>,
    pub(super) tags_all: Attr<BTreeMap<String, Attr<String>>>,
    pub(super) id: Attr<String>,
    pub(super) arn: Attr<String>,
    pub(super) bucket_domain_name: Attr<String>,
    pub(super) bucket_regional_domain_name: Attr<String>,
    pub(super) website_endpoint: Attr<String>,
    pub(super) website_domain: Attr<String>,
}

/// What is remembered beside the state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Private {
    /// Somebody's bucket that was to be taken over, and was not completely: Terraform destroys what was not created
    /// completely, and this must not be.
    #[serde(default)]
    pub(super) half_adopted: bool,
}
