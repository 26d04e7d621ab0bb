//! Evaluates a specification as the provider does and prints what each node is, and how long that took.
//!
//! `evaluate [--cache off|pure|read_set] [--workers N] [--path nixpkgs=…] (NETWORK.nix | FLAKE)`

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use nixos_activator::evaluate::{CachePolicy, EvaluationSettings, Evaluator, Node, trace};
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
        arguments: serde_json::json!({}),
        resources: serde_json::json!({}),
        nodes: None,
        options: vec![],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let start = Instant::now();
        let nix = Nix::find(settings).await?;
        let evaluator = Evaluator::new(&evaluation);
        let cancel = CancellationToken::new();
        // The names first: every node stands for a machine of its own.
        let described = evaluator.describe(&nix, &request, &cancel).await?;
        let facts =
            MachineFacts { system: Fact::Known("x86_64-linux".to_owned()), ..MachineFacts::default() };
        let machines: BTreeMap<_, _> =
            described.nodes.into_keys().map(|name| (name, facts.clone())).collect();
        let nodes = Some(machines.keys().cloned().collect());
        let looked = start.elapsed();
        let result = evaluator.evaluate(&nix, &Request { machines, nodes, ..request }, &cancel).await?;
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
