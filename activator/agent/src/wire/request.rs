//! What a client asks an agent to do.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::confirmation::Confirmation;
use super::ids::{ActivationId, DeploymentId};
use super::secrets::Secrets;
use crate::health;

/// One activation: a system, what to do with it, and what must be true before the machine keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The id of this activation, which the client draws anew for each.
    pub id: ActivationId,
    /// The deployment that the system belongs to, which other deployments of the machine can read there; `None`: an
    /// operator asks, by the command line.
    #[serde(default)]
    pub deployment: Option<DeploymentId>,
    /// The new system: a store path that is on the machine already.
    pub toplevel: String,
    /// What to do with it.
    pub action: Action,
    /// The system that the machine must run, else the request is rejected; `None`: any.
    pub expected_system: Option<String>,
    /// Whether the agent goes back to the old system when the new one fails.
    pub rollback: bool,
    /// How many seconds each run of `switch-to-configuration` may take.
    pub activation_timeout_seconds: u64,
    /// How the client confirms the new system before it becomes the one that boots; `None`: the agent does not wait for
    /// the client.
    #[serde(default)]
    pub confirmation: Option<Confirmation>,
    /// The checks that must pass on the machine before the new system becomes the one that boots.
    #[serde(default)]
    pub health_checks: Vec<health::Check>,
    /// How many of the generations that agents have made stay; `None`: all.
    #[serde(default)]
    pub keep_generations: Option<usize>,
    /// The secrets that the machine is to have, whose contents follow the request; `None`: secrets stay as they are.
    #[serde(default)]
    pub secrets: Option<Secrets>,
    /// Whether the machine was just booted with the system: then nothing is activated, but the health checks run.
    #[serde(default)]
    pub verify: bool,
    /// The login that must still be possible with the new system; `None`: this is not looked at.
    #[serde(default)]
    pub login: Option<Login>,
    /// Units that may fail: the agent only warns of them.
    #[serde(default)]
    pub tolerated_units: Vec<String>,
    /// Environment variables for `switch-to-configuration`, such as `NIXOS_NO_CHECK`.
    #[serde(default)]
    pub switch_environment: BTreeMap<String, String>,
}

/// What to do with a system, in the words of `switch-to-configuration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Run it now and at the next boot.
    Switch,
    /// Run it at the next boot.
    Boot,
    /// Run it now, not at the next boot.
    Test,
    /// Only say what would happen.
    DryActivate,
}

impl Action {
    /// The argument of `switch-to-configuration`.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Boot => "boot",
            Self::Test => "test",
            Self::DryActivate => "dry-activate",
        }
    }
}

/// A login over SSH, as the machine saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user who logged in.
    pub user: String,
    /// The address that the login came from.
    pub client: IpAddr,
    /// The port that it came from.
    pub client_port: u16,
    /// The address of the machine that the login was made to.
    pub address: IpAddr,
    /// The port that it was made to.
    pub port: u16,
}
