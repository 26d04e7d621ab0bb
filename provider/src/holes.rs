//! Null, and what is not known yet, in every place of every configuration.
//!
//! `tests/fixtures/configurations` has valid configurations of everything the provider offers. Each is asked about
//! once with null and once with an unknown value in each of its places. An unknown value is no error: Terraform asks
//! again when it is known. Null may be one, and then names the place.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nixos_activator::deploy::Tools;
use nixos_activator::progress::Progress;
use nixos_activator::scheduler::Scheduler;
use nixos_activator::ssh::Pool;
use serde_json::Value as Json;
use tfplugin::testing::{Filler, Harness, Hole, Offer, Stored, holes_in, object};
use tfplugin::{Diagnostics, Value};

use crate::provider::NixosProvider;
use crate::provider::tests::configured;
use crate::resources::states::{configuration, in_empty_cloud, recorded, stored};

/// What no message may say: it is for mistakes of the provider.
const INTERNAL: [&str; 4] = ["cannot be used", "Please report it", "please report it", "without saying why"];

/// The configurations, by kind and type.
fn configurations() -> BTreeMap<(String, String), Vec<Value>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/configurations");
    let mut found: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for one in serde_json::from_str::<Vec<Json>>(&text).unwrap() {
            let name = |key: &str| one[key].as_str().unwrap().to_owned();
            found.entry((name("kind"), name("type"))).or_default().push(one["config"].clone().into());
        }
    }
    found
}

fn offer<'n>(kind: &str, name: &'n str) -> Option<Offer<'n>> {
    Some(match kind {
        "provider" => Offer::Provider,
        "resource" => Offer::Resource(name),
        "data" => Offer::DataSource(name),
        "ephemeral" => Offer::EphemeralResource(name),
        _ => return None,
    })
}

/// A provider that nothing is known of: it asks no machine, no cloud, and evaluates nothing.
async fn blind() -> Harness {
    let block = [("ssh", Value::Unknown), ("nix", Value::Unknown), ("aws", Value::Unknown)];
    configured(&object(block)).await
}

/// Asks about a resource with each hole: a provider that nothing is known of, and one of which only the cloud is
/// known, and nothing is in that.
async fn try_everywhere(name: &str, prior: Option<&Stored>, config: &Value) -> Vec<String> {
    if name == "nixos_deployment" {
        // A provider remembers the deployments that it has planned; Terraform starts one for each plan.
        return try_resource(async || Arc::new(blind().await), name, prior, config).await;
    }
    let cloud = in_empty_cloud(&[("nix", Value::Unknown), ("ssh", Value::Unknown)]).await;
    let mut complaints = vec![];
    for terraform in [blind().await, cloud].map(Arc::new) {
        complaints.extend(try_resource(async || terraform.clone(), name, prior, config).await);
    }
    complaints
}

async fn unconfigured() -> Harness {
    let tools =
        Tools { pool: Pool::default(), scheduler: Scheduler::default(), progress: Progress::default() };
    Harness::of(NixosProvider { tools: Arc::new(tools) }).await.unwrap()
}

/// What is wrong with errors, as answers to a hole. `None` where they are good ones.
fn complaint(hole: &Hole, errors: &Diagnostics) -> Option<String> {
    let text: String =
        errors.iter().map(|one| format!("{} {} @{:?}\n", one.summary, one.detail, one.path)).collect();
    let place = hole.place.to_string();
    let last =
        place.split(['.', '[']).rfind(|step| step.chars().any(char::is_alphabetic)).unwrap_or_default();
    let bad = hole.filler == Filler::Unknown
        || INTERNAL.iter().any(|internal| text.contains(internal))
        || !text.contains(last.trim_matches(['"', ']']));
    bad.then_some(text)
}

#[tokio::test]
async fn every_attribute_is_in_some_configuration() {
    let terraform = unconfigured().await;
    let found = configurations();
    let unset: BTreeMap<_, _> = found
        .iter()
        .filter_map(|((kind, name), configs)| Some((name, terraform.unset(offer(kind, name)?, configs))))
        .filter(|(_, unset)| !unset.is_empty())
        .collect();
    assert!(unset.is_empty(), "{unset:#?}");
    let named = |kind: &str| -> Vec<String> {
        found.keys().filter(|(found, _)| found == kind).map(|(_, name)| name.clone()).collect()
    };
    let expected = terraform.offers().into_iter().map(|(kind, names)| {
        let kind = match kind {
            "resources" => "resource",
            "data_sources" => "data",
            "ephemeral_resources" => "ephemeral",
            "functions" => "function",
            kind => kind,
        };
        (kind, names)
    });
    for (kind, names) in expected {
        assert_eq!(named(kind), names, "{kind}");
    }
}

/// Asks a provider about a resource with each hole.
async fn try_resource(
    configure: impl AsyncFn() -> Arc<Harness>,
    name: &str,
    prior: Option<&Stored>,
    config: &Value,
) -> Vec<String> {
    let terraform = configure().await;
    let whole = terraform.plan(name, prior, config).await;
    assert!(whole.is_ok(), "{name} is not valid as a whole: {whole:#?}");
    let mut complaints = vec![];
    for hole in terraform.holes(Offer::Resource(name), config) {
        match configure().await.plan(name, prior, &hole.config).await {
            Ok(plan) if hole.filler == Filler::Unknown => {
                if !terraform.leaves_open(&plan, &hole.place) {
                    complaints
                        .push(format!("{name} {hole}: the plan promises a value that nobody knows yet"));
                }
                if let Err(broken) = configure().await.resolve(&plan, config).await {
                    complaints.push(format!("{name} {hole}, and then known: {broken}"));
                }
            }
            Ok(_) => {}
            Err(errors) => {
                complaints.extend(complaint(&hole, &errors).map(|said| format!("{name} {hole}: {said}")));
            }
        }
    }
    complaints
}

