//! Measurements: paired runs in the same minute on the same hosts, medians and ratios. Numbers, not verdicts.

mod aws;
mod hosts;
mod load;
mod machines;
mod protocol;

use std::time::Duration;

use clap::ValueEnum;

use crate::TaskError;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subject {
    /// What the protocol costs, up to a thousand machines in one map
    Protocol,
    /// Start, plan, apply by stages, evaluation: on two real hosts
    Hosts,
    /// One deployment of up to a thousand machines
    Machines,
    /// What fifty machines on AWS cost
    Aws,
}

/// Measures one subject, or all of them.
pub(crate) fn bench(only: Option<Subject>) -> Result<(), TaskError> {
    let all = Subject::value_variants().iter().copied();
    for subject in all.filter(|subject| only.is_none_or(|only| only == *subject)) {
        match subject {
            Subject::Protocol => protocol::bench()?,
            Subject::Hosts => hosts::bench()?,
            Subject::Machines => machines::bench()?,
            Subject::Aws => aws::bench()?,
        }
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
