//! Ephemeral resources: values that exist during one run and are stored nowhere.

use std::future::Future;
use std::time::SystemTime;

use futures::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{read_model, write_model};
use crate::private::{decode_own, encode_private};
use crate::{Cx, Diagnostics, Schema, Value};

/// Something that is opened at the beginning of a run and closed at its end.
pub trait EphemeralResource<D>: Send + Sync + 'static {
    /// Its name in configurations, e.g. `random_password`.
    const TYPE: &'static str;
    /// Configuration and result.
    type Model: Serialize + DeserializeOwned + Send;
    /// What renewing and closing need; it stays in Terraform's memory.
    type Private: Serialize + DeserializeOwned + Default + Send;

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

    /// Opens it. The configuration is wholly known. After an error nothing must be left open.
    fn open(
        &self,
        cx: &Cx<D>,
        config: Self::Model,
    ) -> impl Future<Output = Result<Opened<Self::Model, Self::Private>, Diagnostics>> + Send;

    /// Keeps it open; Terraform calls this at the time that opening or the last renewal named.
    fn renew(
        &self,
        cx: &Cx<D>,
        private: Self::Private,
    ) -> impl Future<Output = Result<Renewed<Self::Private>, Diagnostics>> + Send {
        let _ = cx;
        async move { Ok(Renewed::new(private)) }
    }

    /// Closes it.
    fn close(
        &self,
        cx: &Cx<D>,
        private: Self::Private,
    ) -> impl Future<Output = Result<(), Diagnostics>> + Send {
        let _ = (cx, private);
        async { Ok(()) }
    }
}

/// Something open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Opened<M, P> {
    /// The result, with the configuration in it.
    pub value: M,
    /// For renewing and closing.
    pub private: P,
    /// When it has to be renewed; `None`: never.
    pub renew_at: Option<SystemTime>,
}

impl<M, P> Opened<M, P> {
    /// Something that needs no renewal.
    pub fn new(value: M, private: P) -> Self {
        Self { value, private, renew_at: None }
    }

    /// Something that has to be renewed at this time.
    #[must_use]
    pub fn renew_at(self, time: SystemTime) -> Self {
        Self { renew_at: Some(time), ..self }
    }
}

/// Something that stays open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Renewed<P> {
    /// For renewing again, and closing.
    pub private: P,
    /// When it has to be renewed again; `None`: never.
    pub renew_at: Option<SystemTime>,
}

impl<P> Renewed<P> {
    /// Something that needs no further renewal.
    pub fn new(private: P) -> Self {
        Self { private, renew_at: None }
    }

    /// Something that has to be renewed again at this time.
    #[must_use]
    pub fn renew_at(self, time: SystemTime) -> Self {
        Self { renew_at: Some(time), ..self }
    }
}

/// An ephemeral resource without its types, as the server keeps it.
pub trait DynEphemeralResource<D>: Send + Sync {
    /// See [`EphemeralResource::TYPE`].
    fn type_name(&self) -> &'static str;
    /// See [`EphemeralResource::schema`].
    fn schema(&self) -> &Schema;
    /// See [`EphemeralResource::validate`].
    fn validate(&self, config: Value) -> BoxFuture<'_, Result<(), Diagnostics>>;
    /// See [`EphemeralResource::open`].
    fn open<'a>(
        &'a self,
        cx: &'a Cx<D>,
        config: Value,
    ) -> BoxFuture<'a, Result<Opened<Value, Vec<u8>>, Diagnostics>>;
    /// See [`EphemeralResource::renew`].
    fn renew<'a>(
        &'a self,
        cx: &'a Cx<D>,
        private: Vec<u8>,
    ) -> BoxFuture<'a, Result<Renewed<Vec<u8>>, Diagnostics>>;
    /// See [`EphemeralResource::close`].
    fn close<'a>(&'a self, cx: &'a Cx<D>, private: Vec<u8>) -> BoxFuture<'a, Result<(), Diagnostics>>;
}

/// Puts an ephemeral resource into a provider's list.
pub fn ephemeral_resource<D: Send + Sync + 'static, E: EphemeralResource<D>>(
    ephemeral: E,
) -> Box<dyn DynEphemeralResource<D>> {
    let schema = ephemeral.schema();
    Box::new(Erased { ephemeral, schema })
}

struct Erased<E> {
    ephemeral: E,
    schema: Schema,
}

impl<D: Send + Sync + 'static, E: EphemeralResource<D>> DynEphemeralResource<D> for Erased<E> {
    fn type_name(&self) -> &'static str {
        E::TYPE
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn validate(&self, config: Value) -> BoxFuture<'_, Result<(), Diagnostics>> {
        Box::pin(async move { self.ephemeral.validate(read_model(E::TYPE, &config)?).await })
    }

    fn open<'a>(
        &'a self,
        cx: &'a Cx<D>,
        config: Value,
    ) -> BoxFuture<'a, Result<Opened<Value, Vec<u8>>, Diagnostics>> {
        Box::pin(async move {
            let opened = self.ephemeral.open(cx, read_model(E::TYPE, &config)?).await?;
            Ok(Opened {
                value: write_model(E::TYPE, &opened.value)?,
                private: encode_private(E::TYPE, 0, opened.private, None)?,
                renew_at: opened.renew_at,
            })
        })
    }

    fn renew<'a>(
        &'a self,
        cx: &'a Cx<D>,
        private: Vec<u8>,
    ) -> BoxFuture<'a, Result<Renewed<Vec<u8>>, Diagnostics>> {
        Box::pin(async move {
            let renewed = self.ephemeral.renew(cx, decode_own(E::TYPE, &private)?).await?;
            Ok(Renewed {
                private: encode_private(E::TYPE, 0, renewed.private, None)?,
                renew_at: renewed.renew_at,
            })
        })
    }

    fn close<'a>(&'a self, cx: &'a Cx<D>, private: Vec<u8>) -> BoxFuture<'a, Result<(), Diagnostics>> {
        Box::pin(async move { self.ephemeral.close(cx, decode_own(E::TYPE, &private)?).await })
    }
}
