//! The protocol's calls: each runs in a task of its own, and what goes wrong in it is its answer.
//!
//! What a call does stands in the modules beside this one; here is who calls what.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::End;
use super::proto::provider_server::Provider as Service;
use super::proto::{self, DynamicValue};
use super::registry::Registry;
use super::wire::{Answer, decode, small_enough, to_wire};
use crate::context::{Client, Cx};
use crate::provider::ConfigureCx;
use crate::resource::{mistake, typed};
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
    /// Ends with what the client is doing now: another one after each interrupt.
    walk: Mutex<CancellationToken>,
    calls: AtomicU64,
}

/// A call, as logs and messages name it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    rpc: &'static str,
    /// The type of the resource, or the name of the function.
    subject: String,
}

impl Call {
    pub(super) fn new(rpc: &'static str, subject: impl Into<String>) -> Self {
        Self { rpc, subject: subject.into() }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.rpc, self.subject)
    }
}

impl<P: Provider> Rpc<P> {
    pub(crate) fn new(provider: P, end: &End) -> Self {
        let (registry, data, calls) = (OnceLock::new(), RwLock::new(None), AtomicU64::new(0));
        let (end, walk) = (end.clone(), Mutex::new(end.stop.child_token()));
        Self { shared: Arc::new(Shared { provider, registry, data, end, walk, calls }) }
    }

    /// Runs `work` in a task of its own, so that a client that goes away does not cut an apply in half, and turns a panic
    /// into a diagnostic, so that it does not take the other calls with it.
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
            // An empty list of errors would look like success without a result.
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
    async fn answer<Q, A: Answer + prost::Message, F>(
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

    async fn validate_provider(
        self: Arc<Self>,
        request: proto::validate_provider_config::Request,
    ) -> Result<proto::validate_provider_config::Response, Diagnostics> {
        let schema = &self.registry().schema;
        let config = decode(schema, request.config.as_ref())?;
        let found = schema.validate(&config, true);
        if found.has_errors() {
            return Err(found);
        }
        let diagnostics = outcome(self.provider.validate(typed(P::NAME, &config)?).await)?;
        Ok(proto::validate_provider_config::Response { diagnostics })
    }

    async fn configure(
        self: Arc<Self>,
        request: proto::configure_provider::Request,
    ) -> Result<proto::configure_provider::Response, Diagnostics> {
        let config = decode(&self.registry().schema, request.config.as_ref())?;
        let cx = ConfigureCx {
            terraform_version: request.terraform_version,
            client: Client::from(request.client_capabilities.as_ref()),
            cancel: self.cancel().child_token(),
        };
        let data = self.provider.configure(&cx, typed(P::NAME, &config)?).await?;
        *self.data.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(data));
        Ok(proto::configure_provider::Response::default())
    }
}

/// The diagnostics of a check. One that found warnings only has not failed.
pub(super) fn outcome(result: Result<(), Diagnostics>) -> Result<Vec<proto::Diagnostic>, Diagnostics> {
    match result {
        Ok(()) => Ok(vec![]),
        Err(found) if found.has_errors() => Err(found),
        Err(warnings) => Ok(to_wire(warnings)),
    }
}

#[tonic::async_trait]
impl<P: Provider> Service for Rpc<P> {
    async fn get_metadata(
        &self,
        request: Request<proto::get_metadata::Request>,
    ) -> Result<Response<proto::get_metadata::Response>, Status> {
        self.answer(Call::new("GetMetadata", P::NAME), request, |shared, _| async move {
            Ok(shared.registry().metadata())
        })
        .await
    }

    async fn get_provider_schema(
        &self,
        request: Request<proto::get_provider_schema::Request>,
    ) -> Result<Response<proto::get_provider_schema::Response>, Status> {
        self.answer(Call::new("GetProviderSchema", P::NAME), request, |shared, _| async move {
            Ok(shared.registry().provider_schema())
        })
        .await
    }

