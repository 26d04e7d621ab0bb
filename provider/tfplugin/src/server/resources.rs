//! The calls about managed resources, but for the one that applies. All rules that hold for every resource are applied
//! here.

#![expect(
    clippy::unused_async,
    reason = "a call is a future even if it never waits: it runs in its own task"
)]

use std::sync::Arc;

use super::identity::{decode_identity, encode_identity, identity_of, known_identity, same_identity};
use super::judged;
use super::outcome::{outcome, with_warnings};
use super::rpc::Shared;
use super::wire::{decode, encode, path_to_wire, to_wire};
use crate::codec::json;
use crate::diagnostic::mistake;
use crate::plan::{
    check_known, check_paths, check_planned, keep_spelling, normalized, propose, replaced, retyped,
};
use crate::protocol::proto;
use crate::resource::{MoveRequest, RawState};
use crate::{Diagnostic, Diagnostics, Provider, Value};

impl<P: Provider> Shared<P> {
    pub(super) async fn validate_resource(
        self: Arc<Self>,
        request: proto::validate_resource_config::Request,
    ) -> Result<proto::validate_resource_config::Response, Diagnostics> {
        let resource = self.registry().resource(&request.type_name)?;
        let schema = resource.schema();
        let config = decode(schema, request.config.as_ref())?;
        let write_only = request
            .client_capabilities
            .is_some_and(|capabilities| capabilities.write_only_attributes_allowed);
        let found = schema.validate(&config, write_only);
        if found.has_errors() {
            return Err(found);
        }
        let diagnostics = outcome(resource.validate(config).await)?;
        Ok(proto::validate_resource_config::Response { diagnostics })
    }

    pub(super) async fn plan(
        self: Arc<Self>,
        request: proto::plan_resource_change::Request,
    ) -> Result<proto::plan_resource_change::Response, Diagnostics> {
        let resource = self.registry().resource(&request.type_name)?;
        let (name, schema) = (resource.type_name(), resource.schema());
        let prior = decode(schema, request.prior_state.as_ref())?;
        let config = decode(schema, request.config.as_ref())?;
        let proposed = decode(schema, request.proposed_new_state.as_ref())?;
        let cx = self.cx(request.client_capabilities.as_ref(), request.provider_meta.as_ref())?;
        let state = RawState { value: prior.clone(), private: request.prior_private.clone() };
        if proposed.is_null() {
            with_warnings(&cx, resource.plan_destroy(&cx, state).await)?;
            return Ok(proto::plan_resource_change::Response {
                planned_state: Some(encode(schema, &Value::Null)?),
                planned_private: request.prior_private,
                diagnostics: to_wire(cx.take_warnings()),
                ..Default::default()
            });
        }
        let start = propose(schema, &prior, &config, &proposed);
        let plan = resource.plan(&cx, state, config.clone(), start, &request.planned_private).await;
        let plan = with_warnings(&cx, plan)?;
        let deferred = with_warnings(&cx, cx.take_deferral())?;
        let value = normalized(schema, retyped(plan.planned, &proposed));
        let mut broken = Diagnostics::default();
        // A plan that is deferred need not agree with anything yet.
        if deferred.is_none() {
            broken.extend(check_planned(name, schema, &prior, &config, &value));
            broken.extend(check_paths(name, &plan.requires_replace, &prior, &value));
        }
        judged::note("plan", &value, &mut broken);
        judged::note_proposal(schema, &prior, &config, &proposed);
        let mut replace = replaced(schema, &prior, &value);
        replace.extend(plan.requires_replace);
        let mut seen = std::collections::HashSet::new();
        replace.retain(|path| seen.insert(path.clone()));
        let identity = known_identity(schema, &value);
        if replace.is_empty()
            && let (Some(before), Some(after)) = (identity_of(schema, &prior), &identity)
            && !same_identity(&before, after)
        {
            broken.push(mistake(name, "it plans another identity for the same object"));
        }
        with_warnings(&cx, if broken.has_errors() { Err(broken) } else { Ok(()) })?;
        Ok(proto::plan_resource_change::Response {
            planned_state: Some(encode(schema, &value)?),
            requires_replace: replace.iter().map(path_to_wire).collect(),
            planned_private: plan.private,
            diagnostics: to_wire(cx.take_warnings()),
            deferred,
            planned_identity: identity.map(|identity| encode_identity(schema, &identity)).transpose()?,
        })
    }

