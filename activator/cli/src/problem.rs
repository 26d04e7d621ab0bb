//! Why a verb ends without having done what it was asked for.

use std::path::PathBuf;

use nixos_activator::MachineName;
use nixos_activator::agent::AgentError;
use nixos_activator::contents::ContentsError;
use nixos_activator::facts::FactsError;
use nixos_activator::generations::Generation;
use nixos_activator::reboot::RebootError;
use nixos_activator::ssh::SshError;

/// What ends a verb.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    #[error("`{program}` cannot be run: {reason}")]
    NoTerraform { program: String, reason: String },
    #[error("`{program} show -json` failed:\n{message}")]
    Terraform { program: String, message: String },
    #[error("what Terraform says of its state cannot be understood: {0}")]
    State(String),
    #[error("the state in {} has no nixos_deployment{}", directory.display(), .address.as_ref().map(|a| format!(" `{a}`")).unwrap_or_default())]
    NothingDeployed { directory: PathBuf, address: Option<String> },
    #[error(
        "machine \"{name}\" is in more than one deployment ({addresses}): say which one with --deployment"
    )]
    Twice { name: MachineName, addresses: String },
    #[error("there is no machine \"{name}\"; the state has {known}")]
    NoMachine { name: MachineName, known: String },
    #[error("machine \"{name}\" has no generation {wanted}; it has {known}")]
    NoGeneration { name: MachineName, wanted: String, known: String },
    #[error("machine \"{name}\": {source}")]
    Ssh { name: MachineName, source: SshError },
    #[error("machine \"{name}\": {source}")]
    Facts { name: MachineName, source: FactsError },
    #[error("machine \"{name}\": {source}")]
    Contents { name: MachineName, source: ContentsError },
    #[error("machine \"{name}\": {source}")]
    Activate { name: MachineName, source: AgentError },
    #[error("machine \"{name}\": {source}")]
    Reboot { name: MachineName, source: RebootError },
    #[error("machine \"{name}\": {message}")]
    Refused { name: MachineName, message: String },
    #[error("the password cannot be asked for: {0}")]
    NoPassword(std::io::Error),
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
}

impl Problem {
    /// A machine does not have the generation that was asked for.
    pub(crate) fn no_generation(name: &MachineName, wanted: String, generations: &[Generation]) -> Self {
        let known: Vec<String> = generations.iter().map(|generation| generation.number.to_string()).collect();
        Self::NoGeneration { name: name.clone(), wanted, known: known.join(", ") }
    }
}
