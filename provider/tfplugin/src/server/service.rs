//! The protocol's service: one table says which call is done by which function, and whose name it bears in logs.

use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::call::Call;
use super::rpc::{Rpc, Shared};
use crate::Provider;
use crate::protocol::proto;
use crate::protocol::proto::provider_server::Provider as Service;

/// Makes the service of `Rpc`. A row of `unary` is a call with one answer, of whose request the module of [`proto`] has the name of
/// the method:
///
/// ```text
/// method: NameInTheProtocol(subject in logs) => what answers it,
/// ```
///
/// The subject is the provider, or what this field of the request names. What follows `others` is written out.
macro_rules! service {
    (
        unary { $($method:ident: $rpc:ident($($subject:ident).+) => $work:path,)* }
        others { $($others:tt)* }
    ) => {
        #[tonic::async_trait]
        impl<P: Provider> Service for Rpc<P> {
            $(async fn $method(
                &self,
                request: Request<proto::$method::Request>,
            ) -> Result<Response<proto::$method::Response>, Status> {
                let call = Call::new(stringify!($rpc), service!(@subject request, $($subject).+));
                self.answer(call, request, $work).await
            })*
            $($others)*
        }
    };
    (@subject $request:ident, provider) => { P::NAME };
    (@subject $request:ident, request.$field:ident) => { &$request.get_ref().$field };
}

service! {
    unary {
        get_metadata: GetMetadata(provider) => Shared::metadata,
        get_provider_schema: GetProviderSchema(provider) => Shared::provider_schema,
        get_resource_identity_schemas: GetResourceIdentitySchemas(provider) => Shared::identity_schemas,
        get_functions: GetFunctions(provider) => Shared::function_schemas,
        validate_provider_config: ValidateProviderConfig(provider) => Shared::validate_provider,
        configure_provider: ConfigureProvider(provider) => Shared::configure,

        validate_resource_config: ValidateResourceConfig(request.type_name) => Shared::validate_resource,
        upgrade_resource_state: UpgradeResourceState(request.type_name) => Shared::upgrade,
        upgrade_resource_identity: UpgradeResourceIdentity(request.type_name) => Shared::upgrade_identity,
        read_resource: ReadResource(request.type_name) => Shared::read,
        plan_resource_change: PlanResourceChange(request.type_name) => Shared::plan,
        import_resource_state: ImportResourceState(request.type_name) => Shared::import,
        move_resource_state: MoveResourceState(request.target_type_name) => Shared::move_state,
        generate_resource_config: GenerateResourceConfig(request.type_name) => Shared::generate_config,

        validate_data_resource_config: ValidateDataResourceConfig(request.type_name) => Shared::validate_data_source,
        read_data_source: ReadDataSource(request.type_name) => Shared::read_data_source,

        validate_ephemeral_resource_config: ValidateEphemeralResourceConfig(request.type_name)
            => Shared::validate_ephemeral,
        open_ephemeral_resource: OpenEphemeralResource(request.type_name) => Shared::open_ephemeral,
        renew_ephemeral_resource: RenewEphemeralResource(request.type_name) => Shared::renew_ephemeral,
        close_ephemeral_resource: CloseEphemeralResource(request.type_name) => Shared::close_ephemeral,

        validate_list_resource_config: ValidateListResourceConfig(request.type_name) => Shared::validate_list,
        validate_action_config: ValidateActionConfig(request.action_type) => Shared::validate_action,
        plan_action: PlanAction(request.action_type) => Shared::plan_action,
    }
    others {
        /// An apply has a state to answer with, whatever goes wrong.
        async fn apply_resource_change(
            &self,
            request: Request<proto::apply_resource_change::Request>,
        ) -> Result<Response<proto::apply_resource_change::Response>, Status> {
            Ok(Response::new(self.apply(request.into_inner()).await))
        }

        /// A function has errors of a kind of its own.
        async fn call_function(
            &self,
            request: Request<proto::call_function::Request>,
        ) -> Result<Response<proto::call_function::Response>, Status> {
            Ok(Response::new(self.call(request.into_inner()).await))
        }

        async fn list_resource(
            &self,
            request: Request<proto::list_resource::Request>,
        ) -> Result<Response<BoxStream<proto::list_resource::Event>>, Status> {
            Ok(Response::new(self.list(request.into_inner())))
        }

        async fn invoke_action(
            &self,
            request: Request<proto::invoke_action::Request>,
        ) -> Result<Response<BoxStream<proto::invoke_action::Event>>, Status> {
            Ok(Response::new(self.invoke(request.into_inner())))
        }

        async fn stop_provider(
            &self,
            _request: Request<proto::stop_provider::Request>,
        ) -> Result<Response<proto::stop_provider::Response>, Status> {
            tracing::info!("asked to stop");
            self.shared.stop();
            Ok(Response::new(proto::stop_provider::Response::default()))
        }
    }
}
