//! How a call runs: in a task of its own, with what all calls share; what goes wrong in it is its answer.
//!
//! `service.rs` says which call there is, the modules beside it what each does. Here are those about the provider as a
//! whole.

#![expect(
    clippy::unused_async,
    reason = "a call is a future even if it never waits: it runs in its own task"
)]

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::call::Call;
use super::end::End;
use super::outcome::outcome;
use super::registry::Registry;
use super::wire::{Answer, decode, small_enough};
use crate::context::{Client, Cx};
use crate::diagnostic::mistake;
use crate::model::read_model;
use crate::protocol::proto::{self, DynamicValue};
use crate::provider::ConfigureCx;
use crate::{Diagnostic, Diagnostics, Provider, Value};

/// The service.
pub(crate) struct Rpc<P: Provider> {
    pub(super) shared: Arc<Shared<P>>,
}

/// What all calls share.
pub(super) struct Shared<P: Provider> {
    provider: P,
    registry: OnceLock<Registry<P>>,
    data: RwLock<Option<Arc<P::Data>>>,
    end: End,
    /// Cancelled at an interrupt, and then replaced: calls that come later, such as closing an ephemeral resource, are
    /// not cancelled.
    walk: Mutex<CancellationToken>,
    calls: AtomicU64,
}

impl<P: Provider> Rpc<P> {
    pub(crate) fn new(provider: P, end: &End) -> Self {
        let (registry, data, calls) = (OnceLock::new(), RwLock::new(None), AtomicU64::new(0));
        let (end, walk) = (end.clone(), Mutex::new(end.stop.child_token()));
        Self { shared: Arc::new(Shared { provider, registry, data, end, walk, calls }) }
    }

    /// Runs `work` in a task of its own, so that a client that goes away does not cut an apply in half, and turns a
    /// panic into a diagnostic, so that it does not take the other calls with it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        call: &Call,
        work: impl Future<Output = Result<T, Diagnostics>> + Send + 'static,
    ) -> Result<T, Diagnostics> {
        let id = self.shared.calls.fetch_add(1, Ordering::Relaxed);
        let Call { rpc, subject } = call;
        let span = tracing::debug_span!(
            "rpc",
            tf_provider_addr = P::SOURCE,
            tf_rpc = rpc,
            tf_req_id = id,
            tf_resource_type = subject
        );
        let work = AssertUnwindSafe(work).catch_unwind();
        let timed = async move {
            let start = Instant::now();
            tracing::trace!("call begins");
            let outcome = work.await;
            let failed = !matches!(outcome, Ok(Ok(_)));
            let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::trace!(took_ms, failed, "call ends");
            outcome
        };
        match self.shared.end.running.spawn(timed.instrument(span)).await {
            // Terraform would take a failure without an error for a success.
            Ok(Ok(Err(mut errors))) if !errors.has_errors() => {
                errors.push(mistake(subject, "it failed without saying why"));
                Err(errors)
            }
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Diagnostic::error("The provider crashed")
                .detail(format!(
                    "{call} panicked. The log (TF_LOG_PROVIDER=DEBUG) has the details; please report it. Other \
                     operations go on."
                ))
                .into()),
        }
    }

    /// Runs `work` on a request; what fails is an answer, too.
    pub(super) async fn answer<Q, A: Answer + prost::Message, F>(
        &self,
        call: Call,
        request: Request<Q>,
        work: impl FnOnce(Arc<Shared<P>>, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, Diagnostics>> + Send + 'static,
    {
        let work = work(self.shared.clone(), request.into_inner());
        let answer = self.run(&call, work).await.and_then(|answer| small_enough(&call, answer));
        Ok(Response::new(answer.unwrap_or_else(A::failed)))
    }
}

impl<P: Provider> Shared<P> {
    pub(super) fn registry(&self) -> &Registry<P> {
        self.registry.get_or_init(|| Registry::of(&self.provider))
    }

    /// What an operation works with. Errors while the provider is not configured.
    pub(super) fn cx(
        &self,
        client: Option<&proto::ClientCapabilities>,
        meta: Option<&DynamicValue>,
    ) -> Result<Cx<P::Data>, Diagnostics> {
        let data = self.data.read().unwrap_or_else(PoisonError::into_inner).clone();
        let data = data.ok_or_else(|| Diagnostic::error("The provider is not configured"))?;
        let meta = match &self.registry().meta {
            Some(schema) => decode(schema, meta)?,
            None => Value::Null,
        };
        Ok(Cx::new(data, self.cancel().child_token()).with(Client::from(client), meta))
    }

    fn cancel(&self) -> CancellationToken {
        self.walk.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cancels the calls that are running. Later ones, such as closing an ephemeral resource, are not cancelled.
    pub(super) fn stop(&self) {
        let mut walk = self.walk.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *walk, self.end.stop.child_token()).cancel();
    }

    pub(super) async fn metadata(
        self: Arc<Self>,
        _: proto::get_metadata::Request,
    ) -> Result<proto::get_metadata::Response, Diagnostics> {
        Ok(self.registry().metadata())
    }

    pub(super) async fn provider_schema(
        self: Arc<Self>,
        _: proto::get_provider_schema::Request,
    ) -> Result<proto::get_provider_schema::Response, Diagnostics> {
        Ok(self.registry().provider_schema())
    }

    pub(super) async fn identity_schemas(
        self: Arc<Self>,
        _: proto::get_resource_identity_schemas::Request,
    ) -> Result<proto::get_resource_identity_schemas::Response, Diagnostics> {
        Ok(self.registry().identity_schemas())
    }

    pub(super) async fn function_schemas(
        self: Arc<Self>,
        _: proto::get_functions::Request,
    ) -> Result<proto::get_functions::Response, Diagnostics> {
        Ok(self.registry().function_schemas())
    }

    pub(super) async fn validate_provider(
        self: Arc<Self>,
        request: proto::validate_provider_config::Request,
    ) -> Result<proto::validate_provider_config::Response, Diagnostics> {
        let schema = &self.registry().schema;
        let config = decode(schema, request.config.as_ref())?;
        let found = schema.validate(&config, true);
        if found.has_errors() {
            return Err(found);
        }
        let diagnostics = outcome(self.provider.validate(read_model(P::NAME, &config)?).await)?;
        Ok(proto::validate_provider_config::Response { diagnostics })
    }

    pub(super) async fn configure(
        self: Arc<Self>,
        request: proto::configure_provider::Request,
    ) -> Result<proto::configure_provider::Response, Diagnostics> {
        let config = decode(&self.registry().schema, request.config.as_ref())?;
        let cx = ConfigureCx {
            terraform_version: request.terraform_version,
            client: Client::from(request.client_capabilities.as_ref()),
            cancel: self.cancel().child_token(),
        };
        let data = self.provider.configure(&cx, read_model(P::NAME, &config)?).await?;
        *self.data.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(data));
        Ok(proto::configure_provider::Response::default())
    }
}
