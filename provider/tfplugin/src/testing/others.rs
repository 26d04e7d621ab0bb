//! Everything but managed resources, as Terraform uses it.

use std::time::SystemTime;

use crate::plan::check_known;
use crate::protocol::proto;
use crate::{Diagnostics, FunctionError, Schema, Value};

use super::harness::Harness;
use super::offers::{Offer, Schemas};
use super::wire::{answer, decode, decode_type, encode, encode_type, heard};
use crate::terraform;

/// An ephemeral resource that is open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Open {
    /// Its attributes.
    pub value: Value,
    /// When it has to be renewed.
    pub renew_at: Option<SystemTime>,
    type_name: String,
    private: Option<Vec<u8>>,
}

/// What an action has said, and how it ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Invoked {
    /// What it said meanwhile.
    pub lines: Vec<String>,
    /// What it had to say at the end.
    pub diagnostics: Diagnostics,
    /// Whether the provider has put it off: nothing was done.
    pub deferred: bool,
}

impl Harness {
    /// Validates a configuration of any kind. Warnings, or errors.
    pub async fn validate_as(&self, of: Offer<'_>, config: &Value) -> Result<Diagnostics, Diagnostics> {
        let schema = self.schemas.of_offer(of);
        let config = Some(encode(schema, &terraform::conform(schema, config)?));
        let mut client = self.client.clone();
        let found = match of {
            Offer::Resource(name) => {
                let request = proto::validate_resource_config::Request {
                    type_name: name.to_owned(),
                    config,
                    client_capabilities: Some(self.capabilities()),
                };
                answer(client.validate_resource_config(request).await).diagnostics
            }
            Offer::Provider => {
                let request = proto::validate_provider_config::Request { config };
                answer(client.validate_provider_config(request).await).diagnostics
            }
            Offer::DataSource(name) => {
                let type_name = name.to_owned();
                let request = proto::validate_data_resource_config::Request { type_name, config };
                answer(client.validate_data_resource_config(request).await).diagnostics
            }
            Offer::EphemeralResource(name) => {
                let type_name = name.to_owned();
                let request = proto::validate_ephemeral_resource_config::Request { type_name, config };
                answer(client.validate_ephemeral_resource_config(request).await).diagnostics
            }
            Offer::ListResource(name) => {
                let request = proto::validate_list_resource_config::Request {
                    type_name: name.to_owned(),
                    config,
                    ..Default::default()
                };
                answer(client.validate_list_resource_config(request).await).diagnostics
            }
            Offer::Action(name) => {
                let request = proto::validate_action_config::Request { action_type: name.to_owned(), config };
                answer(client.validate_action_config(request).await).diagnostics
            }
        };
        heard(found)
    }

    /// Validates and reads a data source.
    pub async fn read(&self, type_name: &str, config: &Value) -> Result<Value, Diagnostics> {
        let schema = Schemas::named(&self.schemas.data_sources, type_name);
        self.validate_as(Offer::DataSource(type_name), config).await?;
        let config = encode(schema, &terraform::conform(schema, config)?);
        let request = proto::read_data_source::Request {
            type_name: type_name.to_owned(),
            config: Some(config),
            client_capabilities: Some(self.capabilities()),
            ..Default::default()
        };
        let response = answer(self.client.clone().read_data_source(request).await);
        heard(response.diagnostics)?;
        let value = decode(schema, response.state.as_ref());
        assert_known(type_name, schema, &value);
        Ok(value)
    }

    /// Calls a function, twice, which must give the same.
    pub async fn call(&self, name: &str, arguments: &[Value]) -> Result<Value, FunctionError> {
        let signature =
            self.schemas.functions.get(name).unwrap_or_else(|| panic!("there is no function {name}"));
        let mut found = Diagnostics::default();
        let encoded: Vec<_> = arguments
            .iter()
            .enumerate()
            .map(|(index, argument)| {
                let ty = &signature.at(index).unwrap_or_else(|| panic!("{name} has no argument {index}")).ty;
                encode_type(ty, &terraform::convert(ty, argument, &crate::Path::root(), &mut found))
            })
            .collect();
        assert!(found.is_empty(), "{name}: {found:#?}");
        let mut results = vec![];
        for _ in 0..2 {
            let request = proto::call_function::Request { name: name.to_owned(), arguments: encoded.clone() };
            let response = answer(self.client.clone().call_function(request).await);
            results.push(match response.error {
                Some(error) => Err(FunctionError {
                    text: error.text,
                    argument: error.function_argument.and_then(|index| usize::try_from(index).ok()),
                }),
                None => Ok(decode_type(&signature.result, response.result.as_ref())),
            });
        }
        assert_eq!(results.first(), results.last(), "{name} gives the same for the same arguments");
        results.remove(0)
    }

    /// Validates and opens an ephemeral resource.
    pub async fn open(&self, type_name: &str, config: &Value) -> Result<Open, Diagnostics> {
        let schema = Schemas::named(&self.schemas.ephemeral_resources, type_name);
        self.validate_as(Offer::EphemeralResource(type_name), config).await?;
        let config = encode(schema, &terraform::conform(schema, config)?);
        let request = proto::open_ephemeral_resource::Request {
            type_name: type_name.to_owned(),
            config: Some(config),
            client_capabilities: Some(self.capabilities()),
        };
        let response = answer(self.client.clone().open_ephemeral_resource(request).await);
        heard(response.diagnostics)?;
        let value = decode(schema, response.result.as_ref());
        assert_known(type_name, schema, &value);
        Ok(Open {
            value,
            renew_at: response.renew_at.and_then(|time| time.try_into().ok()),
            type_name: type_name.to_owned(),
            private: response.private,
        })
    }

