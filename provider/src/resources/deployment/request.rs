//! What the evaluator is asked: the specification, and what is known of its machines.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nixos_activator::MachineName;
use nixos_activator::network::{Fact, Request, Spec};
use tfplugin::{Attr, Diagnostic, Diagnostics, Path, Value};

use super::model::SpecAttributes;
use super::specialisations;
use crate::machines::Target;
use crate::settings::to_json;

/// The question to the evaluator; `None` while it is not even known what to evaluate.
pub(crate) fn evaluation_request(
    spec: &SpecAttributes<'_>,
    uuid: Fact<String>,
    nodes: Option<Vec<MachineName>>,
) -> Result<Option<Request>, Diagnostics> {
    let source = match (spec.flake, spec.configuration, untyped(spec.network)) {
        (Attr::Known(flake), ..) => Spec::Flake(flake.clone()),
        (_, Attr::Known(file), _) => Spec::Configuration(file.into()),
        (Attr::Unknown, ..) | (_, Attr::Unknown, _) | (_, _, Value::Unknown) => return Ok(None),
        (Attr::Null, Attr::Null, network) => match paths(network) {
            Some(paths) => Spec::Network(paths),
            None if network.contains_unknown() => return Ok(None),
            None => return Err(network_problem(spec.network).into_iter().collect()),
        },
    };
    let Some(machines) = spec.machines.known() else {
        if spec.machines.is_unknown() {
            return Ok(None);
        }
        return Ok(Some(request(spec, source, BTreeMap::new(), uuid, nodes)));
    };
    let mut facts = BTreeMap::new();
    for (name, target) in machines {
        let name: MachineName = name.parse().map_err(|error: nixos_activator::NameError| {
            Diagnostic::error("The key is not a machine name")
                .detail(error.to_string())
                .at(Path::root().attribute("machines").key(name))
        })?;
        let unknown = || Target {
            host: Attr::Unknown,
            port: Attr::Unknown,
            host_public_key: Attr::Unknown,
            system: Attr::Unknown,
            state_version: Attr::Unknown,
            public_ipv4: Attr::Unknown,
            private_ipv4: Attr::Unknown,
            public_ipv6: Attr::Unknown,
            target_env: Attr::Unknown,
            machine_id: Attr::Unknown,
            instance_id: Attr::Unknown,
            ..Target::default()
        };
        facts.insert(name, target.known().cloned().unwrap_or_else(unknown).facts());
    }
    Ok(Some(request(spec, source, facts, uuid, nodes)))
}

fn request(
    spec: &SpecAttributes<'_>,
    source: Spec,
    machines: BTreeMap<MachineName, nixos_activator::network::MachineFacts>,
    uuid: Fact<String>,
    nodes: Option<Vec<MachineName>>,
) -> Request {
    let specialisations = specialisations::facts(spec.specialisations, machines.keys());
    let object = |value: &Value, name: &str| match untyped(value) {
        Value::Null => serde_json::json!({}),
        value => to_json(value, name),
    };
    Request {
        spec: source,
        deployment_name: spec.name.known().cloned().unwrap_or_else(|| "default".to_owned()),
        uuid,
        machines,
        arguments: object(spec.arguments, "arguments"),
        resources: object(spec.resources, "resources"),
        specialisations,
        nodes,
        options: vec![],
        import_from_derivation: spec.import_from_derivation.known().copied().unwrap_or_default(),
    }
}

/// The value inside a dynamic attribute.
pub(crate) fn untyped(value: &Value) -> &Value {
    match value {
        Value::Dynamic(typed) => untyped(&typed.1),
        value => value,
    }
}

/// What is wrong with `network`, if anything is.
pub(crate) fn network_problem(network: &Value) -> Option<Diagnostic> {
    let network = untyped(network);
    if matches!(network, Value::Null) || network.contains_unknown() || paths(network).is_some() {
        return None;
    }
    Some(
        Diagnostic::error("`network` is not a path")
            .detail(
                "Expected the path of a NixOps network file, or a list of such paths: \
                 \"${path.module}/network.nix\".",
            )
            .at(Path::root().attribute("network")),
    )
}

/// One path or several, none of them empty.
fn paths(network: &Value) -> Option<Vec<PathBuf>> {
    let path = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(PathBuf::from);
    match network {
        Value::List(items) if !items.is_empty() => items.iter().map(path).collect(),
        value => path(value).map(|path| vec![path]),
    }
}
