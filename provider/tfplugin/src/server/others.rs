//! The calls about all that is no managed resource.

#![expect(
    clippy::unused_async,
    reason = "a call is a future even if it never waits: it runs in its own task"
)]

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;

use super::call::Call;
use super::identity::encode_identity;
use super::resources::with_warnings;
use super::rpc::{Rpc, Shared, outcome};
use super::wire::{decode, decode_type, encode, encode_type, small_enough, to_wire};
use crate::action::Said;
use crate::diagnostic::mistake;
use crate::list::RawListed;
use crate::plan::{check_known, settle, settle_type};
use crate::protocol::proto;
use crate::{Diagnostics, FunctionError, ListRequest, Progress, Provider, Schema, Value};

impl<P: Provider> Shared<P> {
    pub(super) async fn validate_data_source(
        self: Arc<Self>,
        request: proto::validate_data_resource_config::Request,
    ) -> Result<proto::validate_data_resource_config::Response, Diagnostics> {
        let source = self.registry().data_source(&request.type_name)?;
        let config = checked(source.schema(), request.config.as_ref())?;
        let diagnostics = outcome(source.validate(config).await)?;
        Ok(proto::validate_data_resource_config::Response { diagnostics })
    }

    pub(super) async fn read_data_source(
        self: Arc<Self>,
        request: proto::read_data_source::Request,
    ) -> Result<proto::read_data_source::Response, Diagnostics> {
        let source = self.registry().data_source(&request.type_name)?;
        let schema = source.schema();
        let config = decode(schema, request.config.as_ref())?;
        let cx = self.cx(request.client_capabilities.as_ref(), request.provider_meta.as_ref())?;
        let value = with_warnings(&cx, source.read(&cx, config).await)?;
        let deferred = with_warnings(&cx, cx.take_deferral())?;
        let value = settle(schema, value);
        if deferred.is_none() {
            known(source.type_name(), schema, &value)?;
        }
        Ok(proto::read_data_source::Response {
            state: Some(encode(schema, &value)?),
            diagnostics: to_wire(cx.take_warnings()),
            deferred,
        })
    }

    pub(super) async fn validate_ephemeral(
        self: Arc<Self>,
        request: proto::validate_ephemeral_resource_config::Request,
    ) -> Result<proto::validate_ephemeral_resource_config::Response, Diagnostics> {
        let ephemeral = self.registry().ephemeral_resource(&request.type_name)?;
        let config = checked(ephemeral.schema(), request.config.as_ref())?;
        let diagnostics = outcome(ephemeral.validate(config).await)?;
        Ok(proto::validate_ephemeral_resource_config::Response { diagnostics })
    }

    pub(super) async fn open_ephemeral(
        self: Arc<Self>,
        request: proto::open_ephemeral_resource::Request,
    ) -> Result<proto::open_ephemeral_resource::Response, Diagnostics> {
        let ephemeral = self.registry().ephemeral_resource(&request.type_name)?;
        let schema = ephemeral.schema();
        let config = decode(schema, request.config.as_ref())?;
        let cx = self.cx(request.client_capabilities.as_ref(), None)?;
        let opened = with_warnings(&cx, ephemeral.open(&cx, config).await)?;
        let deferred = with_warnings(&cx, cx.take_deferral())?;
        let value = settle(schema, opened.value);
        if deferred.is_none() {
            known(ephemeral.type_name(), schema, &value)?;
        }
        Ok(proto::open_ephemeral_resource::Response {
            diagnostics: to_wire(cx.take_warnings()),
            renew_at: opened.renew_at.map(Into::into),
            result: Some(encode(schema, &value)?),
            private: Some(opened.private),
            deferred,
        })
    }

    pub(super) async fn renew_ephemeral(
        self: Arc<Self>,
        request: proto::renew_ephemeral_resource::Request,
    ) -> Result<proto::renew_ephemeral_resource::Response, Diagnostics> {
        let ephemeral = self.registry().ephemeral_resource(&request.type_name)?;
        let cx = self.cx(None, None)?;
        let renewed = ephemeral.renew(&cx, request.private.unwrap_or_default()).await;
        let renewed = with_warnings(&cx, renewed)?;
        Ok(proto::renew_ephemeral_resource::Response {
            diagnostics: to_wire(cx.take_warnings()),
            renew_at: renewed.renew_at.map(Into::into),
            private: Some(renewed.private),
        })
    }

    pub(super) async fn close_ephemeral(
        self: Arc<Self>,
        request: proto::close_ephemeral_resource::Request,
    ) -> Result<proto::close_ephemeral_resource::Response, Diagnostics> {
        let ephemeral = self.registry().ephemeral_resource(&request.type_name)?;
        let cx = self.cx(None, None)?;
        let closed = ephemeral.close(&cx, request.private.unwrap_or_default()).await;
        with_warnings(&cx, closed)?;
        Ok(proto::close_ephemeral_resource::Response { diagnostics: to_wire(cx.take_warnings()) })
    }

