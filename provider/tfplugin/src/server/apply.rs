//! The call that applies. Whatever goes wrong, its answer has the state that exists now.

use std::sync::Arc;

use super::call::Call;
use super::identity::{encode_identity, identity_of};
use super::judged;
use super::rpc::{Rpc, Shared};
use super::wire::{Answer as _, decode, encode, encode_type, to_wire, too_large};
use crate::diagnostic::mistake;
use crate::plan::{check_applied, keep_spelling, known_only, normalized, retyped};
use crate::protocol::proto;
use crate::resource::RawState;
use crate::{Diagnostic, Diagnostics, DynResource, Provider, Schema, Value};

impl<P: Provider> Rpc<P> {
    /// Applies a plan. Whatever goes wrong, a panic included, the answer has a state: the prior one where nothing
    /// better is known.
    pub(super) async fn apply(
        &self,
        request: proto::apply_resource_change::Request,
    ) -> proto::apply_resource_change::Response {
        let call = Call::new("ApplyResourceChange", &request.type_name);
        let (name, prior, planned) =
            (request.type_name.clone(), request.prior_state.clone(), request.planned_private.clone());
        match self.run(&call, self.shared.clone().apply(call.clone(), request)).await {
            Ok(applied) => applied,
            Err(errors) => {
                let resource = self.shared.registry().resource(&name).ok();
                let private = resource.map(|resource| resource.prior_private(&planned));
                let identity = resource.and_then(|resource| {
                    let schema = resource.schema();
                    let identity = identity_of(schema, &decode(schema, prior.as_ref()).ok()?)?;
                    encode_identity(schema, &identity).ok()
                });
                proto::apply_resource_change::Response {
                    new_state: prior,
                    private: private.unwrap_or_default(),
                    new_identity: identity,
                    ..proto::apply_resource_change::Response::failed(errors)
                }
            }
        }
    }
}

impl<P: Provider> Shared<P> {
    async fn apply(
        self: Arc<Self>,
        call: Call,
        request: proto::apply_resource_change::Request,
    ) -> Result<proto::apply_resource_change::Response, Diagnostics> {
        let resource = self.registry().resource(&request.type_name)?;
        let schema = resource.schema();
        let prior = decode(schema, request.prior_state.as_ref())?;
        let planned = decode(schema, request.planned_state.as_ref())?;
        let config = decode(schema, request.config.as_ref())?;
        let private = request.planned_private;
        let cx = self.cx(None, request.provider_meta.as_ref())?;
        let (state, mut found) = if planned.is_null() {
            let state = RawState { value: prior.clone(), private: private.clone() };
            match resource.delete(&cx, state).await {
                Ok(()) => (Some(RawState { value: Value::Null, private: vec![] }), Diagnostics::default()),
                Err(errors) => (None, errors),
            }
        } else {
            let state = RawState { value: planned.clone(), private: private.clone() };
            let applied = resource.apply(&cx, prior.clone(), state, config).await;
            (applied.state, applied.diagnostics)
        };
        // A failed apply without a state has changed nothing.
        let state = state.unwrap_or_else(|| {
            if !found.has_errors() {
                found.push(mistake(resource.type_name(), "it failed without saying why"));
            }
            RawState { value: prior, private: resource.prior_private(&private) }
        });
        let value = normalized(schema, retyped(state.value, &planned));
        let mut value = keep_spelling(schema, value, &planned);
        let must_be_complete = !found.has_errors() && !value.is_null();
        if must_be_complete {
            let mut broken = check_applied(resource.type_name(), schema, &planned, &value);
            judged::note("apply", &value, &mut broken);
            found.extend(broken);
        }
        // No state may hold unknown values. What a failed apply left unknown becomes null.
        if !judged::is_on() {
            value = known_only(value);
        }
        let identity = identity_of(schema, &value);
        if must_be_complete && identity.is_none() {
            found.extend(incomplete(resource));
        }
        // Where a value does not fit its attribute, only that value is lost, not the whole state.
        let new_state = encode(schema, &value).or_else(|errors| {
            found.extend(errors);
            encode(schema, &fitting(schema, value))
        })?;
        let mut diagnostics = cx.take_warnings();
        diagnostics.extend(found);
        let answer = proto::apply_resource_change::Response {
            new_state: Some(new_state),
            private: state.private,
            diagnostics: to_wire(diagnostics),
            new_identity: identity.and_then(|identity| encode_identity(schema, &identity).ok()),
        };
        match too_large(&call, &answer) {
            Some(error) => as_planned(schema, &known_only(planned), answer, error),
            None => Ok(answer),
        }
    }
}

/// An answer whose state is too large has the planned state instead: that one has come over the same wire.
fn as_planned(
    schema: &Schema,
    planned: &Value,
    answer: proto::apply_resource_change::Response,
    error: Diagnostic,
) -> Result<proto::apply_resource_change::Response, Diagnostics> {
    let identity = identity_of(schema, planned);
    let mut diagnostics = answer.diagnostics;
    diagnostics.extend(to_wire(error.into()));
    Ok(proto::apply_resource_change::Response {
        new_state: Some(encode(schema, planned)?),
        new_identity: identity.and_then(|identity| encode_identity(schema, &identity).ok()),
        private: answer.private,
        diagnostics,
    })
}

/// The state with null where something does not fit its attribute.
fn fitting(schema: &Schema, value: Value) -> Value {
    let Value::Map(mut entries) = value else {
        return Value::Null;
    };
    entries.retain(|name, value| {
        schema.attributes.get(name).is_some_and(|attribute| encode_type(&attribute.ty(), value).is_ok())
    });
    Value::Map(entries)
}

/// An error for a resource whose state lacks a part of its identity.
fn incomplete<D>(resource: &dyn DynResource<D>) -> Option<Diagnostic> {
    resource.schema().identity.as_ref()?;
    Some(mistake(resource.type_name(), "its state does not have all attributes of its identity"))
}
