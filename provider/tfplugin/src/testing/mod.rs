//! Terraform's part, for tests: a [`Harness`] drives a provider through the lives of its resources exactly as Terraform
//! does, over the wire, without a Terraform. What Terraform would hold against the provider fails the test.
//!
//! ```no_run
//! # use tfplugin::{testing::{Harness, object}, Provider};
//! # async fn story(provider: impl Provider) {
//! let terraform = Harness::of(provider).await.unwrap();
//! terraform.configure(&object([])).await.unwrap();
//! // Validates, plans, applies, refreshes, and plans once more to see that nothing is left to do.
//! let word = terraform.create("example_word", &object([("length", 5i64.into())])).await;
//! let word = terraform.update(&word, &object([("length", 6i64.into())])).await;
//! terraform.destroy(&word).await;
//! # }
//! ```
//!
//! # Errors and panics
//!
//! `Err` has the errors that the provider has sent, as the user would see them, and also those that Terraform itself
//! finds in a configuration. Warnings come with the success. A method panics, and so fails the test, where the provider
//! breaks a rule of the protocol: where it does not answer at all, plans or returns what Terraform would refuse, or
//! stores a write-only value.
//!
//! # Programs, and a real Terraform
//!
//! The same story can be told of a program ([`Harness::start`]), which Terraform's handshake and TLS stand in front of,
//! and a real Terraform can attach to a provider within the test ([`attach`]).

#![expect(clippy::expect_used, reason = "an expectation that does not hold is how a test fails")]

mod apply;
mod connect;
mod harness;
mod holes;
mod life;
mod model;
mod offers;
mod others;
mod outcome;
mod plan;
mod schema;
mod states;
mod wire;

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::server::embedded;
use crate::{Provider, Value};

pub use connect::ConnectError;
pub use harness::Harness;
pub use holes::{Filler, Hole, holes_in};
pub use model::model_problems;
pub use offers::Offer;
pub use others::{Invoked, Open};
pub use outcome::{Action, Applied, Plan, Stored};
pub use states::MovedFrom;

/// An object, for configurations.
pub fn object<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A provider within the test, for a real Terraform. It is served until this is dropped.
#[derive(Debug)]
pub struct Attached {
    variable: String,
    _served: DropGuard,
    _directory: tempfile::TempDir,
}

impl Attached {
    /// The value of `TF_REATTACH_PROVIDERS`.
    pub fn variable(&self) -> &str {
        &self.variable
    }
}

/// Serves a provider for a Terraform that is started with [`Attached::variable`] in `TF_REATTACH_PROVIDERS`.
pub fn attach<P: Provider>(provider: P) -> std::io::Result<Attached> {
    let shutdown = CancellationToken::new();
    let (directory, socket) = embedded::serve_on_socket(provider, &shutdown)?;
    let variable = embedded::reattach(&socket, P::SOURCE);
    Ok(Attached { variable, _served: shutdown.drop_guard(), _directory: directory })
}
