//! What the client (the library `nixos-activator`) and the agent on a machine say to each other, as Rust types.
//!
//! The client writes one [`Request`] as a line of JSON on the standard input of `nixos-agent activate`, followed by the
//! contents of the secrets. The agent prints one [`Event`] as JSON a line. The last event is [`EventKind::Done`] with
//! the [`Report`]. The agent keeps all events in a file on the machine, so a client whose connection broke connects
//! again and asks for the events from the one that it missed.

pub mod health;
mod wire;

pub use wire::{
    Action, ActivationId, Answer, BadId, BadSecretName, Confirmation, DeploymentId, Event, EventKind,
    FailedCheck, FailedUnit, Login, Message, NoRandomness, Outcome, PUSHED, Phase, ROOTS, Report, Request,
    STORED_AGENT, SecretEntry, SecretFile, SecretName, Secrets, SystemState, Trial, VolumeUse, random_bytes,
    random_id,
};
