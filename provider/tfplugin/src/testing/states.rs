//! States and identities that come from elsewhere: an older version, an import, another type.

use crate::protocol::proto;
use crate::{Diagnostics, Schema, Value};

use super::harness::Harness;
use super::outcome::Stored;
use super::wire::{answer, decode, decode_type, encode, encode_type, heard};
use crate::terraform;

/// Where something is moved from.
#[derive(Clone, Copy, Debug)]
pub struct MovedFrom<'a> {
    /// The provider's address, with its host.
    pub provider: &'a str,
    /// The type there.
    pub type_name: &'a str,
    /// The version of its schema there.
    pub version: i64,
    /// Its state there.
    pub state: &'a serde_json::Value,
}

impl Harness {
    /// Brings a state that was written under an older schema to the current one.
    pub async fn upgrade(
        &self,
        type_name: &str,
        version: i64,
        state: &serde_json::Value,
    ) -> Result<Value, Diagnostics> {
        self.upgrade_text(type_name, version, state.to_string()).await
    }

    /// The same for a state as text, in which numbers have all their digits.
    pub(super) async fn upgrade_text(
        &self,
        type_name: &str,
        version: i64,
        state: String,
    ) -> Result<Value, Diagnostics> {
        let schema = self.schemas.resource(type_name);
        let request = proto::upgrade_resource_state::Request {
            type_name: type_name.to_owned(),
            version,
            raw_state: Some(proto::RawState { json: state.into_bytes(), ..Default::default() }),
        };
        let response = answer(self.client.clone().upgrade_resource_state(request).await);
        heard(response.diagnostics)?;
        let value = decode(schema, response.upgraded_state.as_ref());
        assert!(!value.contains_unknown(), "an upgraded state is known");
        Ok(value)
    }

    /// Brings an identity that was written under an older schema to the current one.
    pub async fn upgrade_identity(
        &self,
        type_name: &str,
        version: i64,
        identity: &serde_json::Value,
    ) -> Result<Value, Diagnostics> {
        let request = proto::upgrade_resource_identity::Request {
            type_name: type_name.to_owned(),
            version,
            raw_identity: Some(proto::RawState {
                json: identity.to_string().into_bytes(),
                ..Default::default()
            }),
        };
        let response = answer(self.client.clone().upgrade_resource_identity(request).await);
        heard(response.diagnostics)?;
        Ok(self.identity_from_wire(type_name, response.upgraded_identity.as_ref()).expect("there is one"))
    }

    /// Imports by id and reads.
    pub async fn import(&self, type_name: &str, id: &str) -> Result<Stored, Diagnostics> {
        self.take_in(type_name, id.to_owned(), None).await
    }

    /// Imports by identity (Terraform 1.12) and reads.
    pub async fn import_identity(&self, type_name: &str, identity: &Value) -> Result<Stored, Diagnostics> {
        self.take_in(type_name, String::new(), Some(identity)).await
    }

    async fn take_in(
        &self,
        type_name: &str,
        id: String,
        identity: Option<&Value>,
    ) -> Result<Stored, Diagnostics> {
        let schema = self.schemas.resource(type_name);
        let request = proto::import_resource_state::Request {
            type_name: type_name.to_owned(),
            id,
            client_capabilities: Some(self.capabilities()),
            identity: identity.map(|identity| wire_identity(schema, identity)),
        };
        let response = answer(self.client.clone().import_resource_state(request).await);
        heard(response.diagnostics)?;
        let [imported] = response.imported_resources.as_slice() else {
            panic!("one resource is imported, not {}", response.imported_resources.len());
        };
        let unread = Stored {
            type_name: imported.type_name.clone(),
            version: schema.version,
            value: decode(schema, imported.state.as_ref()),
            private: imported.private.clone(),
            identity: self.identity_from_wire(type_name, imported.identity.as_ref()),
            tainted: false,
            deferred: self.is_put_off(response.deferred),
        };
        if unread.deferred {
            return Ok(unread);
        }
        let read = self.refresh(&unread).await?;
        Ok(read.expect("what is imported exists"))
    }

    /// Makes something of another type one of this (`moved` across types).
    pub async fn move_state(&self, from: &MovedFrom<'_>, type_name: &str) -> Result<Stored, Diagnostics> {
        let schema = self.schemas.resource(type_name);
        let request = proto::move_resource_state::Request {
            source_provider_address: from.provider.to_owned(),
            source_type_name: from.type_name.to_owned(),
            source_schema_version: from.version,
            source_state: Some(proto::RawState {
                json: from.state.to_string().into_bytes(),
                ..Default::default()
            }),
            target_type_name: type_name.to_owned(),
            ..Default::default()
        };
        let response = answer(self.client.clone().move_resource_state(request).await);
        heard(response.diagnostics)?;
        Ok(Stored {
            type_name: type_name.to_owned(),
            version: schema.version,
            value: decode(schema, response.target_state.as_ref()),
            private: response.target_private,
            identity: self.identity_from_wire(type_name, response.target_identity.as_ref()),
            tainted: false,
            deferred: false,
        })
    }

    /// The configuration that the provider makes of a state; it must be one that Terraform accepts.
    pub async fn generate_config(&self, stored: &Stored) -> Result<Value, Diagnostics> {
        let schema = self.schemas.resource(&stored.type_name);
        let request = proto::generate_resource_config::Request {
            type_name: stored.type_name.clone(),
            state: Some(encode(schema, &stored.value)),
        };
        let response = answer(self.client.clone().generate_resource_config(request).await);
        heard(response.diagnostics)?;
        let config = decode(schema, response.config.as_ref());
        terraform::conform(schema, &config)?;
        Ok(config)
    }

    pub(super) fn identity_to_wire(&self, stored: &Stored) -> Option<proto::ResourceIdentityData> {
        let identity = stored.identity.as_ref()?;
        Some(wire_identity(self.schemas.resource(&stored.type_name), identity))
    }

    pub(super) fn identity_from_wire(
        &self,
        type_name: &str,
        wire: Option<&proto::ResourceIdentityData>,
    ) -> Option<Value> {
        let identity = self.schemas.resource(type_name).identity.as_ref()?;
        let value = decode_type(&identity.ty(), wire?.identity_data.as_ref());
        assert!(!value.contains_unknown(), "an identity is known");
        Some(value).filter(|value| !value.is_null())
    }
}

fn wire_identity(schema: &Schema, identity: &Value) -> proto::ResourceIdentityData {
    let ty = schema.identity.as_ref().expect("the resource has an identity").ty();
    proto::ResourceIdentityData { identity_data: Some(encode_type(&ty, identity)) }
}