    /// Renews what is open.
    pub async fn renew(&self, open: Open) -> Result<Open, Diagnostics> {
        let request = proto::renew_ephemeral_resource::Request {
            type_name: open.type_name.clone(),
            private: open.private.clone(),
        };
        let response = answer(self.client.clone().renew_ephemeral_resource(request).await);
        heard(response.diagnostics)?;
        let renew_at = response.renew_at.and_then(|time| time.try_into().ok());
        Ok(Open { renew_at, private: response.private, ..open })
    }

    /// Closes what is open.
    pub async fn close(&self, open: Open) -> Result<Diagnostics, Diagnostics> {
        let request =
            proto::close_ephemeral_resource::Request { type_name: open.type_name, private: open.private };
        heard(answer(self.client.clone().close_ephemeral_resource(request).await).diagnostics)
    }

    /// Validates and lists (Terraform 1.14): display name, identity, and the state where `include_resource` asks for it.
    pub async fn list(
        &self,
        type_name: &str,
        config: &Value,
        limit: i64,
        include_resource: bool,
    ) -> Result<Vec<(String, Value, Option<Value>)>, Diagnostics> {
        self.listed(type_name, config, limit, include_resource, usize::MAX).await
    }

    /// Validates and lists, and goes away as soon as so many have come, as Terraform does when it is interrupted.
    pub async fn list_and_leave(
        &self,
        type_name: &str,
        config: &Value,
        leave_after: usize,
    ) -> Result<Vec<(String, Value, Option<Value>)>, Diagnostics> {
        self.listed(type_name, config, i64::MAX, false, leave_after).await
    }

    async fn listed(
        &self,
        type_name: &str,
        config: &Value,
        limit: i64,
        include_resource: bool,
        leave_after: usize,
    ) -> Result<Vec<(String, Value, Option<Value>)>, Diagnostics> {
        let schema = Schemas::named(&self.schemas.list_resources, type_name);
        let managed = self.schemas.resource(type_name);
        let identity = managed.identity.as_ref().expect("what is listed has an identity").ty();
        self.validate_as(Offer::ListResource(type_name), config).await?;
        let config = encode(schema, &terraform::conform(schema, config)?);
        let request = proto::list_resource::Request {
            type_name: type_name.to_owned(),
            config: Some(config),
            include_resource_object: include_resource,
            limit,
        };
        let mut events = answer(self.client.clone().list_resource(request).await);
        let mut found = vec![];
        while found.len() < leave_after
            && let Some(event) = events.message().await.unwrap_or_else(|status| panic!("{status}"))
        {
            let warnings = heard(event.diagnostic)?;
            let Some(wire) = event.identity else {
                assert!(!warnings.is_empty(), "an event without a warning has an identity");
                continue;
            };
            let state = event.resource_object.as_ref().map(|state| decode(managed, Some(state)));
            assert_eq!(state.is_some(), include_resource, "states come when they are asked for");
            found.push((event.display_name, decode_type(&identity, wire.identity_data.as_ref()), state));
        }
        Ok(found)
    }

    /// Validates, plans and invokes an action (Terraform 1.14).
    pub async fn invoke(&self, type_name: &str, config: &Value) -> Result<Invoked, Diagnostics> {
        use proto::invoke_action::event::Type;
        let schema = Schemas::named(&self.schemas.actions, type_name);
        self.validate_as(Offer::Action(type_name), config).await?;
        let config = encode(schema, &terraform::conform(schema, config)?);
        let request = proto::plan_action::Request {
            action_type: type_name.to_owned(),
            config: Some(config.clone()),
            client_capabilities: Some(self.capabilities()),
        };
        let planned = answer(self.client.clone().plan_action(request).await);
        let warnings = heard(planned.diagnostics)?;
        if let Some(deferred) = planned.deferred {
            let only = proto::deferred::Reason::ProviderConfigUnknown;
            assert_eq!(deferred.reason(), only, "Terraform knows no other reason to put an action off");
            let deferred = self.is_put_off(Some(deferred));
            return Ok(Invoked { lines: vec![], diagnostics: warnings, deferred });
        }
        let request = proto::invoke_action::Request {
            action_type: type_name.to_owned(),
            config: Some(config),
            client_capabilities: Some(self.capabilities()),
        };
        let mut events = answer(self.client.clone().invoke_action(request).await);
        let mut lines = vec![];
        let mut end = None;
        while let Some(event) = events.message().await.unwrap_or_else(|status| panic!("{status}")) {
            assert!(end.is_none(), "nothing comes after the end");
            match event.r#type.expect("an event is of a type") {
                Type::Progress(progress) => lines.push(progress.message),
                Type::Completed(completed) => end = Some(completed.diagnostics),
            }
        }
        let diagnostics =
            heard(end.expect("an action says that it has ended")).unwrap_or_else(|errors| errors);
        Ok(Invoked { lines, diagnostics, deferred: false })
    }
}

#[track_caller]
fn assert_known(type_name: &str, schema: &Schema, value: &Value) {
    let broken = check_known(type_name, schema, value);
    assert!(broken.is_empty(), "Terraform accepts nothing unknown: {broken:#?}");
}
