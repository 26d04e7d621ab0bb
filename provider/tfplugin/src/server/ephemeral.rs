//! The calls about ephemeral resources.

use std::sync::Arc;

use super::outcome::{checked, must_be_known, outcome, with_warnings};
use super::rpc::Shared;
use super::wire::{decode, encode, to_wire};
use crate::plan::normalized;
use crate::protocol::proto;
use crate::{Diagnostics, Provider};

impl<P: Provider> Shared<P> {
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
        let value = normalized(schema, opened.value);
        if deferred.is_none() {
            must_be_known(ephemeral.type_name(), schema, &value)?;
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
}