    pub(super) async fn validate_list(
        self: Arc<Self>,
        request: proto::validate_list_resource_config::Request,
    ) -> Result<proto::validate_list_resource_config::Response, Diagnostics> {
        let list = self.registry().list_resource(&request.type_name)?;
        let config = checked(list.schema(), request.config.as_ref())?;
        let diagnostics = outcome(list.validate(config).await)?;
        Ok(proto::validate_list_resource_config::Response { diagnostics })
    }

    pub(super) async fn validate_action(
        self: Arc<Self>,
        request: proto::validate_action_config::Request,
    ) -> Result<proto::validate_action_config::Response, Diagnostics> {
        let action = self.registry().action(&request.action_type)?;
        let config = checked(action.schema(), request.config.as_ref())?;
        let diagnostics = outcome(action.validate(config).await)?;
        Ok(proto::validate_action_config::Response { diagnostics })
    }

    pub(super) async fn plan_action(
        self: Arc<Self>,
        request: proto::plan_action::Request,
    ) -> Result<proto::plan_action::Response, Diagnostics> {
        let action = self.registry().action(&request.action_type)?;
        let config = decode(action.schema(), request.config.as_ref())?;
        let cx = self.cx(request.client_capabilities.as_ref(), None)?;
        with_warnings(&cx, action.plan(&cx, config).await)?;
        let deferred = with_warnings(&cx, cx.take_deferral())?;
        // Terraform knows no other reason, and would blame the provider in words that help nobody.
        let only = proto::deferred::Reason::ProviderConfigUnknown;
        if deferred.is_some_and(|deferred| deferred.reason() != only) {
            let what = "it puts itself off, which an action may do only while the provider's configuration is not known";
            with_warnings(&cx, Err(mistake(action.type_name(), what).into()))?;
        }
        Ok(proto::plan_action::Response { diagnostics: to_wire(cx.take_warnings()), deferred })
    }

    async fn invoke(
        self: Arc<Self>,
        request: proto::invoke_action::Request,
        progress: Progress,
    ) -> Result<Diagnostics, Diagnostics> {
        let action = self.registry().action(&request.action_type)?;
        let config = decode(action.schema(), request.config.as_ref())?;
        let cx = self.cx(request.client_capabilities.as_ref(), None)?;
        with_warnings(&cx, action.invoke(&cx, config, &progress).await)?;
        Ok(cx.take_warnings())
    }

    async fn call(self: Arc<Self>, request: proto::call_function::Request) -> Result<Called, Diagnostics> {
        let function = self.registry().function(&request.name)?;
        let signature = function.signature();
        let mut arguments = vec![];
        for (index, argument) in request.arguments.iter().enumerate() {
            let Some(parameter) = signature.at(index) else {
                return Ok(Err(FunctionError::new("this is an argument too many").argument(index)));
            };
            arguments.push(decode_type(&parameter.ty, Some(argument))?);
        }
        if arguments.len() < signature.parameters.len() {
            let (found, expected) = (arguments.len(), signature.parameters.len());
            return Ok(Err(FunctionError::new(format!("found {found} arguments, expected {expected}"))));
        }
        Ok(match function.call(arguments) {
            Ok(result) => Ok(encode_type(&signature.result, &settle_type(&signature.result, result))?),
            Err(error) => Err(error),
        })
    }

    /// Lists into `events`, as many as are wanted.
    async fn list(
        self: Arc<Self>,
        request: proto::list_resource::Request,
        events: mpsc::Sender<proto::list_resource::Event>,
    ) -> Result<Diagnostics, Diagnostics> {
        let registry = self.registry();
        let list = registry.list_resource(&request.type_name)?;
        let managed = registry.resource(&request.type_name)?.schema();
        let config = decode(list.schema(), request.config.as_ref())?;
        let cx = self.cx(None, None)?;
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let include_resource = request.include_resource_object;
        let (sender, mut found) = mpsc::channel::<RawListed>(16);
        let cancel = cx.cancel.clone();
        let listing = list.list(&cx, ListRequest { config, include_resource, limit }, sender);
        let sending = async move {
            for _ in 0..limit {
                let listed = tokio::select! {
                    listed = found.recv() => listed,
                    // The client is gone. A resource that looks for more without finding any learns of it by this alone.
                    () = events.closed() => {
                        cancel.cancel();
                        break;
                    }
                };
                let Some(listed) = listed else { break };
                let event = match listed {
                    Ok(listed) => {
                        let state = settle(managed, listed.state);
                        let identity = managed.identity.as_ref().map(|identity| identity.of(&state));
                        let Some(Ok(identity)) = identity else {
                            let what = "what it listed does not have all attributes of its identity";
                            return Err(Diagnostics::from(mistake(&request.type_name, what)));
                        };
                        proto::list_resource::Event {
                            identity: Some(encode_identity(managed, &identity)?),
                            display_name: listed.display_name,
                            resource_object: include_resource.then(|| encode(managed, &state)).transpose()?,
                            diagnostic: vec![],
                        }
                    }
                    Err(errors) => return Err(errors),
                };
                if events.send(event).await.is_err() {
                    cancel.cancel();
                    break;
                }
            }
            Ok(())
        };
        // When no more is wanted the receiver is gone, and the resource learns that it is enough.
        let (listed, sent) = futures::join!(listing, sending);
        with_warnings(&cx, listed)?;
        with_warnings(&cx, sent)?;
        Ok(cx.take_warnings())
    }
}

