//! `nixos-activator`: what NixOps' verbs did on a deployed network, for machines that Terraform has deployed.
//!
//! It reads where they are from Terraform's state, and changes neither that nor the configuration.

mod deployed;
mod diff;
mod look;
mod problem;
mod view;
mod visit;
mod watch;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand};
use nixos_activator::MachineName;
use tokio_util::sync::CancellationToken;

use deployed::{Machine, Source};
use problem::Problem;

/// Looks after machines that Terraform has deployed.
#[derive(Debug, Parser)]
#[command(name = "nixos-activator", version, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    source: Source,
    #[command(subcommand)]
    verb: Verb,
}

/// Which machines.
#[derive(Clone, Debug, clap::Args)]
struct Selection {
    /// Only these machines
    #[arg(long, value_name = "MACHINE", value_delimiter = ',')]
    on: Vec<MachineName>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show how machines are. Exit code: the sum of 1 for one on which nothing was deployed yet, 2 for one that is
    /// down, 4 for one that lets nobody in, 8 for a disk that is full or broken, 16 for failed units
    Status {
        #[command(flatten)]
        on: Selection,
        /// Print everything, as JSON
        #[arg(long)]
        json: bool,
    },
    /// Log in to a machine, or run a command on it
    Ssh {
        /// The machine
        machine: MachineName,
        /// The command; without one, a login shell
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Run a command on machines, all at once; each line is printed with the machine's name
    Exec {
        #[command(flatten)]
        on: Selection,
        /// As root, where the login is somebody else
        #[arg(long)]
        root: bool,
        /// The command and its arguments; a shell only where you name one
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Reboot machines and wait until they are back
    Reboot {
        #[command(flatten)]
        on: Selection,
        /// Seconds that a machine may be away
        #[arg(long, default_value_t = 600)]
        timeout: u64,
    },
    /// List the generations of a machine's system
    Generations {
        /// The machine
        machine: MachineName,
    },
    /// Show what changed between two generations of a machine's system: packages, kernel, units, files in /etc
    Diff {
        /// The machine
        machine: MachineName,
        /// The number of the generation to begin with; without it, the newest one before the other that is another
        /// system
        #[arg(long, value_name = "N")]
        from: Option<u64>,
        /// The number of the generation to compare it with; without it, what the machine runs now
        #[arg(long, value_name = "N")]
        to: Option<u64>,
    },
    /// Show activations while they run, until none does any more. Exit code 1 where one of them did not end well
    Watch {
        #[command(flatten)]
        on: Selection,
        /// Seconds without an activation after which there will be no other: more where machines reboot one after the
        /// other
        #[arg(long, value_name = "SECONDS", default_value_t = 3)]
        quiet: u64,
    },
    /// Activate an earlier generation of a machine's system, with the same way back as a deployment
    Rollback {
        /// The machine
        machine: MachineName,
        /// The number of the generation; without it, the newest one before the current
        #[arg(long)]
        to: Option<u64>,
    },
    /// List the secrets that were sent to machines, and whether they are still as they were left. Exit code 1 where
    /// one is not
    Secrets {
        #[command(flatten)]
        on: Selection,
    },
    /// Remove from machines' stores what nothing leads to any more
    Gc {
        #[command(flatten)]
        on: Selection,
        /// First remove generations older than this many days; the current one stays
        #[arg(long, value_name = "DAYS")]
        older_than: Option<u32>,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    nixos_activator::temporary::choose();
    nixos_activator::ssh::allow_many_files();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("nixos-activator: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dispatch(arguments)) {
        Ok(code) => ExitCode::from(code),
        // Whoever reads us has read enough.
        Err(Problem::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("nixos-activator: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(arguments: Arguments) -> Result<u8, Problem> {
    let Arguments { source, verb } = arguments;
    let cancel = CancellationToken::new();
    let interrupted = cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    match verb {
        Verb::Status { on, json } => look::status(&machines(&source, &on.on).await?, json, &cancel).await,
        Verb::Ssh { machine, command } => visit::ssh(&one(&source, &machine).await?, &command, &cancel).await,
        Verb::Exec { on, root, command } => {
            visit::exec(&machines(&source, &on.on).await?, root, &command, &cancel).await
        }
        Verb::Reboot { on, timeout } => {
            visit::reboot(&machines(&source, &on.on).await?, timeout, &cancel).await
        }
        Verb::Generations { machine } => look::generations(&one(&source, &machine).await?, &cancel).await,
        Verb::Diff { machine, from, to } => {
            diff::diff(&one(&source, &machine).await?, diff::Wanted { from, to }, &cancel).await
        }
        Verb::Watch { on, quiet } => {
            watch::watch(&machines(&source, &on.on).await?, Duration::from_secs(quiet), &cancel).await
        }
        Verb::Rollback { machine, to } => visit::rollback(&one(&source, &machine).await?, to, &cancel).await,
        Verb::Secrets { on } => look::secrets(&machines(&source, &on.on).await?, &cancel).await,
        Verb::Gc { on, older_than } => {
            visit::collect_garbage(&machines(&source, &on.on).await?, older_than, &cancel).await
        }
        Verb::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "nixos-activator",
                &mut std::io::stdout(),
            );
            Ok(0)
        }
        Verb::Man => {
            let mut page = vec![];
            clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
            std::io::stdout().write_all(&page)?;
            Ok(0)
        }
    }
}

/// The machines of these names, or all of them.
async fn machines(source: &Source, names: &[MachineName]) -> Result<Vec<Machine>, Problem> {
    let mut all = source.machines().await?;
    if names.is_empty() {
        return Ok(all);
    }
    let missing = names.iter().find(|name| all.iter().all(|machine| machine.name != **name));
    if let Some(name) = missing {
        let known = all.iter().map(|machine| machine.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Problem::NoMachine { name: name.clone(), known });
    }
    all.retain(|machine| names.contains(&machine.name));
    Ok(all)
}

async fn one(source: &Source, name: &MachineName) -> Result<Machine, Problem> {
    let found = machines(source, std::slice::from_ref(name)).await?;
    found.into_iter().next().ok_or_else(|| Problem::NoMachine { name: name.clone(), known: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
