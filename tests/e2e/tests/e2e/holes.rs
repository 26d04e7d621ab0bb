//! Null, and what is not known yet, in every place of every configuration: what Terraform itself makes of them.
//!
//! The configurations are those of `tests/fixtures/configurations`, which the provider's own tests ask about without
//! Terraform. Here each place comes from the output of a resource that does not exist yet, or from a conditional that
//! gives null.

use std::collections::BTreeSet;

use e2e::World;
use serde_json::{Map, Value as Json, json};

use crate::support::{one, succeeds, world};

/// What stands in a place: an expression of Terraform, of no type, so that it fits everywhere.
const UNKNOWN: &str = "${jsondecode(terraform_data.later.output)}";
const NULL: &str = "${local.nothing}";

/// What no message may say: it is for mistakes of the provider.
const INTERNAL: [&str; 4] = ["cannot be used", "lease report it", "without saying why", "Provider produced"];

/// One resource, data source or provider block with one hole.
struct Hole {
    kind: String,
    name: String,
    place: String,
    config: Json,
}

/// The configurations of these kinds.
fn configurations(kinds: &[&str]) -> Vec<(String, String, Json)> {
    let folder = e2e::repository().join("tests/fixtures/configurations");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let all = files.iter().flat_map(|file| {
        let text = std::fs::read_to_string(file).unwrap();
        serde_json::from_str::<Vec<Json>>(&text).unwrap()
    });
    let named = all.map(|one| {
        let name = |key: &str| one[key].as_str().unwrap().to_owned();
        (name("kind"), name("type"), one["config"].clone())
    });
    named.filter(|(kind, _, _)| kinds.contains(&kind.as_str())).collect()
}

/// A configuration with `filler` in each of its places: those that it sets, and those that its schema has beside them.
fn holes(config: &Json, attributes: &Json, filler: &str) -> Vec<(String, Json)> {
    let mut found = vec![];
    let mut names: BTreeSet<&String> = config.as_object().unwrap().keys().collect();
    names.extend(attributes.as_object().into_iter().flatten().filter_map(|(name, attribute)| {
        // Null is what is not set already.
        let settable = attribute["required"] == true || attribute["optional"] == true;
        (settable && filler == UNKNOWN).then_some(name)
    }));
    for name in names {
        let with = |value: Json| {
            let mut config = config.clone();
            config[name] = value;
            config
        };
        found.push((name.clone(), with(filler.into())));
        if let Some(value) = config.get(name) {
            let inner = within(value, &attributes[name]["nested_type"], filler);
            found.extend(inner.into_iter().map(|(place, value)| (format!("{name}{place}"), with(value))));
        }
    }
    found
}

/// The same for a value; `nested` is the schema of the objects in it, where they have one.
fn within(value: &Json, nested: &Json, filler: &str) -> Vec<(String, Json)> {
    let mut found = vec![];
    let attributes = &nested["attributes"];
    match value {
        Json::Object(_) if attributes.is_null() || nested["nesting_mode"] == "single" => {
            found.extend(
                holes(value, attributes, filler)
                    .into_iter()
                    .map(|(place, value)| (format!(".{place}"), value)),
            );
        }
        Json::Object(entries) => {
            let single = json!({ "attributes": attributes, "nesting_mode": "single" });
            for (key, entry) in entries {
                let with = |value: Json| {
                    let mut entries = entries.clone();
                    entries.insert(key.clone(), value);
                    Json::Object(entries)
                };
                found.push((format!("[{key:?}]"), with(filler.into())));
                let inner = within(entry, &single, filler).into_iter();
                found.extend(inner.map(|(place, value)| (format!("[{key:?}]{place}"), with(value))));
            }
        }
        Json::Array(items) => {
            let single = json!({ "attributes": attributes, "nesting_mode": "single" });
            for (index, item) in items.iter().enumerate() {
                let with = |value: Json| {
                    let mut items = items.clone();
                    items[index] = value;
                    Json::Array(items)
                };
                found.push((format!("[{index}]"), with(filler.into())));
                let inner = within(item, &single, filler).into_iter();
                found.extend(inner.map(|(place, value)| (format!("[{index}]{place}"), with(value))));
            }
        }
        _ => {}
    }
    found
}

