//! The protocol's calls. Each one decodes, asks the resource, checks its answer and encodes it; all rules that hold for every
//! resource are applied here.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::proto::provider_server::Provider as Service;
use super::proto::{self, DynamicValue};
use crate::codec::{json, msgpack};
use crate::path::Step;
use crate::plan::{check_applied, check_planned, null_write_only, propose, replaced};
use crate::provider::{ConfigureCx, Cx};
use crate::resource::{RawState, mistake, typed};
use crate::{Diagnostic, Diagnostics, DynDataSource, DynResource, Path, Provider, Schema, Severity, Value};

/// The state of the server.
pub(super) struct Rpc<P: Provider> {
    shared: Arc<Shared<P>>,
}

struct Shared<P: Provider> {
    provider: P,
    schema: OnceLock<Schema>,
    resources: OnceLock<BTreeMap<&'static str, Box<dyn DynResource<P::Data>>>>,
    data_sources: OnceLock<BTreeMap<&'static str, Box<dyn DynDataSource<P::Data>>>>,
    data: RwLock<Option<Arc<P::Data>>>,
    stop: CancellationToken,
}

impl<P: Provider> Rpc<P> {
    pub(super) fn new(provider: P, stop: CancellationToken) -> Self {
        let shared = Shared {
            provider,
            schema: OnceLock::new(),
            resources: OnceLock::new(),
            data_sources: OnceLock::new(),
            data: RwLock::new(None),
            stop,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Runs `work` in a task of its own, so that a client that goes away does not cut an apply in half, and turns a panic
    /// into a diagnostic, so that it does not take the other calls with it.
    async fn run<T, F>(
        &self,
        rpc: &'static str,
        type_name: &str,
        work: impl FnOnce(Arc<Shared<P>>) -> F,
    ) -> Result<T, Diagnostics>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Diagnostics>> + Send + 'static,
    {
        let span = tracing::debug_span!("rpc", tf_rpc = rpc, tf_resource_type = type_name);
        let work = AssertUnwindSafe(work(self.shared.clone())).catch_unwind();
        match tokio::spawn(work.instrument(span)).await {
            // An empty list of errors would look like success without a result.
            Ok(Ok(Err(errors))) if !errors.has_errors() => Err(mistake(type_name, "it failed without saying why").into()),
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Diagnostic::error("The provider crashed")
                .detail(format!(
                    "{rpc} of {type_name} panicked. The log (TF_LOG_PROVIDER=DEBUG) has the details; please report it. Other \
                     operations go on."
                ))
                .into()),
        }
    }
}

impl<P: Provider> Shared<P> {
    fn schema(&self) -> &Schema {
        self.schema.get_or_init(|| self.provider.schema())
    }

    fn resources(&self) -> &BTreeMap<&'static str, Box<dyn DynResource<P::Data>>> {
        self.resources.get_or_init(|| {
            self.provider.resources().into_iter().map(|resource| (resource.type_name(), resource)).collect()
        })
    }