    async fn get_resource_identity_schemas(
        &self,
        request: Request<proto::get_resource_identity_schemas::Request>,
    ) -> Result<Response<proto::get_resource_identity_schemas::Response>, Status> {
        self.answer(Call::new("GetResourceIdentitySchemas", P::NAME), request, |shared, _| async move {
            Ok(shared.registry().identity_schemas())
        })
        .await
    }

    async fn get_functions(
        &self,
        request: Request<proto::get_functions::Request>,
    ) -> Result<Response<proto::get_functions::Response>, Status> {
        self.answer(Call::new("GetFunctions", P::NAME), request, |shared, _| async move {
            Ok(shared.registry().function_schemas())
        })
        .await
    }

    async fn validate_provider_config(
        &self,
        request: Request<proto::validate_provider_config::Request>,
    ) -> Result<Response<proto::validate_provider_config::Response>, Status> {
        self.answer(Call::new("ValidateProviderConfig", P::NAME), request, Shared::validate_provider).await
    }

    async fn configure_provider(
        &self,
        request: Request<proto::configure_provider::Request>,
    ) -> Result<Response<proto::configure_provider::Response>, Status> {
        self.answer(Call::new("ConfigureProvider", P::NAME), request, Shared::configure).await
    }

    async fn validate_resource_config(
        &self,
        request: Request<proto::validate_resource_config::Request>,
    ) -> Result<Response<proto::validate_resource_config::Response>, Status> {
        self.answer(
            Call::new("ValidateResourceConfig", &request.get_ref().type_name),
            request,
            Shared::validate_resource,
        )
        .await
    }

    async fn upgrade_resource_state(
        &self,
        request: Request<proto::upgrade_resource_state::Request>,
    ) -> Result<Response<proto::upgrade_resource_state::Response>, Status> {
        self.answer(Call::new("UpgradeResourceState", &request.get_ref().type_name), request, Shared::upgrade)
            .await
    }

    async fn upgrade_resource_identity(
        &self,
        request: Request<proto::upgrade_resource_identity::Request>,
    ) -> Result<Response<proto::upgrade_resource_identity::Response>, Status> {
        self.answer(
            Call::new("UpgradeResourceIdentity", &request.get_ref().type_name),
            request,
            Shared::upgrade_identity,
        )
        .await
    }

    async fn read_resource(
        &self,
        request: Request<proto::read_resource::Request>,
    ) -> Result<Response<proto::read_resource::Response>, Status> {
        self.answer(Call::new("ReadResource", &request.get_ref().type_name), request, Shared::read).await
    }

    async fn plan_resource_change(
        &self,
        request: Request<proto::plan_resource_change::Request>,
    ) -> Result<Response<proto::plan_resource_change::Response>, Status> {
        self.answer(Call::new("PlanResourceChange", &request.get_ref().type_name), request, Shared::plan)
            .await
    }

    async fn import_resource_state(
        &self,
        request: Request<proto::import_resource_state::Request>,
    ) -> Result<Response<proto::import_resource_state::Response>, Status> {
        self.answer(Call::new("ImportResourceState", &request.get_ref().type_name), request, Shared::import)
            .await
    }

    async fn move_resource_state(
        &self,
        request: Request<proto::move_resource_state::Request>,
    ) -> Result<Response<proto::move_resource_state::Response>, Status> {
        self.answer(
            Call::new("MoveResourceState", &request.get_ref().target_type_name),
            request,
            Shared::move_state,
        )
        .await
    }

    async fn generate_resource_config(
        &self,
        request: Request<proto::generate_resource_config::Request>,
    ) -> Result<Response<proto::generate_resource_config::Response>, Status> {
        self.answer(
            Call::new("GenerateResourceConfig", &request.get_ref().type_name),
            request,
            Shared::generate_config,
        )
        .await
    }

    async fn validate_data_resource_config(
        &self,
        request: Request<proto::validate_data_resource_config::Request>,
    ) -> Result<Response<proto::validate_data_resource_config::Response>, Status> {
        self.answer(
            Call::new("ValidateDataResourceConfig", &request.get_ref().type_name),
            request,
            Shared::validate_data_source,
        )
        .await
    }

