//! Terraform's part, for tests: a [`Harness`] drives a provider through the lives of its resources exactly as Terraform does,
//! over the wire, without a Terraform. What Terraform would hold against the provider fails the test.
//!
//! ```no_run
//! # use tfplugin::{testing::{Harness, object}, Provider};
//! # async fn story(provider: impl Provider) {
//! let terraform = Harness::of(provider).await.unwrap();
//! terraform.configure(&object([])).await.unwrap();
//! // Validates, plans, applies, refreshes, and plans once more to see that nothing is left to do.
//! let word = terraform.create("example_word", &object([("length", 5i64.into())])).await;
//! let word = terraform.update(&word, &object([("length", 6i64.into())])).await;
//! terraform.destroy(&word).await;
//! # }
//! ```
//!
//! The same story can be told of a program ([`Harness::start`]), which Terraform's handshake and TLS stand in front of, and a
//! real Terraform can attach to a provider within the test ([`attach`]).

#![expect(clippy::expect_used, reason = "an expectation that does not hold is how a test fails")]

mod apply;
mod connect;
pub(crate) mod core;
mod holes;
mod life;
mod model;
mod others;
mod plan;
mod schema;
mod states;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use crate::path::Step;
use crate::server::plugin::{self, grpc_controller_client::GrpcControllerClient};
use crate::server::proto::provider_client::ProviderClient;
use crate::server::proto::{self, DynamicValue};
use crate::server::{MAX_MESSAGE, embedded};
use crate::{Client, Diagnostic, Diagnostics, Provider, Schema, Severity, Signature, Type, Value};

pub use apply::Applied;
pub use connect::ConnectError;
pub use holes::{Filler, Hole, Offer, holes_in};
pub use life::Stored;
pub use model::model_problems;
pub use others::{Invoked, Open};
pub use plan::{Action, Plan};
pub use states::MovedFrom;

/// An object, for configurations.
pub fn object<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Terraform's part.
#[derive(Debug)]
pub struct Harness {
    client: ProviderClient<Channel>,
    controller: GrpcControllerClient<Channel>,
    schemas: Schemas,
    says: Client,
    /// The program, where the provider is one; it ends with us.
    process: Mutex<Option<tokio::process::Child>>,
}

/// Everything a provider offers, as it says itself.
#[derive(Debug, Default)]
struct Schemas {
    provider: Schema,
    resources: BTreeMap<String, Schema>,
    data_sources: BTreeMap<String, Schema>,
    ephemeral_resources: BTreeMap<String, Schema>,
    list_resources: BTreeMap<String, Schema>,
    actions: BTreeMap<String, Schema>,
    functions: BTreeMap<String, Signature>,
}

impl Harness {
    /// A provider within this process.
    pub async fn of<P: Provider>(provider: P) -> Result<Self, ConnectError> {
        Self::over(connect::in_process(provider).await?).await
    }

    /// A program, which is started as Terraform starts it.
    pub async fn start(program: &Path) -> Result<Self, ConnectError> {
        Self::over(connect::process(program).await?).await
    }

    async fn over(connected: connect::Connected) -> Result<Self, ConnectError> {
        let controller = GrpcControllerClient::new(connected.channel.clone());
        // Terraform sends whatever it has; that it is too much is for the provider to say.
        let client = ProviderClient::new(connected.channel).max_decoding_message_size(MAX_MESSAGE);
        let schemas = Schemas::of(client.clone()).await;
        let says = Client {
            deferral_allowed: false,
            write_only_attributes_allowed: true,
            stores_planned_private: false,
        };
        Ok(Self { client, controller, schemas, says, process: Mutex::new(connected.process) })
    }

    /// As another version of Terraform, which can do other things.
    #[must_use]
    pub fn saying(self, says: Client) -> Self {
        Self { says, ..self }
    }

    /// Validates the provider block and configures.
    pub async fn configure(&self, config: &Value) -> Result<Diagnostics, Diagnostics> {
        let schema = &self.schemas.provider;
        let mut warnings = self.validate_as(Offer::Provider, config).await?;
        let config = encode(schema, &core::conform(schema, config)?);
        let request = proto::configure_provider::Request {
            terraform_version: "1.11.4".to_owned(),
            config: Some(config),
            client_capabilities: Some(self.capabilities()),
        };
        warnings.extend(heard(answer(self.client.clone().configure_provider(request).await).diagnostics)?);
        Ok(warnings)
    }