    fn data_sources(&self) -> &BTreeMap<&'static str, Box<dyn DynDataSource<P::Data>>> {
        self.data_sources.get_or_init(|| {
            self.provider.data_sources().into_iter().map(|source| (source.type_name(), source)).collect()
        })
    }

    fn resource(&self, name: &str) -> Result<&dyn DynResource<P::Data>, Diagnostics> {
        let found = self.resources().get(name);
        found
            .map(AsRef::as_ref)
            .ok_or_else(|| Diagnostic::error(format!("There is no resource type {name}")).into())
    }

    fn data_source(&self, name: &str) -> Result<&dyn DynDataSource<P::Data>, Diagnostics> {
        let found = self.data_sources().get(name);
        found
            .map(AsRef::as_ref)
            .ok_or_else(|| Diagnostic::error(format!("There is no data source {name}")).into())
    }

    fn cx(&self) -> Result<Cx<P::Data>, Diagnostics> {
        let data = self.data.read().unwrap_or_else(PoisonError::into_inner).clone();
        let data = data.ok_or_else(|| Diagnostic::error("The provider is not configured"))?;
        Ok(Cx::new(data, self.stop.child_token()))
    }

    async fn plan(&self, request: proto::plan_resource_change::Request) -> Result<Planned, Diagnostics> {
        let resource = self.resource(&request.type_name)?;
        let schema = resource.schema();
        let prior = decode(schema, request.prior_state.as_ref())?;
        let config = decode(schema, request.config.as_ref())?;
        let proposed = decode(schema, request.proposed_new_state.as_ref())?;
        if proposed.is_null() {
            // Destroying needs no plan of the resource's own.
            let private = request.prior_private.clone();
            return Ok(Planned {
                value: Value::Null,
                private,
                replace: vec![],
                warnings: Diagnostics::default(),
            });
        }
        let cx = self.cx()?;
        let start = propose(schema, &prior, &config, &proposed);
        let state = RawState { value: prior.clone(), private: request.prior_private.clone() };
        let plan = with_warnings(&cx, resource.plan(&cx, state, config.clone(), start).await)?;
        let value = null_write_only(schema, &plan.planned);
        let broken = check_planned(resource.type_name(), schema, &prior, &config, &value);
        if broken.has_errors() {
            return Err(broken);
        }
        let mut replace = replaced(schema, &prior, &value);
        replace.extend(plan.requires_replace);
        Ok(Planned { value, private: plan.private, replace, warnings: cx.take_warnings() })
    }

    async fn apply(&self, request: proto::apply_resource_change::Request) -> Result<Applied, Diagnostics> {
        let resource = self.resource(&request.type_name)?;
        let schema = resource.schema();
        let prior = decode(schema, request.prior_state.as_ref())?;
        let planned = decode(schema, request.planned_state.as_ref())?;
        let config = decode(schema, request.config.as_ref())?;
        let private = request.planned_private.clone();
        let cx = self.cx()?;
        if planned.is_null() {
            let state = RawState { value: prior.clone(), private };
            let result = resource.delete(&cx, state.clone()).await;
            let mut diagnostics = cx.take_warnings();
            return Ok(match result {
                Ok(()) => Applied { value: Value::Null, private: vec![], diagnostics },
                Err(errors) => {
                    diagnostics.extend(errors);
                    Applied { value: prior, private: resource.prior_private(&state.private), diagnostics }
                }
            });
        }
        let state = RawState { value: planned.clone(), private: private.clone() };
        let applied = resource.apply(&cx, prior.clone(), state, config).await;
        let mut diagnostics = cx.take_warnings();
        let failed = applied.diagnostics.has_errors();
        diagnostics.extend(applied.diagnostics);
        // Without a state of its own a failed apply has changed nothing.
        let Some(state) = applied.state else {
            return Ok(Applied { value: prior, private: resource.prior_private(&private), diagnostics });
        };
        let value = null_write_only(schema, &state.value);
        // A failed apply may not have come to know everything; what it does not know is not there.
        let value = if failed { known_only(value) } else { value };
        if !failed {
            diagnostics.extend(check_applied(resource.type_name(), schema, &planned, &value));
        }
        Ok(Applied { value, private: state.private, diagnostics })
    }

    async fn read(&self, request: proto::read_resource::Request) -> Result<Applied, Diagnostics> {
        let resource = self.resource(&request.type_name)?;
        let schema = resource.schema();
        let value = decode(schema, request.current_state.as_ref())?;
        let cx = self.cx()?;
        let state = RawState { value, private: request.private.clone() };
        let state = with_warnings(&cx, resource.read(&cx, state).await)?;
        let diagnostics = cx.take_warnings();
        let state = state.unwrap_or(RawState { value: Value::Null, private: vec![] });
        Ok(Applied { value: null_write_only(schema, &state.value), private: state.private, diagnostics })
    }

    fn upgrade(&self, request: &proto::upgrade_resource_state::Request) -> Result<Value, Diagnostics> {
        let resource = self.resource(&request.type_name)?;
        let schema = resource.schema();
        let unreadable = |what: String| {
            Diagnostics::from(Diagnostic::error("The stored state cannot be read").detail(what))
        };
        let raw = request.raw_state.as_ref().ok_or_else(|| unreadable("There is none.".to_owned()))?;
        if !raw.flatmap.is_empty() {
            return Err(unreadable("It was written by Terraform 0.11 or older.".to_owned()));
        }
        let mut state = serde_json::from_slice(&raw.json).map_err(|error| unreadable(error.to_string()))?;
        if request.version != schema.version {
            state = resource.upgrade(request.version, state)?;
        }
        let value =
            json::decode_state(&state, &schema.ty()).map_err(|error| unreadable(error.to_string()))?;
        Ok(null_write_only(schema, &value))
    }
}

struct Planned {
    value: Value,
    private: Vec<u8>,
    replace: Vec<Path>,
    warnings: Diagnostics,
}

struct Applied {
    value: Value,
    private: Vec<u8>,
    diagnostics: Diagnostics,
}

