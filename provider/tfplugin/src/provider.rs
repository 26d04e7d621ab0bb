//! What a provider is, and what its resources see of it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::{Diagnostic, Diagnostics, DynDataSource, DynResource, Schema};

/// A provider: its block, its resources, its data sources.
pub trait Provider: Send + Sync + 'static {
    /// The provider block as a Rust type.
    type Config: DeserializeOwned + Send;
    /// What configuring gives, and resources work with.
    type Data: Send + Sync + 'static;

    /// The provider's type, e.g. `random`: the prefix of its resources and its name in logs.
    const NAME: &'static str;

    /// The schema of the provider block.
    fn schema(&self) -> Schema;

    /// Checks that the schema cannot express. Values may be unknown.
    fn validate(&self, config: Self::Config) -> impl Future<Output = Result<(), Diagnostics>> + Send {
        drop(config);
        async { Ok(()) }
    }

    /// Takes over the configuration. At plan it may hold unknown values, so nothing should be contacted yet.
    fn configure(
        &self,
        cx: &ConfigureCx,
        config: Self::Config,
    ) -> impl Future<Output = Result<Self::Data, Diagnostics>> + Send;

    /// Everything the provider manages; each item made by [`resource`](crate::resource()).
    fn resources(&self) -> Vec<Box<dyn DynResource<Self::Data>>>;

    /// Everything it can look up; each item made by [`data_source`](crate::data_source()).
    fn data_sources(&self) -> Vec<Box<dyn DynDataSource<Self::Data>>>;
}

/// What is known while the provider is configured.
#[derive(Clone, Debug)]
pub struct ConfigureCx {
    /// Terraform's own version.
    pub terraform_version: String,
    /// Cancelled when the user wants to stop.
    pub cancel: CancellationToken,
}

/// What an operation on a resource works with.
#[derive(Debug)]
pub struct Cx<D> {
    /// What configuring the provider gave.
    pub data: Arc<D>,
    /// Cancelled when the user wants to stop: end at the next safe point and tell the truth about the state.
    pub cancel: CancellationToken,
    warnings: Mutex<Diagnostics>,
}

impl<D> Cx<D> {
    pub(crate) fn new(data: Arc<D>, cancel: CancellationToken) -> Self {
        Self { data, cancel, warnings: Mutex::default() }
    }

    /// Tells the user something without failing.
    pub fn warn(&self, warning: Diagnostic) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }

    pub(crate) fn take_warnings(&self) -> Diagnostics {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
