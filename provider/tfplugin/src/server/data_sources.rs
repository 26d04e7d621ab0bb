//! The calls about data sources.

use std::sync::Arc;

use super::outcome::{checked, must_be_known, outcome, with_warnings};
use super::rpc::Shared;
use super::wire::{decode, encode, to_wire};
use crate::plan::normalized;
use crate::protocol::proto;
use crate::{Diagnostics, Provider};

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
        let value = normalized(schema, value);
        if deferred.is_none() {
            must_be_known(source.type_name(), schema, &value)?;
        }
        Ok(proto::read_data_source::Response {
            state: Some(encode(schema, &value)?),
            diagnostics: to_wire(cx.take_warnings()),
            deferred,
        })
    }
}