type Called = Result<proto::DynamicValue, FunctionError>;

impl<P: Provider> Rpc<P> {
    /// Calls a function. Its errors have a form of their own.
    pub(super) async fn call(
        &self,
        request: proto::call_function::Request,
    ) -> proto::call_function::Response {
        let call = Call::new("CallFunction", &request.name);
        let called = self.run(&call, self.shared.clone().call(request)).await.map(|called| match called {
            Ok(result) => proto::call_function::Response { result: Some(result), error: None },
            Err(error) => function_error(error),
        });
        called.and_then(|answer| small_enough(&call, answer)).unwrap_or_else(|errors| {
            let texts = errors.into_iter().map(|error| format!("{}: {}", error.summary, error.detail));
            function_error(FunctionError::new(texts.collect::<Vec<_>>().join("\n")))
        })
    }

    /// Lists. The answer is a stream that ends when all is listed.
    pub(super) fn list(
        &self,
        request: proto::list_resource::Request,
    ) -> BoxStream<proto::list_resource::Event> {
        let (sender, receiver) = mpsc::channel(16);
        let call = Call::new("ListResource", &request.type_name);
        let rpc = Self { shared: self.shared.clone() };
        tokio::spawn(async move {
            let work = rpc.shared.clone().list(request, sender.clone());
            let diagnostics = rpc.run(&call, work).await.unwrap_or_else(|errors| errors);
            if !diagnostics.is_empty() {
                let event =
                    proto::list_resource::Event { diagnostic: to_wire(diagnostics), ..Default::default() };
                // A client that is gone has no use for it.
                let _ = sender.send(event).await;
            }
        });
        Box::pin(ReceiverStream::new(receiver).map(Ok))
    }

    /// Does something. The answer is a stream of what it says, and of its end.
    pub(super) fn invoke(
        &self,
        request: proto::invoke_action::Request,
    ) -> BoxStream<proto::invoke_action::Event> {
        use proto::invoke_action::event::{Completed, Progress as Line, Type};
        let (sender, receiver) = mpsc::unbounded_channel();
        let call = Call::new("InvokeAction", &request.action_type);
        let rpc = Self { shared: self.shared.clone() };
        tokio::spawn(async move {
            let work = rpc.shared.clone().invoke(request, Progress::new(sender.clone()));
            let diagnostics = rpc.run(&call, work).await.unwrap_or_else(|errors| errors);
            // A client that is gone has no use for it.
            let _ = sender.send(Said::End(to_wire(diagnostics)));
        });
        // The end is the end, even if somebody keeps the means to say more.
        let events = futures::stream::unfold(Some(receiver), |receiver| async move {
            let mut receiver = receiver?;
            Some(match receiver.recv().await? {
                Said::Line(message) => (Type::Progress(Line { message }), Some(receiver)),
                Said::End(diagnostics) => (Type::Completed(Completed { diagnostics }), None),
            })
        });
        Box::pin(events.map(|event| Ok(proto::invoke_action::Event { r#type: Some(event) })))
    }
}

fn function_error(error: FunctionError) -> proto::call_function::Response {
    let argument = error.argument.map(|index| i64::try_from(index).unwrap_or(i64::MAX));
    let error = proto::FunctionError { text: error.text, function_argument: argument };
    proto::call_function::Response { result: None, error: Some(error) }
}

/// A configuration that keeps the schema's rules.
fn checked(schema: &Schema, config: Option<&proto::DynamicValue>) -> Result<Value, Diagnostics> {
    let config = decode(schema, config)?;
    let found = schema.validate(&config, true);
    if found.has_errors() { Err(found) } else { Ok(config) }
}

fn known(type_name: &str, schema: &Schema, value: &Value) -> Result<(), Diagnostics> {
    let broken = check_known(type_name, schema, value);
    if broken.has_errors() { Err(broken) } else { Ok(()) }
}