    pub(super) async fn read(
        self: Arc<Self>,
        request: proto::read_resource::Request,
    ) -> Result<proto::read_resource::Response, Diagnostics> {
        let resource = self.registry().resource(&request.type_name)?;
        let schema = resource.schema();
        let value = decode(schema, request.current_state.as_ref())?;
        let cx = self.cx(request.client_capabilities.as_ref(), request.provider_meta.as_ref())?;
        let state = RawState { value: value.clone(), private: request.private };
        let state = with_warnings(&cx, resource.read(&cx, state).await)?;
        let deferred = with_warnings(&cx, cx.take_deferral())?;
        let state = state.unwrap_or(RawState { value: Value::Null, private: vec![] });
        let value = keep_spelling(schema, normalized(schema, retyped(state.value, &value)), &value);
        let mut broken = Diagnostics::default();
        if deferred.is_none() {
            broken.extend(check_known(resource.type_name(), schema, &value));
        }
        let identity = known_identity(schema, &value);
        if let (Some(before), Some(after)) =
            (decode_identity(schema, request.current_identity.as_ref())?, &identity)
            && !same_identity(&before, after)
        {
            broken.push(mistake(resource.type_name(), "it found another identity for the same object"));
        }
        with_warnings(&cx, if broken.has_errors() { Err(broken) } else { Ok(()) })?;
        Ok(proto::read_resource::Response {
            new_state: Some(encode(schema, &value)?),
            private: state.private,
            diagnostics: to_wire(cx.take_warnings()),
            deferred,
            new_identity: identity.map(|identity| encode_identity(schema, &identity)).transpose()?,
        })
    }

    pub(super) async fn upgrade(
        self: Arc<Self>,
        request: proto::upgrade_resource_state::Request,
    ) -> Result<proto::upgrade_resource_state::Response, Diagnostics> {
        let resource = self.registry().resource(&request.type_name)?;
        let schema = resource.schema();
        let mut state = stored(request.raw_state.as_ref(), "The stored state")?;
        if request.version != schema.version {
            let upgraded = resource.upgrade(request.version, parsed(&state, "The stored state")?)?;
            state = upgraded.to_string().into_bytes();
        }
        let value = json::decode_state(&state, &schema.ty())
            .map_err(|error| unreadable("The stored state", error))?;
        let upgraded_state = Some(encode(schema, &normalized(schema, value))?);
        Ok(proto::upgrade_resource_state::Response { upgraded_state, diagnostics: vec![] })
    }

    pub(super) async fn upgrade_identity(
        self: Arc<Self>,
        request: proto::upgrade_resource_identity::Request,
    ) -> Result<proto::upgrade_resource_identity::Response, Diagnostics> {
        let resource = self.registry().resource(&request.type_name)?;
        let schema = resource.schema();
        let Some(identity) = &schema.identity else {
            return Err(mistake(resource.type_name(), "it has no identity to upgrade").into());
        };
        let mut found = stored(request.raw_identity.as_ref(), "The stored identity")?;
        if request.version != identity.version() {
            let parsed = parsed(&found, "The stored identity")?;
            found = resource.upgrade_identity(request.version, parsed)?.to_string().into_bytes();
        }
        let value = json::decode_state(&found, &identity.ty())
            .map_err(|error| unreadable("The stored identity", error))?;
        let upgraded_identity = Some(encode_identity(schema, &value)?);
        Ok(proto::upgrade_resource_identity::Response { upgraded_identity, diagnostics: vec![] })
    }