    async fn read_data_source(
        &self,
        request: Request<proto::read_data_source::Request>,
    ) -> Result<Response<proto::read_data_source::Response>, Status> {
        self.answer(
            Call::new("ReadDataSource", &request.get_ref().type_name),
            request,
            Shared::read_data_source,
        )
        .await
    }

    async fn validate_ephemeral_resource_config(
        &self,
        request: Request<proto::validate_ephemeral_resource_config::Request>,
    ) -> Result<Response<proto::validate_ephemeral_resource_config::Response>, Status> {
        self.answer(
            Call::new("ValidateEphemeralResourceConfig", &request.get_ref().type_name),
            request,
            Shared::validate_ephemeral,
        )
        .await
    }

    async fn open_ephemeral_resource(
        &self,
        request: Request<proto::open_ephemeral_resource::Request>,
    ) -> Result<Response<proto::open_ephemeral_resource::Response>, Status> {
        self.answer(
            Call::new("OpenEphemeralResource", &request.get_ref().type_name),
            request,
            Shared::open_ephemeral,
        )
        .await
    }

    async fn renew_ephemeral_resource(
        &self,
        request: Request<proto::renew_ephemeral_resource::Request>,
    ) -> Result<Response<proto::renew_ephemeral_resource::Response>, Status> {
        self.answer(
            Call::new("RenewEphemeralResource", &request.get_ref().type_name),
            request,
            Shared::renew_ephemeral,
        )
        .await
    }

    async fn close_ephemeral_resource(
        &self,
        request: Request<proto::close_ephemeral_resource::Request>,
    ) -> Result<Response<proto::close_ephemeral_resource::Response>, Status> {
        self.answer(
            Call::new("CloseEphemeralResource", &request.get_ref().type_name),
            request,
            Shared::close_ephemeral,
        )
        .await
    }

    async fn validate_list_resource_config(
        &self,
        request: Request<proto::validate_list_resource_config::Request>,
    ) -> Result<Response<proto::validate_list_resource_config::Response>, Status> {
        self.answer(
            Call::new("ValidateListResourceConfig", &request.get_ref().type_name),
            request,
            Shared::validate_list,
        )
        .await
    }

    async fn validate_action_config(
        &self,
        request: Request<proto::validate_action_config::Request>,
    ) -> Result<Response<proto::validate_action_config::Response>, Status> {
        self.answer(
            Call::new("ValidateActionConfig", &request.get_ref().action_type),
            request,
            Shared::validate_action,
        )
        .await
    }

    async fn plan_action(
        &self,
        request: Request<proto::plan_action::Request>,
    ) -> Result<Response<proto::plan_action::Response>, Status> {
        self.answer(Call::new("PlanAction", &request.get_ref().action_type), request, Shared::plan_action)
            .await
    }

    async fn apply_resource_change(
        &self,
        request: Request<proto::apply_resource_change::Request>,
    ) -> Result<Response<proto::apply_resource_change::Response>, Status> {
        self.apply(request.into_inner()).await.map(Response::new)
    }

    async fn call_function(
        &self,
        request: Request<proto::call_function::Request>,
    ) -> Result<Response<proto::call_function::Response>, Status> {
        Ok(Response::new(self.call(request.into_inner()).await))
    }

    async fn list_resource(
        &self,
        request: Request<proto::list_resource::Request>,
    ) -> Result<Response<BoxStream<proto::list_resource::Event>>, Status> {
        Ok(Response::new(self.list(request.into_inner())))
    }

    async fn invoke_action(
        &self,
        request: Request<proto::invoke_action::Request>,
    ) -> Result<Response<BoxStream<proto::invoke_action::Event>>, Status> {
        Ok(Response::new(self.invoke(request.into_inner())))
    }

    async fn stop_provider(
        &self,
        _request: Request<proto::stop_provider::Request>,
    ) -> Result<Response<proto::stop_provider::Response>, Status> {
        tracing::info!("asked to stop");
        // What runs is to end. What comes later, such as closing what is open, is not.
        let mut walk = self.shared.walk.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *walk, self.shared.end.stop.child_token()).cancel();
        drop(walk);
        Ok(Response::new(proto::stop_provider::Response::default()))
    }
}
