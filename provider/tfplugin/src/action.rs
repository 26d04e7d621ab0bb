//! Actions: things to do that leave no state, with progress (Terraform 1.14).

use std::future::Future;

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;

use crate::model::read_model;
use crate::protocol::proto;
use crate::{Cx, Diagnostics, Schema, Value};

/// Something to do.
pub trait Action<D>: Send + Sync + 'static {
    /// Its name in configurations, e.g. `nixos_reboot`.
    const TYPE: &'static str;
    /// Its configuration.
    type Config: DeserializeOwned + Send;

    /// Its schema.
    fn schema(&self) -> Schema;

    /// Checks a configuration for what the schema cannot express. Values may be unknown, and the provider is not
    /// configured.
    ///
    /// `Err` with warnings alone lets the configuration pass and shows the warnings.
    fn validate(&self, config: Self::Config) -> impl Future<Output = Result<(), Diagnostics>> + Send {
        drop(config);
        async { Ok(()) }
    }

    /// Checks, while Terraform plans, whether it can be done. Values may be unknown.
    fn plan(&self, cx: &Cx<D>, config: Self::Config) -> impl Future<Output = Result<(), Diagnostics>> + Send {
        let _ = (cx, config);
        async { Ok(()) }
    }

    /// Does it. The configuration is wholly known. Meanwhile `progress` shows lines to the user.
    fn invoke(
        &self,
        cx: &Cx<D>,
        config: Self::Config,
        progress: &Progress,
    ) -> impl Future<Output = Result<(), Diagnostics>> + Send;
}

/// Tells the user how far an action is.
#[derive(Clone, Debug)]
pub struct Progress(UnboundedSender<Said>);

/// What an action says, or that it has ended.
#[derive(Debug)]
pub(crate) enum Said {
    Line(String),
    End(Vec<proto::Diagnostic>),
}

impl Progress {
    pub(crate) fn new(sender: UnboundedSender<Said>) -> Self {
        Self(sender)
    }

    /// Shows a line to the user. After the client has gone this does nothing.
    pub fn say(&self, line: impl Into<String>) {
        let _ = self.0.send(Said::Line(line.into()));
    }
}

/// An action without its type, as the server keeps it.
pub trait DynAction<D>: Send + Sync {
    /// See [`Action::TYPE`].
    fn type_name(&self) -> &'static str;
    /// See [`Action::schema`].
    fn schema(&self) -> &Schema;
    /// See [`Action::validate`].
    fn validate(&self, config: Value) -> BoxFuture<'_, Result<(), Diagnostics>>;
    /// See [`Action::plan`].
    fn plan<'a>(&'a self, cx: &'a Cx<D>, config: Value) -> BoxFuture<'a, Result<(), Diagnostics>>;
    /// See [`Action::invoke`].
    fn invoke<'a>(
        &'a self,
        cx: &'a Cx<D>,
        config: Value,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<(), Diagnostics>>;
}

/// Puts an action into a provider's list.
pub fn action<D: Send + Sync + 'static, A: Action<D>>(action: A) -> Box<dyn DynAction<D>> {
    let schema = action.schema();
    Box::new(Erased { action, schema })
}

struct Erased<A> {
    action: A,
    schema: Schema,
}

impl<D: Send + Sync + 'static, A: Action<D>> DynAction<D> for Erased<A> {
    fn type_name(&self) -> &'static str {
        A::TYPE
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn validate(&self, config: Value) -> BoxFuture<'_, Result<(), Diagnostics>> {
        Box::pin(async move { self.action.validate(read_model(A::TYPE, &config)?).await })
    }

    fn plan<'a>(&'a self, cx: &'a Cx<D>, config: Value) -> BoxFuture<'a, Result<(), Diagnostics>> {
        Box::pin(async move { self.action.plan(cx, read_model(A::TYPE, &config)?).await })
    }

    fn invoke<'a>(
        &'a self,
        cx: &'a Cx<D>,
        config: Value,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<(), Diagnostics>> {
        Box::pin(async move { self.action.invoke(cx, read_model(A::TYPE, &config)?, progress).await })
    }
}