const CAPABILITIES: proto::ServerCapabilities = proto::ServerCapabilities {
    plan_destroy: true,
    get_provider_schema_optional: true,
    move_resource_state: false,
};

#[tonic::async_trait]
impl<P: Provider> Service for Rpc<P> {
    async fn get_metadata(
        &self,
        _request: Request<proto::get_metadata::Request>,
    ) -> Result<Response<proto::get_metadata::Response>, Status> {
        let type_name = |name: &&str| proto::get_metadata::TypeName { type_name: (*name).to_owned() };
        Ok(Response::new(proto::get_metadata::Response {
            server_capabilities: Some(CAPABILITIES),
            diagnostics: vec![],
            data_sources: self.shared.data_sources().keys().map(type_name).collect(),
            resources: self.shared.resources().keys().map(type_name).collect(),
        }))
    }

    async fn get_provider_schema(
        &self,
        _request: Request<proto::get_provider_schema::Request>,
    ) -> Result<Response<proto::get_provider_schema::Response>, Status> {
        let shared = &self.shared;
        let resources = shared.resources().iter().map(|(name, r)| ((*name).to_owned(), r.schema().to_wire()));
        let data_sources =
            shared.data_sources().iter().map(|(name, d)| ((*name).to_owned(), d.schema().to_wire()));
        Ok(Response::new(proto::get_provider_schema::Response {
            provider: Some(shared.schema().to_wire()),
            resource_schemas: resources.collect(),
            data_source_schemas: data_sources.collect(),
            diagnostics: vec![],
            provider_meta: None,
            server_capabilities: Some(CAPABILITIES),
        }))
    }

    async fn validate_provider_config(
        &self,
        request: Request<proto::validate_provider_config::Request>,
    ) -> Result<Response<proto::validate_provider_config::Response>, Status> {
        let request = request.into_inner();
        let result = self.run("ValidateProviderConfig", P::NAME, |shared| async move {
            let schema = shared.schema();
            let config = decode(schema, request.config.as_ref())?;
            let found = schema.validate(&config, true);
            if found.has_errors() {
                return Err(found);
            }
            shared.provider.validate(typed(P::NAME, &config)?).await
        });
        let diagnostics = only_diagnostics(result.await);
        Ok(Response::new(proto::validate_provider_config::Response { diagnostics }))
    }

    async fn validate_resource_config(
        &self,
        request: Request<proto::validate_resource_config::Request>,
    ) -> Result<Response<proto::validate_resource_config::Response>, Status> {
        let request = request.into_inner();
        let name = request.type_name.clone();
        let result = self.run("ValidateResourceConfig", &name, |shared| async move {
            let resource = shared.resource(&request.type_name)?;
            let config = decode(resource.schema(), request.config.as_ref())?;
            let write_only =
                request.client_capabilities.is_some_and(|client| client.write_only_attributes_allowed);
            let found = resource.schema().validate(&config, write_only);
            if found.has_errors() { Err(found) } else { resource.validate(config).await }
        });
        let diagnostics = only_diagnostics(result.await);
        Ok(Response::new(proto::validate_resource_config::Response { diagnostics }))
    }

    async fn validate_data_resource_config(
        &self,
        request: Request<proto::validate_data_resource_config::Request>,
    ) -> Result<Response<proto::validate_data_resource_config::Response>, Status> {
        let request = request.into_inner();
        let name = request.type_name.clone();
        let result = self.run("ValidateDataResourceConfig", &name, |shared| async move {
            let schema = shared.data_source(&request.type_name)?.schema();
            let found = schema.validate(&decode(schema, request.config.as_ref())?, true);
            if found.has_errors() { Err(found) } else { Ok(()) }
        });
        let diagnostics = only_diagnostics(result.await);
        Ok(Response::new(proto::validate_data_resource_config::Response { diagnostics }))
    }

    async fn upgrade_resource_state(
        &self,
        request: Request<proto::upgrade_resource_state::Request>,
    ) -> Result<Response<proto::upgrade_resource_state::Response>, Status> {
        let request = request.into_inner();
        let name = request.type_name.clone();
        let result = self.run("UpgradeResourceState", &name, |shared| async move {
            let value = shared.upgrade(&request)?;
            encode(shared.resource(&request.type_name)?.schema(), &value)
        });
        let (upgraded_state, diagnostics) = split(result.await);
        Ok(Response::new(proto::upgrade_resource_state::Response { upgraded_state, diagnostics }))
    }

