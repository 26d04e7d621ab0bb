//! What a provider is.

use std::future::Future;

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{
    Client, Diagnostics, DynAction, DynDataSource, DynEphemeralResource, DynFunction, DynListResource,
    DynResource, Schema,
};

/// A provider: its block, and everything it offers.
pub trait Provider: Send + Sync + 'static {
    /// The provider block as a Rust type.
    type Config: DeserializeOwned + Send;
    /// What configuring gives, and resources work with.
    type Data: Send + Sync + 'static;

    /// The provider's type, e.g. `random`: the prefix of its resources and its name in logs.
    const NAME: &'static str;

    /// Where it is published, as in `required_providers`: `hashicorp/random`, or with a host in front.
    const SOURCE: &'static str;

    /// Targets of `tracing` whose events are not logged, by their beginning: libraries that log bodies of requests,
    /// which may hold secrets.
    const QUIET_TARGETS: &'static [&'static str] = &[];

    /// The schema of the provider block.
    fn schema(&self) -> Schema;

    /// The schema of `provider_meta` blocks, with which modules tell the provider something about themselves.
    fn meta_schema(&self) -> Option<Schema> {
        None
    }

    /// Checks the provider block for what the schema cannot express. Values may be unknown.
    ///
    /// `Err` with warnings alone lets the configuration pass and shows the warnings.
    fn validate(&self, config: Self::Config) -> impl Future<Output = Result<(), Diagnostics>> + Send {
        drop(config);
        async { Ok(()) }
    }

    /// Makes of the provider block what resources work with. While Terraform plans, values of the block may be unknown,
    /// because they come from resources that do not exist yet; so nothing should be contacted here.
    fn configure(
        &self,
        cx: &ConfigureCx,
        config: Self::Config,
    ) -> impl Future<Output = Result<Self::Data, Diagnostics>> + Send;

    /// Everything the provider manages; each item made by [`resource`](crate::resource()).
    fn resources(&self) -> Vec<Box<dyn DynResource<Self::Data>>> {
        vec![]
    }

    /// Everything it can look up; each item made by [`data_source`](crate::data_source()).
    fn data_sources(&self) -> Vec<Box<dyn DynDataSource<Self::Data>>> {
        vec![]
    }

    /// Its functions (Terraform 1.8, OpenTofu 1.7); each item made by [`function`](crate::function()).
    fn functions(&self) -> Vec<Box<dyn DynFunction>> {
        vec![]
    }

    /// Its ephemeral resources (Terraform 1.10, OpenTofu 1.11); each item made by
    /// [`ephemeral_resource`](crate::ephemeral_resource()).
    fn ephemeral_resources(&self) -> Vec<Box<dyn DynEphemeralResource<Self::Data>>> {
        vec![]
    }

    /// The resources that it can list (Terraform 1.14); each item made by [`list_resource`](crate::list_resource()).
    fn list_resources(&self) -> Vec<Box<dyn DynListResource<Self::Data>>> {
        vec![]
    }

    /// Its actions (Terraform 1.14); each item made by [`action`](crate::action()).
    fn actions(&self) -> Vec<Box<dyn DynAction<Self::Data>>> {
        vec![]
    }
}

/// What is known while the provider is configured.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConfigureCx {
    /// Terraform's own version.
    pub terraform_version: String,
    /// What it can do.
    pub client: Client,
    /// Cancelled when the user wants to stop.
    pub cancel: CancellationToken,
}

/// What is wrong with a provider's schemas, one sentence each: for its tests. Terraform's rules, and ours that
/// everything is described.
pub fn problems<P: Provider>(provider: &P) -> Vec<String> {
    let mut found = vec![];
    let mut names = std::collections::BTreeSet::new();
    let mut check = |kind: &str, name: &str, problems: Vec<String>| {
        found.extend(problems.into_iter().map(|problem| format!("{kind} {name}: {problem}")));
        if !names.insert(format!("{kind} {name}")) {
            found.push(format!("{kind} {name}: it is there twice"));
        }
        let prefix = format!("{}_", P::NAME);
        if !["provider", "provider_meta", "function"].contains(&kind) && !name.starts_with(&prefix) {
            found.push(format!("{kind} {name}: the name does not begin with {prefix}"));
        }
    };
    check("provider", P::NAME, provider.schema().provider_problems());
    if let Some(meta) = provider.meta_schema() {
        check("provider_meta", P::NAME, meta.provider_problems());
    }
    let resources = provider.resources();
    for resource in &resources {
        check("resource", resource.type_name(), resource.schema().problems());
    }
    for source in provider.data_sources() {
        check("data source", source.type_name(), source.schema().unstored_problems());
    }
    for ephemeral in provider.ephemeral_resources() {
        check("ephemeral resource", ephemeral.type_name(), ephemeral.schema().unstored_problems());
    }
    for action in provider.actions() {
        check("action", action.type_name(), action.schema().unstored_problems());
    }
    for list in provider.list_resources() {
        let name = list.type_name();
        check("list resource", name, list.schema().unstored_problems());
        let managed = resources.iter().find(|resource| resource.type_name() == name);
        if managed.is_none_or(|resource| resource.schema().identity.is_none()) {
            check("list of", name, vec!["there is no resource of this type with an identity".to_owned()]);
        }
    }
    for function in provider.functions() {
        check("function", function.name(), function.signature().problems());
    }
    found
}