/// The provider's schemas.
fn schemas(world: &World) -> Json {
    let run = world.terraform(&["providers", "schema", "-json"]);
    let all: Json = serde_json::from_str(&run.text).unwrap_or_else(|_| panic!("{}", run.text));
    all["provider_schemas"][e2e::SOURCE].clone()
}

fn all_holes(world: &World, kinds: &[&str], filler: &str) -> Vec<Hole> {
    let schemas = schemas(world);
    let mut found = vec![];
    for (kind, name, mut config) in configurations(kinds) {
        let schema = match kind.as_str() {
            "resource" => &schemas["resource_schemas"][&name],
            "data" => &schemas["data_source_schemas"][&name],
            _ => &schemas["provider"],
        };
        // A generation is asked for on the machine, and these machines do not exist.
        config.as_object_mut().unwrap().remove("generations");
        let holes = holes(&config, &schema["block"]["attributes"], filler).into_iter();
        found.extend(holes.map(|(place, config)| Hole {
            kind: kind.clone(),
            name: name.clone(),
            place,
            config,
        }));
    }
    found
}

/// What every configuration here begins with, as Terraform's JSON.
fn head() -> Json {
    json!({
        "terraform": { "required_providers": { "nixos": { "source": "terraform-provider-nixos/nixos" } } },
        "provider": { "nixos": [{ "aws": {
            "region": "eu-west-1", "access_key": "test", "secret_key": "test", "max_attempts": 1,
            "endpoints": { "ec2": "http://127.0.0.1:9", "s3": "http://127.0.0.1:9", "sts": "http://127.0.0.1:9" }
        } }] },
        "variable": { "is_there": { "type": "bool", "default": false } },
        "locals": { "nothing": "${var.is_there ? jsondecode(\"null\") : null}" },
        "resource": { "terraform_data": { "later": { "input": "later" } } }
    })
}

/// A configuration with all of these, by their addresses.
fn together<'h>(holes: impl Iterator<Item = (usize, &'h Hole)>) -> Json {
    let mut main = head();
    for (index, hole) in holes {
        let blocks = main[&hole.kind].as_object_mut();
        let mut blocks: Map<String, Json> = blocks.cloned().unwrap_or_default();
        let of_type = blocks.entry(hole.name.clone()).or_insert_with(|| json!({}));
        of_type[format!("hole{index}")] = on_own_machines(&hole.config, index);
        main[&hole.kind] = blocks.into();
    }
    main
}

/// A machine is in one deployment only: each hole gets machines of its own.
fn on_own_machines(config: &Json, index: usize) -> Json {
    let (high, low) = (index / 250, index % 250);
    let text = config.to_string();
    let text = text.replace("\"192.0.2.1\"", &format!("\"198.18.{high}.{low}\""));
    let text = text.replace("\"192.0.2.2\"", &format!("\"198.19.{high}.{low}\""));
    serde_json::from_str(&text.replace("i-0123456789abcdef0", &format!("i-{index:017}"))).unwrap()
}

/// The network, flake and configuration of which the configurations speak.
fn sources(world: &World) {
    let body = "specialisation.maintenance.configuration = { environment.etc.mode.text = \"maintenance\"; };";
    let web = one(body);
    let network = format!(
        "args: let web = ({web}) args; in {{ inherit (web) web; db = {{ ... }}: {{ nixpkgs.hostPlatform = \
         \"x86_64-linux\"; system.stateVersion = \"24.11\"; }}; }}"
    );
    world.write("network.nix", &network).unwrap();
    world
        .write(
            "configuration.nix",
            "{ ... }: { nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\"; }",
        )
        .unwrap();
    let flake = "{\n  inputs.nixpkgs.url = \"path:/root/mini-nixos\";\n  outputs = { self, nixpkgs }: {\n    \
        nixosConfigurations.web = nixpkgs.lib.nixosSystem { modules = [ ./configuration.nix ]; };\n  };\n}\n";
    let control = world.lab.control();
    control.write_file("/root/flake/flake.nix", flake).unwrap();
    control
        .write_file(
            "/root/flake/configuration.nix",
            "{ ... }: { nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\"; }",
        )
        .unwrap();
    world.write("main.tf.json", &head().to_string()).unwrap();
    succeeds(&world.terraform(&["init"]));
}

