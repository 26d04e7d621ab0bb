//! `nixos_network`: what a specification says, as Terraform values. Evaluates, contacts no machine.

use std::collections::BTreeMap;

use nixos_activator::evaluate::{Node, NodeDescription};
use nixos_activator::network::{Fact, Request};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tfplugin::{Attr, Attribute, Cx, DataSource, Diagnostic, Diagnostics, Nested, Schema, Value};

use crate::context::Context;
use crate::diagnose;
use crate::machines::Target;
use crate::resources::deployment::{SpecAttributes, evaluation_request, machines_attribute, spec_attributes};
use crate::settings::{List, known_elements, strings_attribute};

pub(crate) struct NetworkDataSource;

/// Configuration and result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Network {
    name: Attr<String>,
    network: Value,
    flake: Attr<String>,
    configuration: Attr<String>,
    import_from_derivation: Attr<bool>,
    machines: Attr<BTreeMap<String, Attr<Target>>>,
    arguments: Value,
    resources: Value,
    options: List<String>,
    description: Attr<String>,
    nodes: Attr<BTreeMap<String, NodeModel>>,
    deployment: Value,
    network_resources: Value,
    values: Value,
}

/// One node of the result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeModel {
    target_env: Attr<String>,
    target_host: Attr<String>,
    target_port: Attr<u16>,
    target_user: Attr<String>,
    toplevel: Attr<String>,
    drv: Attr<String>,
    nixos_version: Attr<String>,
    waits_for: Attr<String>,
}

impl DataSource<Context> for NetworkDataSource {
    const TYPE: &'static str = "nixos_network";
    type Model = Network;

    fn schema(&self) -> Schema {
        let text = |description: &str| Attribute::string().computed().description(description);
        let node = Nested::new()
            .attribute("target_env", text("`deployment.targetEnv`: the kind of place the node is meant for."))
            .attribute("target_host", text("`deployment.targetHost`: where to reach it."))
            .attribute(
                "target_port",
                Attribute::number()
                    .computed()
                    .description("`deployment.targetPort`: the port of its SSH server."),
            )
            .attribute("target_user", text("`deployment.targetUser`: who logs in."))
            .attribute(
                "toplevel",
                text(
                    "The node's system: its store path. Null where the node is not in `machines`, or needs \
                     facts of one that is not.",
                ),
            )
            .attribute("drv", text("The derivation that builds the system; null where `toplevel` is."))
            .attribute(
                "nixos_version",
                text(
                    "The NixOS version of the system, e.g. `24.11.20250101.abcdef`; null where `toplevel` \
                     is.",
                ),
            )
            .attribute(
                "waits_for",
                text(
                    "The fact without which `toplevel` is not known, e.g. \
                                          `machines.db.private_ipv4`.",
                ),
            );
        spec_attributes(Schema::new(0).description(
            "What a specification says about its nodes: a `for_each` over it gives each node its \
             `nixos_machine`. The result is stored in the plan and not read again at apply.",
        ))
        .attribute(
            "machines",
            machines_attribute().optional().description(
                "The machines that exist already: their nodes are evaluated to the system. Without it only \
                 `deployment`, `network_resources` and `values` are, which needs no facts.",
            ),
        )
        .attribute(
            "options",
            strings_attribute(
                "Options whose values are wanted in `values`, e.g. \
                                                 `[\"services.openssh.ports\"]`.",
            ),
        )
        .attribute("nodes", Attribute::nested_map(node).computed().description("The nodes, by name."))
        .attribute("description", text("`network.description`."))
        .attribute(
            "deployment",
            Attribute::dynamic().computed().description(
                "`deployment.*` of each node: an object of nodes, each an object as in the specification, \
                 so that `deployment[\"web\"].ec2.instanceType` can drive the resource that makes the \
                 machine. What is secret there is left out; what is not known yet is null. A machine or a \
                 resource in there is its name.",
            ),
        )
        .attribute(
            "network_resources",
            Attribute::dynamic().computed().description(
                "`resources.TYPE.NAME` as the specification declares them, e.g. \
                 `network_resources.s3Buckets[\"assets\"].name`. What is secret there is left out; what is \
                 not known yet is null. A machine, or another resource, in one is its name.",
            ),
        )
        .attribute(
            "values",
            Attribute::dynamic().computed().description(
                "The values of `options`: an object of nodes, each an object by option; null where an \
                 option has no value, or one that needs a fact of a machine that is not in `machines`. The \
                 platform of such a machine is taken to be that of the computer where Terraform runs; in a \
                 flake it is not known.",
            ),
        )
    }

