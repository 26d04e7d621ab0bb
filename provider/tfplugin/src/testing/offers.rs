//! What a provider offers, by its own word: the schema of everything it has.

use std::collections::BTreeMap;

use tonic::transport::Channel;

use super::schema;
use super::wire::{answer, heard};
use crate::protocol::proto;
use crate::protocol::proto::provider_client::ProviderClient;
use crate::{Schema, Signature};

/// What a configuration is for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Offer<'n> {
    /// The provider block.
    Provider,
    /// A managed resource of this type.
    Resource(&'n str),
    /// A data source.
    DataSource(&'n str),
    /// An ephemeral resource.
    EphemeralResource(&'n str),
    /// A list resource.
    ListResource(&'n str),
    /// An action.
    Action(&'n str),
}

/// Everything a provider offers, as it says itself.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    pub(super) provider: Schema,
    pub(super) resources: BTreeMap<String, Schema>,
    pub(super) data_sources: BTreeMap<String, Schema>,
    pub(super) ephemeral_resources: BTreeMap<String, Schema>,
    pub(super) list_resources: BTreeMap<String, Schema>,
    pub(super) actions: BTreeMap<String, Schema>,
    pub(super) functions: BTreeMap<String, Signature>,
}

impl Schemas {
    pub(super) async fn of(mut client: ProviderClient<Channel>) -> Self {
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

    pub(super) fn named<'s>(map: &'s BTreeMap<String, Schema>, name: &str) -> &'s Schema {
        map.get(name).unwrap_or_else(|| panic!("the provider has no {name}, only {:?}", map.keys()))
    }

    pub(super) fn resource(&self, name: &str) -> &Schema {
        Self::named(&self.resources, name)
    }

    /// The schema of what a configuration is for.
    pub(super) fn of_offer(&self, of: Offer<'_>) -> &Schema {
        match of {
            Offer::Provider => &self.provider,
            Offer::Resource(name) => Self::named(&self.resources, name),
            Offer::DataSource(name) => Self::named(&self.data_sources, name),
            Offer::EphemeralResource(name) => Self::named(&self.ephemeral_resources, name),
            Offer::ListResource(name) => Self::named(&self.list_resources, name),
            Offer::Action(name) => Self::named(&self.actions, name),
        }
    }
}