    pub(super) async fn import(
        self: Arc<Self>,
        request: proto::import_resource_state::Request,
    ) -> Result<proto::import_resource_state::Response, Diagnostics> {
        let resource = self.registry().resource(&request.type_name)?;
        let schema = resource.schema();
        let cx = self.cx(request.client_capabilities.as_ref(), None)?;
        let wanted = decode_identity(schema, request.identity.as_ref())?;
        let state = match &wanted {
            Some(Value::Map(identity)) => resource.import_identity(&cx, identity.clone()).await,
            _ => resource.import(&cx, &request.id).await,
        };
        let state = with_warnings(&cx, state)?;
        let deferred = with_warnings(&cx, cx.take_deferral())?;
        let value = normalized(schema, state.value);
        let mut broken = Diagnostics::default();
        if deferred.is_none() {
            broken.extend(check_known(resource.type_name(), schema, &value));
        }
        with_warnings(&cx, if broken.has_errors() { Err(broken) } else { Ok(()) })?;
        // An imported state may lack a part of the identity until it has been read.
        let identity = known_identity(schema, &value).or(wanted);
        let imported = proto::import_resource_state::ImportedResource {
            type_name: request.type_name.clone(),
            state: Some(encode(schema, &value)?),
            private: state.private,
            identity: identity.map(|identity| encode_identity(schema, &identity)).transpose()?,
        };
        Ok(proto::import_resource_state::Response {
            imported_resources: vec![imported],
            diagnostics: to_wire(cx.take_warnings()),
            deferred,
        })
    }

    pub(super) async fn move_state(
        self: Arc<Self>,
        request: proto::move_resource_state::Request,
    ) -> Result<proto::move_resource_state::Response, Diagnostics> {
        const MOVED: &str = "The state that is to be moved";
        let resource = self.registry().resource(&request.target_type_name)?;
        let schema = resource.schema();
        let (from, to) = (request.source_type_name.clone(), resource.type_name());
        let moved = resource.move_state(MoveRequest {
            source_provider: request.source_provider_address.clone(),
            source_type: request.source_type_name,
            source_version: request.source_schema_version,
            state: parsed(&stored(request.source_state.as_ref(), MOVED)?, MOVED)?,
            private: request.source_private,
        });
        let Some(state) = moved.await? else {
            return Err(Diagnostic::error(format!("{from} cannot become {to}"))
                .detail(format!(
                    "{to} does not know how to take over the state of {from} of {}. Remove the `moved` block, take \
                     {from} out of the state by a `removed` block, and import it as {to}.",
                    request.source_provider_address
                ))
                .into());
        };
        let value = normalized(schema, state.value);
        let broken = check_known(to, schema, &value);
        if broken.has_errors() {
            return Err(broken);
        }
        let identity = identity_of(schema, &value);
        Ok(proto::move_resource_state::Response {
            target_state: Some(encode(schema, &value)?),
            target_private: state.private,
            target_identity: identity.map(|identity| encode_identity(schema, &identity)).transpose()?,
            diagnostics: vec![],
        })
    }

    pub(super) async fn generate_config(
        self: Arc<Self>,
        request: proto::generate_resource_config::Request,
    ) -> Result<proto::generate_resource_config::Response, Diagnostics> {
        let resource = self.registry().resource(&request.type_name)?;
        let schema = resource.schema();
        let state = decode(schema, request.state.as_ref())?;
        let config = schema.configurable(normalized(schema, resource.generate_config(state).await?));
        Ok(proto::generate_resource_config::Response {
            config: Some(encode(schema, &config)?),
            diagnostics: vec![],
        })
    }
}

/// The JSON text that Terraform has stored.
fn stored(raw: Option<&proto::RawState>, what: &str) -> Result<Vec<u8>, Diagnostics> {
    let raw = raw.ok_or_else(|| unreadable(what, "there is none"))?;
    if !raw.flatmap.is_empty() {
        return Err(unreadable(
            what,
            "it was written by Terraform 0.11 or older; upgrade by way of Terraform 0.12",
        ));
    }
    Ok(raw.json.clone())
}

fn parsed(json: &[u8], what: &str) -> Result<serde_json::Value, Diagnostics> {
    serde_json::from_slice(json).map_err(|error| unreadable(what, error))
}

fn unreadable(what: &str, why: impl std::fmt::Display) -> Diagnostics {
    Diagnostic::error(format!("{what} cannot be read")).detail(format!("Found: {why}.")).into()
}