    async fn configure_provider(
        &self,
        request: Request<proto::configure_provider::Request>,
    ) -> Result<Response<proto::configure_provider::Response>, Status> {
        let request = request.into_inner();
        let result = self.run("ConfigureProvider", P::NAME, |shared| async move {
            let config = decode(shared.schema(), request.config.as_ref())?;
            let cx = ConfigureCx {
                terraform_version: request.terraform_version,
                cancel: shared.stop.child_token(),
            };
            let data = shared.provider.configure(&cx, typed(P::NAME, &config)?).await?;
            *shared.data.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(data));
            Ok(())
        });
        let diagnostics = only_diagnostics(result.await);
        Ok(Response::new(proto::configure_provider::Response { diagnostics }))
    }

    async fn read_resource(
        &self,
        request: Request<proto::read_resource::Request>,
    ) -> Result<Response<proto::read_resource::Response>, Status> {
        let request = request.into_inner();
        let name = request.type_name.clone();
        let result = self.run("ReadResource", &name, |shared| async move {
            let schema = shared.resource(&request.type_name)?.schema();
            let read = shared.read(request).await?;
            Ok((encode(schema, &read.value)?, read))
        });
        Ok(Response::new(match result.await {
            Ok((state, read)) => proto::read_resource::Response {
                new_state: Some(state),
                private: read.private,
                diagnostics: to_wire(read.diagnostics),
            },
            Err(errors) => {
                proto::read_resource::Response { diagnostics: to_wire(errors), ..Default::default() }
            }
        }))
    }

    async fn plan_resource_change(
        &self,
        request: Request<proto::plan_resource_change::Request>,
    ) -> Result<Response<proto::plan_resource_change::Response>, Status> {
        let request = request.into_inner();
        let name = request.type_name.clone();
        let result = self.run("PlanResourceChange", &name, |shared| async move {
            let schema = shared.resource(&request.type_name)?.schema();
            let plan = shared.plan(request).await?;
            Ok((encode(schema, &plan.value)?, plan))
        });
        Ok(Response::new(match result.await {
            Ok((state, plan)) => proto::plan_resource_change::Response {
                planned_state: Some(state),
                requires_replace: plan.replace.iter().map(path_to_wire).collect(),
                planned_private: plan.private,
                diagnostics: to_wire(plan.warnings),
            },
            Err(errors) => {
                proto::plan_resource_change::Response { diagnostics: to_wire(errors), ..Default::default() }
            }
        }))
    }

    async fn apply_resource_change(
        &self,
        request: Request<proto::apply_resource_change::Request>,
    ) -> Result<Response<proto::apply_resource_change::Response>, Status> {
        let request = request.into_inner();
        let name = request.type_name.clone();
        let prior = request.prior_state.clone();
        let private =
            self.shared.resource(&name).map(|resource| resource.prior_private(&request.planned_private));
        let private = private.unwrap_or_default();
        let result = self.run("ApplyResourceChange", &name, |shared| async move {
            let schema = shared.resource(&request.type_name)?.schema();
            let applied = shared.apply(request).await?;
            Ok((encode(schema, &applied.value)?, applied))
        });
        Ok(Response::new(match result.await {
            Ok((state, applied)) => proto::apply_resource_change::Response {
                new_state: Some(state),
                private: applied.private,
                diagnostics: to_wire(applied.diagnostics),
            },
            Err(errors) => proto::apply_resource_change::Response {
                new_state: prior,
                private,
                diagnostics: to_wire(errors),
            },
        }))
    }

    async fn import_resource_state(
        &self,
        request: Request<proto::import_resource_state::Request>,
    ) -> Result<Response<proto::import_resource_state::Response>, Status> {
        let request = request.into_inner();
        let name = request.type_name.clone();
        let result = self.run("ImportResourceState", &name, |shared| async move {
            let resource = shared.resource(&request.type_name)?;
            let cx = shared.cx()?;
            let state = with_warnings(&cx, resource.import(&cx, &request.id).await)?;
            let imported = proto::import_resource_state::ImportedResource {
                type_name: request.type_name.clone(),
                state: Some(encode(resource.schema(), &null_write_only(resource.schema(), &state.value))?),
                private: state.private,
            };
            Ok((imported, cx.take_warnings()))
        });
        Ok(Response::new(match result.await {
            Ok((imported, warnings)) => proto::import_resource_state::Response {
                imported_resources: vec![imported],
                diagnostics: to_wire(warnings),
            },
            Err(errors) => proto::import_resource_state::Response {
                imported_resources: vec![],
                diagnostics: to_wire(errors),
            },
        }))
    }

    async fn read_data_source(
        &self,
        request: Request<proto::read_data_source::Request>,
    ) -> Result<Response<proto::read_data_source::Response>, Status> {
        let request = request.into_inner();
        let name = request.type_name.clone();
        let result = self.run("ReadDataSource", &name, |shared| async move {
            let source = shared.data_source(&request.type_name)?;
            let config = decode(source.schema(), request.config.as_ref())?;
            let cx = shared.cx()?;
            let value = with_warnings(&cx, source.read(&cx, config).await)?;
            Ok((encode(source.schema(), &value)?, cx.take_warnings()))
        });
        Ok(Response::new(match result.await {
            Ok((state, warnings)) => {
                proto::read_data_source::Response { state: Some(state), diagnostics: to_wire(warnings) }
            }
            Err(errors) => proto::read_data_source::Response { state: None, diagnostics: to_wire(errors) },
        }))
    }

    async fn stop_provider(
        &self,
        _request: Request<proto::stop_provider::Request>,
    ) -> Result<Response<proto::stop_provider::Response>, Status> {
        tracing::info!("asked to stop");
        self.shared.stop.cancel();
        Ok(Response::new(proto::stop_provider::Response::default()))
    }
}