    async fn read(&self, cx: &Cx<Context>, mut config: Network) -> Result<Network, Diagnostics> {
        let spec = SpecAttributes {
            name: &config.name,
            network: &config.network,
            flake: &config.flake,
            configuration: &config.configuration,
            import_from_derivation: &config.import_from_derivation,
            machines: &config.machines,
            arguments: &config.arguments,
            resources: &config.resources,
            specialisations: &Attr::Null,
        };
        let path = spec.path();
        let Some(request) = evaluation_request(&spec, Fact::Unknown, None)? else {
            return Err(Diagnostic::error("The specification is not known yet").at(path).into());
        };
        let request = Request { options: known_elements(&config.options).cloned().collect(), ..request };
        if !cx.data.is_nix_known() {
            let detail = "It takes a value from something that does not exist before apply, so nothing can \
                          be evaluated.";
            return Err(Diagnostic::error("The provider's `nix` block is not known yet")
                .detail(detail)
                .into());
        }
        let nix = cx.data.nix().await.map_err(|error| diagnose::nix(&error))?;
        let failed = |error| diagnose::evaluation(&error, &path);
        let described = cx.data.evaluator.describe(nix, &request, &cx.cancel).await.map_err(failed)?;
        // Only what has a machine has all that its system may need; the others are asked what they say of themselves,
        // no more.
        let wanted =
            described.nodes.keys().filter(|name| request.machines.contains_key(*name)).cloned().collect();
        let request = Request { nodes: Some(wanted), ..request };
        let evaluated = cx.data.evaluator.evaluate(nix, &request, &cx.cancel).await.map_err(failed)?;
        evaluated.warnings.iter().for_each(|warning| cx.warn(diagnose::of_specification(warning, &path)));
        // A node that needs facts of another that has no machine waits for them; a broken one is an error.
        let broken = evaluated.nodes.iter().filter(|(_, node)| matches!(node, Node::Broken { .. }));
        let problems = diagnose::nodes(broken);
        if !problems.is_empty() {
            return Err(problems);
        }

        let mut nodes = BTreeMap::new();
        for (name, description) in &described.nodes {
            nodes.insert(name.to_string(), node_model(description, evaluated.nodes.get(name)));
        }
        let deployment =
            described.nodes.iter().map(|(name, node)| (name.to_string(), Value::from_json(&node.deployment)));
        config.deployment = Value::Map(deployment.collect()).into_dynamic();
        config.network_resources = Value::from_json(&described.resources).into_dynamic();
        config.description = Attr::from(described.description);
        let values = described.nodes.iter().map(|(name, node)| {
            let options =
                node.options.iter().map(|(option, value)| (option.clone(), Value::from_json(value)));
            (name.to_string(), Value::Map(options.collect()))
        });
        config.values = Value::Map(values.collect()).into_dynamic();
        config.nodes = Attr::Known(nodes);
        Ok(config)
    }
}

fn node_model(description: &NodeDescription, node: Option<&Node>) -> NodeModel {
    let value = |name: &str| description.deployment.get(name);
    let text = |name: &str| Attr::from(value(name).and_then(Json::as_str).map(str::to_owned));
    let mut model = NodeModel {
        target_env: text("targetEnv"),
        target_host: text("targetHost"),
        target_port: Attr::from(
            value("targetPort").and_then(Json::as_u64).and_then(|port| port.try_into().ok()),
        ),
        target_user: text("targetUser"),
        ..NodeModel::default()
    };
    match node {
        Some(Node::Exact(system)) => {
            model.toplevel = Attr::Known(system.toplevel.to_string());
            model.drv = Attr::Known(system.drv.to_string());
            model.nixos_version = Attr::from(system.nixos_version.clone());
        }
        Some(Node::Waits { on }) => model.waits_for = Attr::Known(on.clone()),
        Some(Node::NoMachine { of, fact }) => {
            model.waits_for = Attr::Known(format!("machines.{of}.{fact}"));
        }
        Some(Node::Broken { .. }) | None => {}
    }
    model
}
