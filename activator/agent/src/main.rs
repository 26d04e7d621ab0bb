//! `nixos-agent`: brings a machine from one system to another, or leaves it where it was.
//!
//! `activate` writes the request down, starts `run` as a unit of its own and listens; so what happens depends neither on the
//! connection nor on the client. `attach` listens again.

mod boot_unit;
mod examine;
mod files;
mod follow;
mod host;
mod lockout;
mod mounts;
mod preflight;
mod reboot;
mod record;
mod room;
mod running;
mod said;
mod secrets;
mod switch;
mod transaction;
mod trial;
mod verdict;
mod volume;

use std::io::Read as _;
use std::process::ExitCode;

use nixos_agent::{ActivationId, Answer, Message, Phase, Request};
use serde::de::DeserializeOwned;

use files::{Deployment, REACHABLE, VERDICT};

const HELP: &str = "nixos-agent: activates NixOS systems on this machine

  activate            do what the request on standard input says, with the secrets that follow it, and report it
  attach ID [--from N]  report on an activation that runs or has run
  confirm ID          say what is to become of an activation that waits for it, with the message on standard input
  running             print the id of the activation that runs and for how many seconds it has; nothing where none does
  status              print what this machine runs, as JSON
  volume ID LETTER    print whether this machine uses a volume of EC2, which was attached as the device with this letter, as JSON
  run ID              (internal) the activation itself; goes on where it was when it was killed
  rescue ID           (internal) ends an activation that did not end by itself
  exec ID STEP PROGRAM ARGUMENT  (internal) one program of an activation
  try SYSTEM SECONDS  have the next boot start this system once: it stays only if it is activated within so many seconds after it
  take-back-trial     end what `try` began, without a reboot: the profile's system boots from now on
  watch-trial         (internal) after a reboot: goes back when that does not happen
  undo-secrets        (internal) after a power cut: brings back the secrets of the system that boots
  put-back-secrets    (internal) after a reboot: the secrets that this machine keeps for itself
  --version           print the version";

/// What stops the agent itself, as opposed to an activation.
#[derive(Debug, thiserror::Error)]
enum AgentError {
    #[error("{HELP}")]
    Usage,
    #[error(transparent)]
    Id(#[from] nixos_agent::BadId),
    #[error("the request cannot be read: {0}")]
    Request(String),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("this needs root")]
    NotRoot,
    #[error("the activation could not be started: {0}")]
    Start(String),
    #[error("secrets that are to persist: {0}")]
    Sealed(String),
    #[error("it is not known what boots next: {0}")]
    Trial(String),
    #[error("the machine cannot be rebooted: {0}")]
    Reboot(String),
    #[error("not confirmed: {0}")]
    NotConfirmed(&'static str),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nixos-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[&str]) -> Result<ExitCode, AgentError> {
    match arguments {
        ["--version"] => {
            println!("nixos-agent {}", env!("CARGO_PKG_VERSION"));
        }
        ["activate"] => activate()?,
        ["attach", id] => follow::follow(&Deployment::open(&id.parse()?), 0)?,
        ["attach", id, "--from", from] => {
            let from = from.parse().map_err(|_| AgentError::Usage)?;
            follow::follow(&Deployment::open(&id.parse()?), from)?;
        }
        ["confirm", id] => confirm(&Deployment::open(&id.parse()?))?,
        ["run", id] => transaction::run(&Deployment::open(&id.parse()?))?,
        ["rescue", id] => transaction::rescue(&Deployment::open(&id.parse()?))?,
        ["exec", id, step, program, action] => {
            let code = switch::execute(&Deployment::open(&id.parse()?), step, program, action)?;
            return Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from));
        }
        ["try", system, seconds] => {
            let seconds = seconds.parse().map_err(|_| AgentError::Usage)?;
            print(&trial::begin(system, seconds)?)?;
        }
        ["take-back-trial"] => trial::take_back()?,
        ["watch-trial"] => trial::watch()?,
        ["put-back-secrets"] => secrets::put_back()?,
        ["undo-secrets"] => secrets::undo()?,
        ["running"] => {
            if let Some((id, seconds)) = running::look()? {
                println!("{id} {seconds}");
            }
        }
        ["volume", id, letter] => print(&volume::look(id, letter)?)?,
        ["status"] => {
            print(&host::state())?;
        }
        _ => return Err(AgentError::Usage),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(value: &impl serde::Serialize) -> Result<(), AgentError> {
    let text = serde_json::to_string(value).map_err(|error| AgentError::Request(error.to_string()))?;
    println!("{text}");
    Ok(())
}

fn activate() -> Result<(), AgentError> {
    if !rustix::process::geteuid().is_root() {
        return Err(AgentError::NotRoot);
    }
    let input = files::read_secret(std::io::stdin().lock()).map_err(files::failed("standard input"))?;
    let line = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (json, contents) = input.split_at(line);
    let request: Request =
        serde_json::from_slice(json).map_err(|error| AgentError::Request(error.to_string()))?;
    secrets::stage(&request, contents.get(1..).unwrap_or_default())?;
    let deployment = Deployment::create(&request)?;
    start(&request.id)?;
    follow::follow(&deployment, 0)
}

/// What a new login proves: the machine can be reached, and whoever asked for the system is still there.
fn confirm(deployment: &Deployment) -> Result<(), AgentError> {
    let message: Message = from_stdin()?;
    let request = deployment.request()?;
    if request.confirmation.is_none_or(|confirmation| confirmation.nonce != message.nonce) {
        return Err(AgentError::NotConfirmed("that is not the nonce of this activation"));
    }
    let waits_in = |phase| deployment.last_phase() == Some(phase);
    let (name, due) = match &message.answer {
        Answer::Reachable => (REACHABLE, waits_in(Phase::AwaitingConfirmation)),
        Answer::Keep => (VERDICT, waits_in(Phase::Holding)),
        Answer::GoBack(_) => (VERDICT, waits_in(Phase::AwaitingConfirmation) || waits_in(Phase::Holding)),
    };
    if !due {
        return Err(AgentError::NotConfirmed("the activation does not wait for it (any more)"));
    }
    let word = serde_json::to_vec(&message.answer).map_err(|error| AgentError::Request(error.to_string()))?;
    deployment.leave(name, &word)
}

fn from_stdin<T: DeserializeOwned>() -> Result<T, AgentError> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(files::failed("standard input"))?;
    serde_json::from_str(&text).map_err(|error| AgentError::Request(error.to_string()))
}

/// Starts `run` where neither the end of this session nor that of its user reaches it.
fn start(id: &ActivationId) -> Result<(), AgentError> {
    let own =
        std::env::current_exe().map_err(|source| AgentError::Io { what: "own path".to_owned(), source })?;
    let started = host::command("systemd-run")
        .args([
            "--quiet",
            "--collect",
            "--no-ask-password",
            "--service-type=exec",
            &format!("--unit=nixos-agent-{id}"),
        ])
        .args(["-p", "StandardInput=null", "-p", "KillMode=mixed", "-p", "OOMScoreAdjust=-900"])
        .args(switch::OUTLIVES)
        .args(["-p", "SyslogIdentifier=nixos-agent"])
        // Whoever kills it does not end what it has begun.
        .args(["-p", "Restart=on-failure", "-p", "RestartSec=200ms"])
        .arg(own)
        .args(["run", id.as_str()])
        .output();
    match started {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(AgentError::Start(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        Err(error) => Err(AgentError::Start(format!("systemd-run: {error}"))),
    }
}