/// The errors of a plan: the address of the resource, and what is said.
fn errors(world: &World) -> Vec<(String, String)> {
    let run = world.terraform(&["plan", "-input=false", "-json"]);
    let lines = run.text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let errors = lines.filter(|line| line["@level"] == "error").map(|line| {
        let said = &line["diagnostic"];
        let address = said["address"].as_str().unwrap_or_default().to_owned();
        (address, format!("{} {}", said["summary"], said["detail"]))
    });
    errors.collect()
}

#[test]
fn what_is_not_known_yet_fails_no_plan() {
    let world = world(&[]);
    sources(&world);
    let holes = all_holes(&world, &["resource", "data"], UNKNOWN);
    assert!(holes.len() > 300, "only {} places were found", holes.len());
    world.write("main.tf.json", &together(holes.iter().enumerate()).to_string()).unwrap();
    let said: Vec<String> =
        errors(&world).into_iter().map(|(address, said)| named(&holes, &address, &said)).collect();
    assert!(said.is_empty(), "{}", said.join("\n"));
}

/// Says which hole an address is of.
fn named(holes: &[Hole], address: &str, said: &str) -> String {
    let index = address.rsplit("hole").next().and_then(|index| index.parse::<usize>().ok());
    let hole = index.and_then(|index| holes.get(index));
    hole.map_or_else(
        || format!("{address}: {said}"),
        |hole| format!("{} `{}`: {said}", hole.name, hole.place),
    )
}

#[test]
fn what_is_null_is_taken_or_refused_by_name() {
    let world = world(&[]);
    sources(&world);
    let holes = all_holes(&world, &["resource", "data"], NULL);
    let mut refused: BTreeSet<usize> = BTreeSet::new();
    // What does not pass validation keeps Terraform from planning the others.
    for _ in 0..4 {
        let rest = holes.iter().enumerate().filter(|(index, _)| !refused.contains(index));
        world.write("main.tf.json", &together(rest).to_string()).unwrap();
        let found = errors(&world);
        if found.is_empty() {
            assert!(refused.len() < holes.len() / 2, "{} of {} are refused", refused.len(), holes.len());
            return;
        }
        for (address, said) in found {
            let internal = INTERNAL.iter().any(|internal| said.contains(internal));
            assert!(!internal, "{}", named(&holes, &address, &said));
            let index = address.rsplit("hole").next().and_then(|index| index.parse().ok());
            refused.insert(index.unwrap_or_else(|| panic!("{address}: {said}")));
        }
    }
    panic!("there are always other errors");
}

#[test]
fn a_provider_block_may_come_from_what_does_not_exist_yet() {
    let world = world(&[]);
    sources(&world);
    let holes = all_holes(&world, &["provider"], UNKNOWN);
    // Each is a process of its own.
    for some in holes.chunks(24) {
        let mut main = head();
        let blocks = some.iter().enumerate().map(|(index, hole)| {
            let mut block = hole.config.clone();
            block["alias"] = format!("hole{index}").into();
            block
        });
        main["provider"]["nixos"] = blocks.collect();
        let machines = (0..some.len()).map(|index| {
            let machine = json!({ "provider": format!("nixos.hole{index}"), "name": "web", "ssh": { "host": "192.0.2.1" } });
            (format!("hole{index}"), machine)
        });
        main["resource"]["nixos_machine"] = Json::Object(machines.collect());
        world.write("main.tf.json", &main.to_string()).unwrap();
        let said: Vec<String> =
            errors(&world).into_iter().map(|(address, said)| named(some, &address, &said)).collect();
        assert!(said.is_empty(), "{}", said.join("\n"));
    }
}
