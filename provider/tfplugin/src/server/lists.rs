//! The calls about list resources. What is found goes out as a stream.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;

use super::call::Call;
use super::identity::encode_identity;
use super::outcome::{checked, outcome, with_warnings};
use super::rpc::{Rpc, Shared};
use super::wire::{decode, encode, to_wire};
use crate::diagnostic::mistake;
use crate::list::RawListed;
use crate::plan::normalized;
use crate::protocol::proto;
use crate::{Diagnostics, ListRequest, Provider};

impl<P: Provider> Rpc<P> {
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
                // This fails when the client is gone; then the message is not needed.
                let _ = sender.send(event).await;
            }
        });
        Box::pin(ReceiverStream::new(receiver).map(Ok))
    }
}

impl<P: Provider> Shared<P> {
    pub(super) async fn validate_list(
        self: Arc<Self>,
        request: proto::validate_list_resource_config::Request,
    ) -> Result<proto::validate_list_resource_config::Response, Diagnostics> {
        let list = self.registry().list_resource(&request.type_name)?;
        let config = checked(list.schema(), request.config.as_ref())?;
        let diagnostics = outcome(list.validate(config).await)?;
        Ok(proto::validate_list_resource_config::Response { diagnostics })
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
                    // The client is gone. A list that is still searching and finds nothing learns it only by this
                    // cancellation.
                    () = events.closed() => {
                        cancel.cancel();
                        break;
                    }
                };
                let Some(listed) = listed else { break };
                let event = match listed {
                    Ok(listed) => {
                        let state = normalized(managed, listed.state);
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
        // When enough was found, the receiver is dropped, and `Found::push` tells the list to stop.
        let (listed, sent) = futures::join!(listing, sending);
        with_warnings(&cx, listed)?;
        with_warnings(&cx, sent)?;
        Ok(cx.take_warnings())
    }
}
