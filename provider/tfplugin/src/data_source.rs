//! Data sources: things to look up.

use std::future::Future;

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{read_model, write_model};
use crate::{Cx, Diagnostics, Schema, Value};

/// Something to look up.
pub trait DataSource<D>: Send + Sync + 'static {
    /// Its name in configurations, e.g. `random_word`.
    const TYPE: &'static str;
    /// Configuration and result.
    type Model: Serialize + DeserializeOwned + Send;

    /// Its schema.
    fn schema(&self) -> Schema;

    /// Checks a configuration for what the schema cannot express. Values may be unknown, and the provider is not
    /// configured.
    ///
    /// `Err` with warnings alone lets the configuration pass and shows the warnings.
    fn validate(&self, config: Self::Model) -> impl Future<Output = Result<(), Diagnostics>> + Send {
        drop(config);
        async { Ok(()) }
    }

    /// Looks it up. What the configuration sets is known; computed attributes are null in it, and known in the result.
    fn read(
        &self,
        cx: &Cx<D>,
        config: Self::Model,
    ) -> impl Future<Output = Result<Self::Model, Diagnostics>> + Send;
}

/// A data source without its type, as the server keeps it.
pub trait DynDataSource<D>: Send + Sync {
    /// See [`DataSource::TYPE`].
    fn type_name(&self) -> &'static str;
    /// See [`DataSource::schema`].
    fn schema(&self) -> &Schema;
    /// See [`DataSource::validate`].
    fn validate(&self, config: Value) -> BoxFuture<'_, Result<(), Diagnostics>>;
    /// See [`DataSource::read`].
    fn read<'a>(&'a self, cx: &'a Cx<D>, config: Value) -> BoxFuture<'a, Result<Value, Diagnostics>>;
}

/// Puts a data source into a provider's list.
pub fn data_source<D: Send + Sync + 'static, S: DataSource<D>>(source: S) -> Box<dyn DynDataSource<D>> {
    let schema = source.schema();
    Box::new(Erased { source, schema })
}

struct Erased<S> {
    source: S,
    schema: Schema,
}

impl<D: Send + Sync + 'static, S: DataSource<D>> DynDataSource<D> for Erased<S> {
    fn type_name(&self) -> &'static str {
        S::TYPE
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn validate(&self, config: Value) -> BoxFuture<'_, Result<(), Diagnostics>> {
        Box::pin(async move { self.source.validate(read_model(S::TYPE, &config)?).await })
    }

    fn read<'a>(&'a self, cx: &'a Cx<D>, config: Value) -> BoxFuture<'a, Result<Value, Diagnostics>> {
        Box::pin(async move {
            let config = read_model(S::TYPE, &config)?;
            write_model(S::TYPE, &self.source.read(cx, config).await?)
        })
    }
}
