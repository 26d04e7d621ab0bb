//! Why a machine does not run its new system.

use nixos_agent::Report;

use crate::agent::AgentError;
use crate::facts::FactsError;
use crate::nix::NixError;
use crate::push::PushError;
use crate::reboot::RebootError;
use crate::secrets::SecretError;
use crate::ssh::SshError;

/// Why a machine does not run its new system.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// It cannot be reached.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// It does not say what it is.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// It cannot receive store paths.
    #[error("there is no `nix-store` on the machine")]
    NoNix,
    /// It is another kind of machine than the system is for.
    #[error("the system is for {system}, the machine is {found}")]
    Platform {
        /// What was built.
        system: String,
        /// What is there.
        found: String,
    },
    /// Another machine answers where the one was that the plan was made for.
    #[error("machine id {found}, the plan was made for {expected}")]
    AnotherMachine {
        /// The machine id at plan.
        expected: String,
        /// The one that is there.
        found: String,
    },
    /// It has another system than the one that the plan saw.
    #[error("the machine runs {found}, the plan was made for {expected}")]
    ChangedSincePlan {
        /// What was there at plan.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The closure did not arrive.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The content of a secret could not be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The agent could not be asked.
    #[error(transparent)]
    Activate(#[from] AgentError),
    /// The agent reports that the new system does not run.
    #[error("{}", .0.message)]
    Refused(Box<Report>),
    /// It has its new system, and was to be rebooted.
    #[error(transparent)]
    Reboot(#[from] RebootError),
    /// It was rebooted into its new system, and is not well.
    #[error("{}", .0.message)]
    NotWellAfterReboot(Box<Report>),
    /// Others failed, and that was as much as may.
    #[error("not begun, because of {failed}")]
    NotBegun {
        /// Their names.
        failed: String,
    },
    /// The user cancelled before this machine's turn.
    #[error("cancelled before anything was changed on it")]
    Cancelled,
}

impl DeployError {
    /// Whether somebody stopped it, or a limit of time did.
    pub fn is_cancellation(&self) -> bool {
        matches!(
            self,
            Self::Cancelled
                | Self::Reboot(RebootError::NotBegun | RebootError::Cancelled)
                | Self::Secret(SecretError::Cancelled { .. })
                | Self::Push(PushError::Nix(NixError::Cancelled))
                | Self::Ssh(SshError::Cancelled)
        )
    }
}
