//! The straight way of one deployment: build everything, then for each machine push and activate, side by side.
//!
//! A failed build stops everything while nothing has happened yet. After that machines are independent, unless a
//! [`Rollout`](crate::rollout::Rollout) says otherwise: one that fails does not keep the others from their new system,
//! and the outcome of each says what it really runs.

mod checks;
mod error;
mod machine;
mod model;

use std::collections::BTreeMap;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

pub use error::DeployError;
pub use model::{Ended, Job, Settings, Source, Tools};

use crate::build::{self, BuildError};
use crate::nix::Nix;
use crate::rollout::Conductor;
use crate::{MachineName, StorePath};
use machine::Deployment;

/// Deploys; the result has an entry for every job.
pub async fn deploy(
    tools: &Tools,
    nix: &Nix,
    jobs: &[Job],
    settings: &Settings,
    cancel: &CancellationToken,
) -> Result<BTreeMap<MachineName, Ended>, BuildError> {
    let systems: Vec<_> = jobs.iter().filter_map(to_build).collect();
    if !systems.is_empty() {
        build::build(nix, &systems, settings.roots.as_ref(), &tools.progress, cancel).await?;
    }
    let conductor = Conductor::new(&settings.rollout, jobs.iter().map(|job| &job.machine));
    let deployment = Deployment { tools, nix, settings, conductor: &conductor, machines: jobs.len(), cancel };
    let deployment = &deployment;
    let machines: Vec<_> = jobs
        .iter()
        .map(|job| async { (job.machine.clone(), deployment.machine(job).await) }.boxed())
        .collect();
    // All of them at once: one that waits for its turn must not keep another from having it.
    Ok(futures::future::join_all(machines).await.into_iter().collect())
}

fn to_build(job: &Job) -> Option<(StorePath, StorePath)> {
    match &job.source {
        Source::Build(drv) => Some((drv.clone(), job.toplevel.clone())),
        Source::OnMachine => None,
    }
}