    /// What Terraform calls at the first Ctrl-C.
    pub async fn stop(&self) {
        let response = answer(self.client.clone().stop_provider(proto::stop_provider::Request {}).await);
        assert!(response.error.is_empty(), "StopProvider said {}", response.error);
    }

    /// Ends the program as Terraform does: tells it to, and kills it if it is still there two seconds later. Gives how long it
    /// took; `None` where it had to be killed.
    pub async fn end(&self) -> Option<Duration> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut process = process.expect("what ends is a program, and ends once");
        let told = Instant::now();
        answer(self.controller.clone().shutdown(plugin::Empty {}).await);
        let ended = tokio::time::timeout(Duration::from_secs(2), process.wait()).await;
        ended.is_ok().then(|| told.elapsed())
    }

    /// The process of the provider, where it is a program.
    pub fn process_id(&self) -> Option<u32> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.as_ref().and_then(tokio::process::Child::id)
    }

    /// Whether the provider puts something off, which it may only where that is allowed.
    fn is_put_off(&self, deferred: Option<proto::Deferred>) -> bool {
        assert!(deferred.is_none() || self.says.deferral_allowed, "nothing may be put off here");
        deferred.is_some()
    }

    fn capabilities(&self) -> proto::ClientCapabilities {
        proto::ClientCapabilities {
            deferral_allowed: self.says.deferral_allowed,
            write_only_attributes_allowed: self.says.write_only_attributes_allowed,
            store_planned_private: self.says.stores_planned_private,
            computed_blocks_allowed: false,
        }
    }

    /// Every name the provider has said it has, by kind; for tests of completeness.
    pub fn offers(&self) -> BTreeMap<&'static str, Vec<String>> {
        let names = |map: &BTreeMap<String, Schema>| map.keys().cloned().collect();
        BTreeMap::from([
            ("resources", names(&self.schemas.resources)),
            ("data_sources", names(&self.schemas.data_sources)),
            ("ephemeral_resources", names(&self.schemas.ephemeral_resources)),
            ("list_resources", names(&self.schemas.list_resources)),
            ("actions", names(&self.schemas.actions)),
            ("functions", self.schemas.functions.keys().cloned().collect()),
        ])
    }
}

impl Schemas {
    async fn of(mut client: ProviderClient<Channel>) -> Self {
        let wire = answer(client.get_provider_schema(proto::get_provider_schema::Request {}).await);
        heard(wire.diagnostics).expect("the provider has schemas");
        let request = proto::get_resource_identity_schemas::Request {};
        let identities = answer(client.get_resource_identity_schemas(request).await);
        heard(identities.diagnostics).expect("the provider has identity schemas");
        let functions = answer(client.get_functions(proto::get_functions::Request {}).await);
        assert_eq!(functions.functions, wire.functions, "GetFunctions and GetProviderSchema say the same");
        let metadata = answer(client.get_metadata(proto::get_metadata::Request {}).await);
        let named: Vec<_> = metadata.resources.into_iter().map(|resource| resource.type_name).collect();
        let mut known: Vec<_> = wire.resource_schemas.keys().cloned().collect();
        known.sort();
        assert_eq!(named, known, "GetMetadata and GetProviderSchema say the same");
        let read = |(name, wire): (String, proto::Schema)| {
            let schema = schema::from_wire(&wire).unwrap_or_else(|| panic!("the schema of {name} is none"));
            (name, schema)
        };
        let mut resources: BTreeMap<_, _> = wire.resource_schemas.into_iter().map(read).collect();
        for (name, wire) in identities.identity_schemas {
            let resource = resources.get_mut(&name).unwrap_or_else(|| panic!("{name} has an identity only"));
            resource.identity = Some(schema::identity(&wire).expect("the identity has types"));
        }
        let functions = wire.functions.iter().map(|(name, wire)| {
            (name.clone(), schema::signature(wire).unwrap_or_else(|| panic!("{name} has no signature")))
        });
        let actions =
            wire.action_schemas.into_iter().filter_map(|(name, action)| Some(read((name, action.schema?))));
        Self {
            provider: read((
                "provider".to_owned(),
                wire.provider.expect("Terraform wants a provider schema"),
            ))
            .1,
            resources,
            data_sources: wire.data_source_schemas.into_iter().map(read).collect(),
            ephemeral_resources: wire.ephemeral_resource_schemas.into_iter().map(read).collect(),
            list_resources: wire.list_resource_schemas.into_iter().map(read).collect(),
            actions: actions.collect(),
            functions: functions.collect(),
        }
    }

