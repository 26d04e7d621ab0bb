//! `terraform-provider-nixos`: started by Terraform, one process for each walk over the graph.

mod aws;
mod context;
mod data_sources;
mod deadline;
mod diagnose;
mod ephemeral_resources;
mod functions;
#[cfg(test)]
mod holes;
mod machines;
mod provider;
mod resources;
mod settings;

use std::process::ExitCode;

fn main() -> ExitCode {
    // As the tracer of an evaluation this program is its own child.
    if let Some(code) = nixos_activator::evaluate::trace::main_if_asked() {
        return code;
    }
    match std::env::args().nth(1).as_deref() {
        Some("--version" | "-V") => {
            println!("terraform-provider-nixos {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some("--help" | "-h") => {
            println!(
                "The Terraform provider for NixOS. Terraform starts it; there is nothing to run by hand.\n\n\
                 --debug    serve one long-lived instance and print TF_REATTACH_PROVIDERS\n\
                 --version  print the version"
            );
            ExitCode::SUCCESS
        }
        _ => {
            nixos_activator::temporary::choose();
            provider::serve()
        }
    }
}
