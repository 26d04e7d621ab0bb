//! `nixos_deployment`: a network onto machines.
//!
//! Plan evaluates, apply builds, pushes and activates, read asks every machine what it really runs. What a machine
//! runs is one entry of `systems`; all decisions compare entries.

mod apply;
mod claims;
mod generations;
mod health;
mod identity;
mod ids;
mod import;
mod jobs;
mod look;
mod model;
mod pin;
mod plan;
mod private;
mod read;
mod request;
mod rollout;
mod schema;
mod secrets;
mod specialisations;
mod stop;
mod texts;

use nixos_activator::reboot::When;
use tfplugin::{
    ApplyRequest, Cx, Diagnostic, Diagnostics, Failed, Path, PlanRequest, PlanResponse, Resource, Schema,
    State, Value,
};

use crate::context::Context;
use model::Deployment;
use private::Private;

pub(crate) use claims::Claims;
pub(crate) use model::SpecAttributes;
pub(crate) use request::evaluation_request;
pub(crate) use schema::{machines_attribute, spec_attributes};

pub(crate) struct DeploymentResource;

impl Resource<Context> for DeploymentResource {
    const TYPE: &'static str = "nixos_deployment";
    type Model = Deployment;
    type Private = Private;

    fn schema(&self) -> Schema {
        schema::schema()
    }

    async fn validate(&self, config: Deployment) -> Result<(), Diagnostics> {
        let mut found = Diagnostics::default();
        if let Some(problem) = request::network_problem(&config.network) {
            found.push(problem);
        }
        for (name, value) in [("arguments", &config.arguments), ("resources", &config.resources)] {
            if !matches!(request::untyped(value), Value::Map(_) | Value::Null | Value::Unknown) {
                found.push(
                    Diagnostic::error(format!("`{name}` is not an object"))
                        .detail(format!(
                            "Expected `{name} = {{ key = value, … }}`: each key is a name that Nix sees."
                        ))
                        .at(Path::root().attribute(name)),
                );
            }
        }
        found.extend(config.machines.known().into_iter().flat_map(|machines| {
            machines.keys().filter_map(|name| {
                let error = name.parse::<nixos_activator::MachineName>().err()?;
                let path = Path::root().attribute("machines").key(name);
                Some(Diagnostic::error("The key is not a machine name").detail(format!("{error}.")).at(path))
            })
        }));
        let names =
            config.machines.known().map(|machines| machines.keys().map(String::as_str).collect::<Vec<_>>());
        found.extend(health::problems(&config.health_checks, names.as_deref()));
        found.extend(rollout::problems(
            &config.rollout,
            names.as_deref(),
            &config.action,
            &config.rollback,
            config.reboots(),
        ));
        if config.reboots() != When::Never
            && let Some(action) = config.action.known().filter(|a| !matches!(a.as_str(), "switch" | "boot"))
        {
            found.push(
                Diagnostic::error("There is nothing to reboot into")
                    .detail(format!(
                        "Found `action = \"{action}\"`, which leaves what boots as it is; `reboot` needs \
                         \"switch\" or \"boot\"."
                    ))
                    .at(Path::root().attribute("reboot")),
            );
        }
        found.extend(secrets::problems(&config.secrets, names.as_deref()));
        found.extend(generations::problems(&config.generations, names.as_deref()));
        found.extend(specialisations::problems(
            &config.specialisations,
            names.as_deref(),
            &config.generations,
        ));
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    async fn plan(
        &self,
        cx: &Cx<Context>,
        request: PlanRequest<Deployment, Private>,
    ) -> Result<PlanResponse<Deployment, Private>, Diagnostics> {
        plan::plan(cx, request).await
    }

    async fn read(
        &self,
        cx: &Cx<Context>,
        state: State<Deployment, Private>,
    ) -> Result<Option<State<Deployment, Private>>, Diagnostics> {
        read::read(cx, state).await.map(Some)
    }

    async fn create(
        &self,
        cx: &Cx<Context>,
        request: ApplyRequest<Deployment, Private>,
    ) -> Result<State<Deployment, Private>, Failed<Deployment, Private>> {
        apply::apply(cx, None, request).await
    }

    async fn update(
        &self,
        cx: &Cx<Context>,
        prior: State<Deployment, Private>,
        request: ApplyRequest<Deployment, Private>,
    ) -> Result<State<Deployment, Private>, Failed<Deployment, Private>> {
        apply::apply(cx, Some(prior), request).await
    }

    async fn delete(&self, cx: &Cx<Context>, state: State<Deployment, Private>) -> Result<(), Diagnostics> {
        // Machines keep running what they run. Also after a create that failed half-way, when Terraform deletes and
        // creates anew: touching machines here would be worse than the failure.
        if let Some(id) = state.value.id.known().and_then(|id| id.parse().ok()) {
            cx.data.deployments.delete(id);
        }
        if let Some(roots) = ids::roots(&state.value) {
            roots.remove().map_err(|error| {
                Diagnostic::error("The deployment's garbage collector roots cannot be removed")
                    .detail(error.to_string())
            })?;
        }
        Ok(())
    }

    async fn import(&self, cx: &Cx<Context>, id: &str) -> Result<State<Deployment, Private>, Diagnostics> {
        import::import(cx, &self.schema(), id).await
    }
}
