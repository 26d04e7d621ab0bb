//! `nixos-agent`: brings a machine from one system to another, or leaves it where it was.
//!
//! `activate` writes the request down, starts `run` in a unit of its own, and follows it. So the activation depends
//! neither on the connection nor on the client. `attach` follows it again. `confirm` is how the client answers while it
//! waits. README.md of this crate says how an activation goes.

mod activation;
mod boot_space;
mod boot_unit;
mod emergency;
mod error;
mod event_log;
mod files;
mod follow;
mod generations;
mod health_checks;
mod journal;
mod lock;
mod lockout;
mod mounts;
mod preflight;
mod profile;
mod program;
mod reboot;
mod record;
mod rescue_timer;
mod roots;
mod running;
mod secret_stream;
mod secrets;
mod switch;
mod systemd;
mod systems;
mod transaction;
mod trial;
mod usage;
mod volume;

use std::io::Read as _;
use std::process::ExitCode;

use nixos_agent::{ActivationId, Answer, Message, Phase, Request};

use activation::{Activation, DECISION, REACHABLE};
use error::{AgentError, io_error, json_error};

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
        ["attach", id] => follow::follow(&open(id)?, 0)?,
        ["attach", id, "--from", from] => {
            let from = from.parse().map_err(|_| AgentError::Usage)?;
            follow::follow(&open(id)?, from)?;
        }
        ["confirm", id] => confirm(&open(id)?)?,
        ["run", id] => transaction::run(&open(id)?)?,
        ["rescue", id] => transaction::rescue(&open(id)?)?,
        ["exec", id, step, program, action] => {
            let code = switch::execute(&open(id)?, step, program, action)?;
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
            if let Some((id, seconds)) = running::activation_at_work()? {
                println!("{id} {seconds}");
            }
        }
        ["volume", id, letter] => print(&volume::usage(id, letter)?)?,
        ["status"] => print(&systems::state())?,
        _ => return Err(AgentError::Usage),
    }
    Ok(ExitCode::SUCCESS)
}

fn open(id: &str) -> Result<Activation, AgentError> {
    Ok(Activation::open(&id.parse()?))
}

fn print(value: &impl serde::Serialize) -> Result<(), AgentError> {
    println!("{}", serde_json::to_string(value).map_err(json_error)?);
    Ok(())
}

/// Takes the request and the secrets from standard input, starts the activation, and follows it.
fn activate() -> Result<(), AgentError> {
    if !rustix::process::geteuid().is_root() {
        return Err(AgentError::NotRoot);
    }
    let input = secret_stream::read_secret(std::io::stdin().lock()).map_err(io_error("standard input"))?;
    let line = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (json, contents) = input.split_at(line);
    let request: Request = serde_json::from_slice(json).map_err(json_error)?;
    secrets::stage(&request, contents.get(1..).unwrap_or_default())?;
    let activation = Activation::create(&request)?;
    start(&request.id)?;
    follow::follow(&activation, 0)
}

/// Leaves the client's answer for the activation, if the activation waits for it.
///
/// The nonce proves that it is the client that asked for the system. That the client could run this at all proves that
/// a new login works.
fn confirm(activation: &Activation) -> Result<(), AgentError> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(io_error("standard input"))?;
    let message: Message = serde_json::from_str(&text).map_err(json_error)?;
    let request = activation.request()?;
    if request.confirmation.is_none_or(|confirmation| confirmation.nonce != message.nonce) {
        return Err(AgentError::NotConfirmed("that is not the nonce of this activation"));
    }
    let waits_in = |phase| activation.last_phase() == Some(phase);
    let (note, is_awaited) = match &message.answer {
        Answer::Reachable => (REACHABLE, waits_in(Phase::AwaitingConfirmation)),
        Answer::Keep => (DECISION, waits_in(Phase::Holding)),
        Answer::GoBack(_) => (DECISION, waits_in(Phase::AwaitingConfirmation) || waits_in(Phase::Holding)),
    };
    if !is_awaited {
        return Err(AgentError::NotConfirmed("the activation does not wait for it (any more)"));
    }
    let answer = serde_json::to_vec(&message.answer).map_err(json_error)?;
    activation.write_note(note, &answer)
}

/// Starts `run` as a unit of its own, which ends neither with this session nor with those of its user.
fn start(id: &ActivationId) -> Result<(), AgentError> {
    let own = std::env::current_exe().map_err(io_error("own path"))?;
    let started = program::command("systemd-run")
        .args([
            "--quiet",
            "--collect",
            "--no-ask-password",
            "--service-type=exec",
            &format!("--unit=nixos-agent-{id}"),
        ])
        .args(["-p", "StandardInput=null", "-p", "KillMode=mixed", "-p", "OOMScoreAdjust=-900"])
        .args(systemd::SURVIVES)
        .args(["-p", "SyslogIdentifier=nixos-agent"])
        // An agent that is killed is started again and goes on.
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