    fn named<'s>(map: &'s BTreeMap<String, Schema>, name: &str) -> &'s Schema {
        map.get(name).unwrap_or_else(|| panic!("the provider has no {name}, only {:?}", map.keys()))
    }

    fn resource(&self, name: &str) -> &Schema {
        Self::named(&self.resources, name)
    }
}

/// A provider within the test, for a real Terraform. It is served until this is dropped.
#[derive(Debug)]
pub struct Attached {
    variable: String,
    _served: DropGuard,
    _directory: tempfile::TempDir,
}

impl Attached {
    /// The value of `TF_REATTACH_PROVIDERS`.
    pub fn variable(&self) -> &str {
        &self.variable
    }
}

/// Serves a provider for a Terraform that is started with [`Attached::variable`] in `TF_REATTACH_PROVIDERS`.
pub fn attach<P: Provider>(provider: P) -> std::io::Result<Attached> {
    let shutdown = CancellationToken::new();
    let (directory, socket) = embedded::serve_on_socket(provider, &shutdown)?;
    let variable = embedded::reattach(&socket, P::SOURCE);
    Ok(Attached { variable, _served: shutdown.drop_guard(), _directory: directory })
}

/// The message of a call. Errors of the call itself are for mistakes in the protocol only.
#[track_caller]
fn answer<T>(result: Result<tonic::Response<T>, tonic::Status>) -> T {
    match result {
        Ok(response) => response.into_inner(),
        Err(status) => panic!("the call itself failed: {status}"),
    }
}

/// Warnings, or everything when there are errors.
fn heard(wire: Vec<proto::Diagnostic>) -> Result<Diagnostics, Diagnostics> {
    let all: Diagnostics = wire
        .into_iter()
        .map(|one| Diagnostic {
            severity: match one.severity() {
                proto::diagnostic::Severity::Warning => Severity::Warning,
                _ => Severity::Error,
            },
            summary: one.summary,
            detail: one.detail,
            path: one.attribute.map(path),
        })
        .collect();
    if all.has_errors() { Err(all) } else { Ok(all) }
}

fn path(wire: proto::AttributePath) -> crate::Path {
    use proto::attribute_path::step::Selector;
    let step = |step: proto::attribute_path::Step| match step.selector.expect("a step selects something") {
        Selector::AttributeName(name) => Step::Attribute(name),
        Selector::ElementKeyString(key) => Step::Key(key),
        Selector::ElementKeyInt(index) => {
            Step::Index(usize::try_from(index).expect("an index counts from 0"))
        }
    };
    crate::Path::from_steps(&wire.steps.into_iter().map(step).collect::<Vec<_>>())
}

#[track_caller]
fn encode(schema: &Schema, value: &Value) -> DynamicValue {
    encode_type(&schema.ty(), value)
}

#[track_caller]
fn encode_type(ty: &Type, value: &Value) -> DynamicValue {
    let msgpack = crate::codec::msgpack::encode(value, ty).unwrap_or_else(|error| panic!("{error}"));
    DynamicValue { msgpack: msgpack.into(), json: vec![].into() }
}

#[track_caller]
fn decode(schema: &Schema, value: Option<&DynamicValue>) -> Value {
    decode_type(&schema.ty(), value)
}

#[track_caller]
fn decode_type(ty: &Type, value: Option<&DynamicValue>) -> Value {
    let Some(value) = value.filter(|value| !value.msgpack.is_empty()) else {
        return Value::Null;
    };
    crate::codec::msgpack::decode(&value.msgpack, ty)
        .unwrap_or_else(|error| panic!("the provider answered what does not fit its schema: {error}"))
}