/// The value with null where something is unknown: no state may hold an unknown value.
fn known_only(value: Value) -> Value {
    match value {
        Value::Unknown => Value::Null,
        Value::List(items) => Value::List(items.into_iter().map(known_only).collect()),
        Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(name, value)| (name, known_only(value))).collect())
        }
        Value::Dynamic(typed) => Value::Dynamic(Box::new((typed.0, known_only(typed.1)))),
        value => value,
    }
}

/// The warnings of an operation are worth as much when it fails.
fn with_warnings<D, T>(cx: &Cx<D>, result: Result<T, Diagnostics>) -> Result<T, Diagnostics> {
    result.map_err(|errors| {
        let mut all = cx.take_warnings();
        all.extend(errors);
        all
    })
}

fn decode(schema: &Schema, value: Option<&DynamicValue>) -> Result<Value, Diagnostics> {
    let Some(value) = value else {
        return Ok(Value::Null);
    };
    let ty = schema.ty();
    let decoded = match (value.msgpack.as_slice(), value.json.as_slice()) {
        (b"", b"") => return Ok(Value::Null),
        (b"", json) => json::decode(json, &ty),
        (msgpack, _) => msgpack::decode(msgpack, &ty),
    };
    decoded.map_err(|error| {
        Diagnostic::error("Terraform sent a value that does not fit the schema")
            .detail(error.message)
            .at(error.path)
            .into()
    })
}

fn encode(schema: &Schema, value: &Value) -> Result<DynamicValue, Diagnostics> {
    let msgpack = msgpack::encode(value, &schema.ty()).map_err(|error| {
        Diagnostic::error("The provider made a value that does not fit its own schema")
            .detail(format!("{error}. Please report it."))
            .at(error.path)
    })?;
    Ok(DynamicValue { msgpack, json: vec![] })
}

fn only_diagnostics(result: Result<(), Diagnostics>) -> Vec<proto::Diagnostic> {
    result.err().map(to_wire).unwrap_or_default()
}

fn split<T>(result: Result<T, Diagnostics>) -> (Option<T>, Vec<proto::Diagnostic>) {
    match result {
        Ok(value) => (Some(value), vec![]),
        Err(errors) => (None, to_wire(errors)),
    }
}

fn to_wire(diagnostics: Diagnostics) -> Vec<proto::Diagnostic> {
    let wire = diagnostics.into_iter().map(|diagnostic| proto::Diagnostic {
        severity: match diagnostic.severity {
            Severity::Error => proto::diagnostic::Severity::Error.into(),
            Severity::Warning => proto::diagnostic::Severity::Warning.into(),
        },
        summary: diagnostic.summary,
        detail: diagnostic.detail,
        attribute: diagnostic.path.filter(|path| !path.steps().is_empty()).as_ref().map(path_to_wire),
    });
    wire.collect()
}

fn path_to_wire(path: &Path) -> proto::AttributePath {
    use proto::attribute_path::step::Selector;
    let step = |step: &Step| proto::attribute_path::Step {
        selector: Some(match step {
            Step::Attribute(name) => Selector::AttributeName(name.clone()),
            Step::Key(key) => Selector::ElementKeyString(key.clone()),
            Step::Index(index) => Selector::ElementKeyInt(i64::try_from(*index).unwrap_or(i64::MAX)),
        }),
    };
    proto::AttributePath { steps: path.steps().iter().map(step).collect() }
}
