//! The calls about actions. What an action says goes out as a stream, with its end.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::codegen::BoxStream;

use super::call::Call;
use super::outcome::{checked, outcome, with_warnings};
use super::rpc::{Rpc, Shared};
use super::wire::{decode, to_wire};
use crate::action::Said;
use crate::diagnostic::mistake;
use crate::protocol::proto;
use crate::{Diagnostics, Progress, Provider};

impl<P: Provider> Rpc<P> {
    /// Invokes an action. The answer is a stream of the lines that the action says, and of its end.
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
            // This fails when the client is gone; then the end is not needed.
            let _ = sender.send(Said::End(to_wire(diagnostics)));
        });
        // The stream ends with the action, even if a clone of its `Progress` lives on.
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

impl<P: Provider> Shared<P> {
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
        // For an action Terraform takes no other reason. Its own message would not say what is wrong.
        let only = proto::deferred::Reason::ProviderConfigUnknown;
        if deferred.is_some_and(|deferred| deferred.reason() != only) {
            let what = "it puts itself off, which an action may do only while the provider's configuration is \
                        not known";
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
}
