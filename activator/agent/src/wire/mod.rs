//! The types that travel between client and agent, one theme a file.
//!
//! Their JSON is a contract between versions: a newer client asks an older agent that is still at work, and the other
//! way round. So a field that is added later has a default, and no name in the JSON changes.

mod answers;
mod confirmation;
mod events;
mod ids;
mod random;
mod report;
mod request;
mod roots;
mod secrets;

pub use answers::{Trial, VolumeUse};
pub use confirmation::{Answer, Confirmation, Message};
pub use events::{Event, EventKind, Phase};
pub use ids::{ActivationId, BadId, DeploymentId, random_id};
pub use random::{NoRandomness, random_bytes};
pub use report::{FailedCheck, FailedUnit, Outcome, Report, SystemState};
pub use request::{Action, Login, Request};
pub use roots::{PUSHED, ROOTS, STORED_AGENT};
pub use secrets::{BadSecretName, SecretEntry, SecretFile, SecretName, Secrets};
