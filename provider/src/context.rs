//! What all resources share in one process: settings, connections, limits, Nix.

use std::sync::Arc;

use nixos_activator::deploy::Tools;
use nixos_activator::evaluate::{EvaluationSettings, Evaluator};
use nixos_activator::nix::{Nix, NixError, NixSettings};
use tokio::sync::OnceCell;

use crate::aws::{Aws, AwsSettings};
use crate::machines::SshDefaults;
use crate::resources::deployment::Claims;

/// The configured provider.
#[derive(Debug)]
pub(crate) struct Context {
    /// Defaults for every connection; `None` while the provider's `ssh` block is not known.
    pub(crate) ssh: Option<SshDefaults>,
    /// AWS; `None` while the provider's `aws` block is not known.
    pub(crate) aws: Option<Aws>,
    /// The deployments that this process has planned and deleted. Those of other Terraform states are not among them.
    pub(crate) deployments: Claims,
    /// Evaluations of this process.
    pub(crate) evaluator: Evaluator,
    /// Connections, limits and progress of this process.
    pub(crate) tools: Arc<Tools>,
    /// `None` while the provider's `nix` block is not known.
    nix_settings: Option<NixSettings>,
    nix: OnceCell<Nix>,
}

impl Context {
    /// Nothing is looked for or contacted before it is needed.
    pub(crate) fn new(
        ssh: Option<SshDefaults>,
        aws: Option<AwsSettings>,
        nix_settings: Option<NixSettings>,
        evaluation: &EvaluationSettings,
        tools: Arc<Tools>,
    ) -> Self {
        Self {
            ssh,
            aws: aws.map(Aws::new),
            deployments: Claims::default(),
            evaluator: Evaluator::new(evaluation),
            tools,
            nix_settings,
            nix: OnceCell::new(),
        }
    }

    /// Whether it is known how Nix is to run; if not, nothing can be evaluated as it will be at apply.
    pub(crate) fn is_nix_known(&self) -> bool {
        self.nix_settings.is_some()
    }

    /// The Nix on PATH; looked for once.
    pub(crate) async fn nix(&self) -> Result<&Nix, NixError> {
        self.nix.get_or_try_init(|| Nix::find(self.nix_settings.clone().unwrap_or_default())).await
    }
}