#[tokio::test]
async fn resources_with_holes_are_planned_or_refused_by_name() {
    let mut complaints = vec![];
    for ((kind, name), configs) in configurations() {
        if kind == "resource" {
            for config in &configs {
                complaints.extend(try_everywhere(&name, None, config).await);
            }
        }
    }
    assert!(complaints.is_empty(), "{} holes:\n{}", complaints.len(), complaints.join("\n"));
}

/// Takes out of a configuration that was made of a state what only that state can hold, and names files that are on
/// this computer.
fn as_a_user_would(config: &mut Value) {
    let Value::Map(entries) = config else { panic!("a configuration is an object") };
    if let Some(Value::Map(ec2)) = entries.get_mut("ec2") {
        ec2.remove("security_group_ids");
        for address in ["public_ipv4", "private_ipv4", "public_ipv6"] {
            entries.remove(address);
        }
    }
    if let Some(Value::Map(secrets)) = entries.get_mut("secrets") {
        for secret in secrets.values_mut() {
            let Value::Map(secret) = secret else { continue };
            if secret.get("file").is_some_and(|file| !file.is_null()) {
                secret.insert("file".to_owned(), "/etc/hostname".into());
            }
        }
    }
}

#[tokio::test]
async fn changes_with_holes_are_planned_or_refused_by_name() {
    let terraform = blind().await;
    let mut complaints = vec![];
    for (_, recorded) in recorded() {
        let before = stored(&terraform, &recorded).await;
        let before = terraform.refresh(&before).await.unwrap().unwrap();
        let mut config = configuration(&terraform, &before).await;
        as_a_user_would(&mut config);
        complaints.extend(try_everywhere(&before.type_name, Some(&before), &config).await);
    }
    assert!(complaints.is_empty(), "{} holes:\n{}", complaints.len(), complaints.join("\n"));
}

#[tokio::test]
async fn data_sources_and_ephemeral_resources_with_holes_are_read_or_refused_by_name() {
    let terraform = blind().await;
    let mut complaints = vec![];
    for ((kind, name), configs) in configurations() {
        let Some(of @ (Offer::DataSource(_) | Offer::EphemeralResource(_))) = offer(&kind, &name) else {
            continue;
        };
        for config in &configs {
            assert!(terraform.validate_as(of, config).await.is_ok(), "{name}");
            for hole in terraform.holes(of, config) {
                let mut said =
                    terraform.validate_as(of, &hole.config).await.err().map(|errors| (errors, true));
                // Terraform reads nothing of which something is not known.
                if said.is_none() && hole.filler == Filler::Null {
                    let read = match of {
                        Offer::DataSource(_) => terraform.read(&name, &hole.config).await.err(),
                        _ => terraform.open(&name, &hole.config).await.err(),
                    };
                    // What is wrong with the provider block is not wrong with the hole.
                    said = read.map(|errors| (errors, false));
                }
                if let Some((errors, names)) = said {
                    let internal = complaint(&hole, &errors)
                        .filter(|text| names || INTERNAL.iter().any(|internal| text.contains(internal)));
                    complaints.extend(internal.map(|said| format!("{name} {hole}: {said}")));
                }
            }
        }
    }
    assert!(complaints.is_empty(), "{} holes:\n{}", complaints.len(), complaints.join("\n"));
}

#[tokio::test]
async fn functions_say_which_of_their_arguments_has_a_hole() {
    let terraform = unconfigured().await;
    for ((_, name), calls) in configurations().into_iter().filter(|((kind, _), _)| kind == "function") {
        for call in calls {
            let Value::List(arguments) = call else { panic!("arguments are a list") };
            terraform.call(&name, &arguments).await.unwrap();
            for (index, argument) in arguments.iter().enumerate() {
                // Terraform calls no function with something unknown unless the function asks for it.
                for hole in holes_in(argument).into_iter().filter(|hole| hole.filler == Filler::Null) {
                    let mut arguments = arguments.clone();
                    arguments[index] = hole.config.clone();
                    if let Err(error) = terraform.call(&name, &arguments).await {
                        let internal = INTERNAL.iter().any(|internal| error.text.contains(internal));
                        assert!(!internal && error.argument == Some(index), "{name} {hole}: {error:?}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_provider_block_with_holes_is_taken_or_refused_by_name() {
    let machine = object([("name", "web".into()), ("ssh", object([("host", "192.0.2.1".into())]))]);
    let bucket = object([("bucket", "assets-1".into()), ("region", "eu-west-1".into())]);
    let deployment = object([("network", Value::Unknown), ("machines", object([]))]);
    let mut complaints = vec![];
    for config in configurations().remove(&("provider".to_owned(), "nixos".to_owned())).unwrap() {
        unconfigured().await.configure(&config).await.unwrap();
        let holes = unconfigured().await.holes(Offer::Provider, &config);
        for hole in holes {
            let terraform = unconfigured().await;
            let mut said = terraform.configure(&hole.config).await.err();
            if said.is_none() && hole.filler == Filler::Unknown {
                let plans = [
                    ("nixos_machine", &machine),
                    ("nixos_s3_bucket", &bucket),
                    ("nixos_deployment", &deployment),
                ];
                for (name, config) in plans {
                    said = said.or(terraform.plan(name, None, config).await.err());
                }
            }
            if let Some(errors) = said {
                complaints.extend(complaint(&hole, &errors).map(|said| format!("{hole}: {said}")));
            }
        }
    }
    assert!(complaints.is_empty(), "{} holes:\n{}", complaints.len(), complaints.join("\n"));
}
