//! Everything a contributor does: `cargo xtask demo`, `test`, `build`, `docs`, `fuzz`, `bench`.

mod bench;
mod build;
mod circles;
mod demo;
mod docs;
mod fuzz;
mod nixes;
mod setup;
mod test;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Tasks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show the product doing its job: real terraform deploys two real hosts, and what happens when things go wrong
    Demo,
    /// Run all checks: formatting, lints, unit tests, then the end-to-end tests on real hosts
    Test {
        /// Only tests whose name contains this
        filter: Option<String>,
    },
    /// Build the command line, and the provider into a mirror that `terraform init` can use
    Build {
        /// As for a release: optimised
        #[arg(long)]
        release: bool,
    },
    /// Write the pages of docs/ that are made from the provider's schemas, provider/docs and terraform-examples
    Docs {
        /// Write nothing: fail where a page is out of date, or a configuration in examples and documentation is not
        /// valid
        #[arg(long)]
        check: bool,
    },
    /// Feed the decoders of the plugin protocol with bytes nobody would send, and say what came of it
    Fuzz {
        /// Only this target of provider/tfplugin/fuzz
        target: Option<String>,
        /// How long each target runs
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Measure, and print the numbers
    Bench {
        /// Only this
        only: Option<bench::Subject>,
    },
    /// Look for circles between files: none may need another one that needs it
    Circles,
    /// Install the Debian and Python packages that the other tasks need
    Setup,
}

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
enum TaskError {
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    World(#[from] e2e::WorldError),
    #[error(transparent)]
    Lab(#[from] lab::LabError),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

impl TaskError {
    fn io(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.to_string();
        move |source| Self::Io { what, source }
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Demo => demo::demo(),
        Task::Test { filter } => test::test(filter.as_deref()),
        Task::Build { release } => build::build(release).map(|path| println!("{}", path.display())),
        Task::Docs { check: false } => docs::generate(),
        Task::Docs { check: true } => docs::check(),
        Task::Bench { only } => bench::bench(only),
        Task::Fuzz { target, seconds } => fuzz::fuzz(target.as_deref(), Duration::from_secs(seconds)),
        Task::Circles => circles::check(),
        Task::Setup => setup::setup(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error}");
            ExitCode::FAILURE
        }
    }
}
