//! List resources: finding what exists already, for `terraform query` (Terraform 1.14).

use std::future::Future;
use std::ops::ControlFlow;

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::Sender;

use crate::model::{read_model, write_model};
use crate::{Cx, Diagnostics, Schema, Value};

/// A way to list the resources of a type, which must have an [identity](crate::Schema::identity).
pub trait ListResource<D>: Send + Sync + 'static {
    /// The type of the resources that are listed.
    const TYPE: &'static str;
    /// What to look for: the `config` block.
    type Config: DeserializeOwned + Send;
    /// The state of what is found: the model of the resource.
    type Model: Serialize + Send;

    /// The schema of the `config` block.
    fn schema(&self) -> Schema;

    /// Checks a configuration for what the schema cannot express. Values may be unknown, and the provider is not
    /// configured.
    ///
    /// `Err` with warnings alone lets the configuration pass and shows the warnings.
    fn validate(&self, config: Self::Config) -> impl Future<Output = Result<(), Diagnostics>> + Send {
        drop(config);
        async { Ok(()) }
    }

    /// Finds them, and hands each to `found` until it says that it is enough.
    fn list(
        &self,
        cx: &Cx<D>,
        request: ListRequest<Self::Config>,
        found: &Found<Self::Model>,
    ) -> impl Future<Output = Result<(), Diagnostics>> + Send;
}

/// What to look for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ListRequest<C> {
    /// The `config` block.
    pub config: C,
    /// Whether states are wanted as a whole, or only what makes up the identity.
    pub include_resource: bool,
    /// How many are wanted at most.
    pub limit: usize,
}

/// One that exists.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listed<M> {
    /// What people call it.
    pub display_name: String,
    /// Its state; of no interest, but for the identity, where [`ListRequest::include_resource`] is not set.
    pub state: M,
}

impl<M> Listed<M> {
    /// One that people call `display_name`.
    pub fn new(display_name: impl Into<String>, state: M) -> Self {
        Self { display_name: display_name.into(), state }
    }
}

/// Where what is found goes.
#[derive(Debug)]
pub struct Found<M> {
    type_name: &'static str,
    sender: Sender<RawListed>,
    model: std::marker::PhantomData<fn(M)>,
}

pub(crate) type RawListed = Result<Listed<Value>, Diagnostics>;

impl<M: Serialize> Found<M> {
    /// Hands one over; `Break` when no more are wanted.
    pub async fn push(&self, listed: Listed<M>) -> ControlFlow<()> {
        let value = write_model(self.type_name, &listed.state);
        let listed = value.map(|state| Listed { display_name: listed.display_name, state });
        if self.sender.send(listed).await.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

/// A list resource without its types, as the server keeps it.
pub trait DynListResource<D>: Send + Sync {
    /// See [`ListResource::TYPE`].
    fn type_name(&self) -> &'static str;
    /// See [`ListResource::schema`].
    fn schema(&self) -> &Schema;
    /// See [`ListResource::validate`].
    fn validate(&self, config: Value) -> BoxFuture<'_, Result<(), Diagnostics>>;
    /// See [`ListResource::list`].
    fn list<'a>(
        &'a self,
        cx: &'a Cx<D>,
        request: ListRequest<Value>,
        found: Sender<Result<Listed<Value>, Diagnostics>>,
    ) -> BoxFuture<'a, Result<(), Diagnostics>>;
}

/// Puts a list resource into a provider's list.
pub fn list_resource<D: Send + Sync + 'static, L: ListResource<D>>(list: L) -> Box<dyn DynListResource<D>> {
    let schema = list.schema();
    Box::new(Erased { list, schema })
}

struct Erased<L> {
    list: L,
    schema: Schema,
}

impl<D: Send + Sync + 'static, L: ListResource<D>> DynListResource<D> for Erased<L> {
    fn type_name(&self) -> &'static str {
        L::TYPE
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn validate(&self, config: Value) -> BoxFuture<'_, Result<(), Diagnostics>> {
        Box::pin(async move { self.list.validate(read_model(L::TYPE, &config)?).await })
    }

    fn list<'a>(
        &'a self,
        cx: &'a Cx<D>,
        request: ListRequest<Value>,
        found: Sender<RawListed>,
    ) -> BoxFuture<'a, Result<(), Diagnostics>> {
        Box::pin(async move {
            let found = Found { type_name: L::TYPE, sender: found, model: std::marker::PhantomData };
            let request = ListRequest {
                config: read_model(L::TYPE, &request.config)?,
                include_resource: request.include_resource,
                limit: request.limit,
            };
            self.list.list(cx, request, &found).await
        })
    }
}
