//! Evaluates a specification as the provider does and prints what each node is, and how long that took.
//!
//! `evaluate [--cache off|pure|read_set] [--workers N] [--memory MIB] [--path nixpkgs=…] [--arguments JSON]
//! [--machines JSON] [--options A,B] [--json] (NETWORK.nix | FLAKE)`
//!
//! Machines are all nodes of the specification, as x86-64 Linux, unless `--machines` says which there are and what is
//! known. Then they are only asked about themselves for `--options` or `--json`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use nixos_activator::MachineName;
use nixos_activator::evaluate::{CachePolicy, Description, EvaluationSettings, Evaluator, Node, trace};
use nixos_activator::network::{Fact, MachineFacts, Request, Spec};
use nixos_activator::nix::{Nix, NixSettings};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    if let Some(code) = trace::main_if_asked() {
        return code;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut evaluation = EvaluationSettings::default();
    let mut settings = NixSettings::default();
    let mut spec = None;
    let mut given = serde_json::json!({});
    let mut known: Option<BTreeMap<MachineName, BTreeMap<String, String>>> = None;
    let mut options = vec![];
    let mut json = false;
    let mut specialisations = BTreeMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or("a value is missing");
        match argument.as_str() {
            "--cache" => {
                evaluation.cache = match value()?.as_str() {
                    "off" => CachePolicy::Off,
                    "read_set" => CachePolicy::ReadSet,
                    _ => CachePolicy::Pure,
                }
            }
            "--workers" => evaluation.workers = Some(value()?.parse()?),
            "--memory" => evaluation.memory_mib = Some(value()?.parse()?),
            "--arguments" => given = serde_json::from_str(&value()?)?,
            "--machines" => known = Some(serde_json::from_str(&value()?)?),
            "--specialisations" => specialisations = serde_json::from_str(&value()?)?,
            "--options" => options = value()?.split(',').map(str::to_owned).collect(),
            "--json" => json = true,
            "--path" => settings.nix_path.push(value()?),
            _ => spec = Some(argument),
        }
    }
    let spec = spec.ok_or("which specification?")?;
    let is_file = std::path::Path::new(&spec).is_file();
    let spec = if is_file { Spec::Network(vec![spec.into()]) } else { Spec::Flake(spec) };
    let request = Request {
        spec,
        deployment_name: "default".to_owned(),
        uuid: Fact::Known("00000000-0000-4000-8000-000000000000".to_owned()),
        machines: BTreeMap::new(),
        arguments: given,
        resources: serde_json::json!({}),
        specialisations: specialisations
            .into_iter()
            .map(|(name, wanted): (_, Option<String>)| (name, Fact::from(wanted)))
            .collect(),
        nodes: None,
        options,
        import_from_derivation: false,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let start = Instant::now();
        let nix = Nix::find(settings).await?;
        let evaluator = Evaluator::new(&evaluation);
        let cancel = CancellationToken::new();
        let of = |facts: &BTreeMap<String, String>| {
            let fact = |name: &str| Fact::from(facts.get(name).cloned());
            MachineFacts {
                system: Fact::Known("x86_64-linux".to_owned()),
                public_ipv4: fact("public_ipv4"),
                private_ipv4: fact("private_ipv4"),
                public_ipv6: fact("public_ipv6"),
                host_public_key: fact("host_public_key"),
                state_version: fact("state_version"),
                target_env: fact("target_env"),
                ..MachineFacts::default()
            }
        };
        let given: Option<BTreeMap<_, _>> =
            known.map(|known| known.into_iter().map(|(name, facts)| (name, of(&facts))).collect());
        let request = Request { machines: given.clone().unwrap_or_default(), ..request };
        let described = if given.is_none() || json || !request.options.is_empty() {
            evaluator.describe(&nix, &request, &cancel).await?
        } else {
            Description::default()
        };
        let all = || described.nodes.keys().map(|name| (name.clone(), of(&BTreeMap::new()))).collect();
        let machines = given.unwrap_or_else(all);
        let nodes = Some(machines.keys().cloned().collect());
        let looked = start.elapsed();
        let result = evaluator.evaluate(&nix, &Request { machines, nodes, ..request }, &cancel).await?;
        if json {
            let warnings: Vec<String> = result.warnings.iter().map(ToString::to_string).collect();
            println!(
                "{}",
                serde_json::json!({ "described": described, "nodes": result.nodes, "warnings": warnings })
            );
            return Ok(());
        }
        for (name, node) in &result.nodes {
            match node {
                Node::Exact(system) => println!("{name} {}", system.drv),
                other => println!("{name} {other:?}"),
            }
        }
        let all = start.elapsed();
        eprintln!(
            "names {:.3} s, nodes {:.3} s",
            looked.as_secs_f64(),
            all.saturating_sub(looked).as_secs_f64()
        );
        Ok::<_, Box<dyn std::error::Error>>(())
    })
}
