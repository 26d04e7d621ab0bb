//! What a provider offers, by name. It is asked once.

use std::collections::BTreeMap;

use crate::protocol::proto;
use crate::schema::IdentitySchema;
use crate::{
    Diagnostic, Diagnostics, DynAction, DynDataSource, DynEphemeralResource, DynFunction, DynListResource,
    DynResource, Provider, Schema,
};

type ByName<T> = BTreeMap<&'static str, Box<T>>;

/// Everything of a provider, by name.
pub(super) struct Registry<P: Provider> {
    pub(super) schema: Schema,
    pub(super) meta: Option<Schema>,
    pub(super) functions: ByName<dyn DynFunction>,
    resources: ByName<dyn DynResource<P::Data>>,
    data_sources: ByName<dyn DynDataSource<P::Data>>,
    ephemeral_resources: ByName<dyn DynEphemeralResource<P::Data>>,
    list_resources: ByName<dyn DynListResource<P::Data>>,
    actions: ByName<dyn DynAction<P::Data>>,
}

/// The provider is asked to plan a destroy; its schema need not be fetched again in each process; it takes moved
/// states, and makes configurations of states. A client that does not know one of these ignores it.
const CAPABILITIES: proto::ServerCapabilities = proto::ServerCapabilities {
    plan_destroy: true,
    get_provider_schema_optional: true,
    move_resource_state: true,
    generate_resource_config: true,
};

macro_rules! look_up {
    ($($(#[$doc:meta])* $name:ident in $map:ident: $what:literal -> $item:ty),* $(,)?) => {
        $($(#[$doc])* pub(super) fn $name(&self, name: &str) -> Result<&$item, Diagnostics> {
            self.$map.get(name).map(AsRef::as_ref).ok_or_else(|| missing($what, name, self.$map.keys()))
        })*
    };
}

impl<P: Provider> Registry<P> {
    pub(super) fn of(provider: &P) -> Self {
        Self {
            schema: provider.schema(),
            meta: provider.meta_schema(),
            functions: provider.functions().into_iter().map(|item| (item.name(), item)).collect(),
            resources: provider.resources().into_iter().map(|item| (item.type_name(), item)).collect(),
            data_sources: provider.data_sources().into_iter().map(|item| (item.type_name(), item)).collect(),
            ephemeral_resources: provider
                .ephemeral_resources()
                .into_iter()
                .map(|item| (item.type_name(), item))
                .collect(),
            list_resources: provider
                .list_resources()
                .into_iter()
                .map(|item| (item.type_name(), item))
                .collect(),
            actions: provider.actions().into_iter().map(|item| (item.type_name(), item)).collect(),
        }
    }

    look_up! {
        resource in resources: "resource type" -> dyn DynResource<P::Data>,
        data_source in data_sources: "data source" -> dyn DynDataSource<P::Data>,
        ephemeral_resource in ephemeral_resources: "ephemeral resource" -> dyn DynEphemeralResource<P::Data>,
        list_resource in list_resources: "list resource" -> dyn DynListResource<P::Data>,
        action in actions: "action" -> dyn DynAction<P::Data>,
        function in functions: "function" -> dyn DynFunction,
    }

    pub(super) fn metadata(&self) -> proto::get_metadata::Response {
        use proto::get_metadata::{FunctionName, TypeName};
        fn names<T: ?Sized>(map: &ByName<T>) -> Vec<TypeName> {
            map.keys().map(|name| TypeName { type_name: (*name).to_owned() }).collect()
        }
        proto::get_metadata::Response {
            server_capabilities: Some(CAPABILITIES),
            diagnostics: vec![],
            data_sources: names(&self.data_sources),
            resources: names(&self.resources),
            functions: self.functions.keys().map(|name| FunctionName { name: (*name).to_owned() }).collect(),
            ephemeral_resources: names(&self.ephemeral_resources),
            list_resources: names(&self.list_resources),
            actions: names(&self.actions),
        }
    }

    pub(super) fn provider_schema(&self) -> proto::get_provider_schema::Response {
        let owned = |name: &&'static str| (*name).to_owned();
        proto::get_provider_schema::Response {
            provider: Some(self.schema.to_wire()),
            resource_schemas: self
                .resources
                .iter()
                .map(|(name, r)| (owned(name), r.schema().to_wire()))
                .collect(),
            data_source_schemas: self
                .data_sources
                .iter()
                .map(|(name, d)| (owned(name), d.schema().to_wire()))
                .collect(),
            diagnostics: vec![],
            provider_meta: self.meta.as_ref().map(Schema::to_wire),
            server_capabilities: Some(CAPABILITIES),
            functions: self.function_schemas().functions,
            ephemeral_resource_schemas: self
                .ephemeral_resources
                .iter()
                .map(|(name, e)| (owned(name), e.schema().to_wire()))
                .collect(),
            list_resource_schemas: self
                .list_resources
                .iter()
                .map(|(name, l)| (owned(name), l.schema().to_wire()))
                .collect(),
            action_schemas: self
                .actions
                .iter()
                .map(|(name, a)| (owned(name), proto::ActionSchema { schema: Some(a.schema().to_wire()) }))
                .collect(),
        }
    }

    pub(super) fn identity_schemas(&self) -> proto::get_resource_identity_schemas::Response {
        let schemas = self.resources.iter().filter_map(|(name, resource)| {
            let identity = resource.schema().identity.as_ref();
            Some(((*name).to_owned(), identity.map(IdentitySchema::to_wire)?))
        });
        proto::get_resource_identity_schemas::Response {
            identity_schemas: schemas.collect(),
            diagnostics: vec![],
        }
    }

    pub(super) fn function_schemas(&self) -> proto::get_functions::Response {
        let functions = self
            .functions
            .iter()
            .map(|(name, function)| ((*name).to_owned(), function.signature().to_wire()));
        proto::get_functions::Response { functions: functions.collect(), diagnostics: vec![] }
    }
}

fn missing<'n>(what: &str, name: &str, names: impl Iterator<Item = &'n &'static str>) -> Diagnostics {
    let names = names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let detail = if names.is_empty() { "It has none.".to_owned() } else { format!("It has {names}.") };
    Diagnostic::error(format!("The provider has no {what} `{name}`")).detail(detail).into()
}

impl crate::Signature {
    fn to_wire(&self) -> proto::Function {
        let parameter = |(name, parameter): &(String, crate::Parameter)| proto::function::Parameter {
            name: name.clone(),
            r#type: parameter.ty.to_json().to_string().into_bytes(),
            allow_null_value: parameter.allow_null,
            allow_unknown_values: parameter.allow_unknown,
            description: parameter.description.clone(),
            description_kind: proto::StringKind::Markdown.into(),
        };
        proto::Function {
            parameters: self.parameters.iter().map(parameter).collect(),
            variadic_parameter: self.variadic.as_ref().map(parameter),
            r#return: Some(proto::function::Return {
                r#type: self.result.to_json().to_string().into_bytes(),
            }),
            summary: self.summary.clone(),
            description: self.description.clone(),
            description_kind: proto::StringKind::Markdown.into(),
            deprecation_message: self.deprecated.clone().unwrap_or_default(),
        }
    }
}
