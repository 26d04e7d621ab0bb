//! What an operation works with beside its own values.

use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::protocol::proto;
use crate::{Diagnostic, Diagnostics, Value, from_value};

/// What the client, Terraform or OpenTofu, can do; it says so with each call. Nothing is assumed that it does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Client {
    /// It accepts that an operation is put off: [`Cx::defer`].
    pub deferral_allowed: bool,
    /// It keeps write-only values out of state (Terraform 1.11). The server refuses them to one that does not.
    pub write_only_attributes_allowed: bool,
    /// It hands the private data of the first plan to the second (Terraform 1.16): [`PlanRequest::planned`](crate::PlanRequest::planned).
    pub stores_planned_private: bool,
}

impl From<Option<&proto::ClientCapabilities>> for Client {
    fn from(said: Option<&proto::ClientCapabilities>) -> Self {
        said.map_or_else(Self::default, |said| Self {
            deferral_allowed: said.deferral_allowed,
            write_only_attributes_allowed: said.write_only_attributes_allowed,
            stores_planned_private: said.store_planned_private,
        })
    }
}

/// Why an operation has to wait until something else is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deferral {
    /// Something in the resource's configuration is not known yet.
    ResourceConfigUnknown,
    /// Something in the provider's configuration is not known yet.
    ProviderConfigUnknown,
    /// Something that has to be there first is not.
    AbsentPrerequisite,
}

/// What an operation works with.
#[derive(Debug)]
#[non_exhaustive]
pub struct Cx<D> {
    /// What configuring the provider gave.
    pub data: Arc<D>,
    /// Cancelled when the user wants to stop: end at the next safe point and tell the truth about the state.
    pub cancel: CancellationToken,
    /// What Terraform can do.
    pub client: Client,
    meta: Value,
    warnings: Mutex<Diagnostics>,
    deferral: Mutex<Option<Deferral>>,
}

impl<D> Cx<D> {
    pub(crate) fn new(data: Arc<D>, cancel: CancellationToken) -> Self {
        Self {
            data,
            cancel,
            client: Client::default(),
            meta: Value::Null,
            warnings: Mutex::default(),
            deferral: Mutex::default(),
        }
    }

    pub(crate) fn with(self, client: Client, meta: Value) -> Self {
        Self { client, meta, ..self }
    }

    /// Tells the user something without failing.
    pub fn warn(&self, warning: Diagnostic) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(warning);
    }

    /// Puts the operation off: Terraform goes on without it, and asks again in its next run. The result of the operation is
    /// what is known already.
    ///
    /// Few clients can do that ([`Client::deferral_allowed`]); from others the user gets an error. A plan with unknown values
    /// serves all of them, so this is for what cannot even be planned. An action can be put off for
    /// [`Deferral::ProviderConfigUnknown`] only.
    pub fn defer(&self, why: Deferral) {
        *self.deferral.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// What the calling module says in its `provider_meta` block, by the provider's [`meta_schema`](crate::Provider::meta_schema);
    /// `None` where it has none.
    pub fn meta<T: DeserializeOwned>(&self) -> Option<T> {
        if self.meta.is_null() { None } else { from_value(&self.meta).ok() }
    }

    pub(crate) fn take_warnings(&self) -> Diagnostics {
        std::mem::take(&mut *self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What to tell the client of a deferral; an error where it does not know what that is.
    pub(crate) fn take_deferral(&self) -> Result<Option<proto::Deferred>, Diagnostics> {
        let Some(why) = self.deferral.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(None);
        };
        let (reason, words) = match why {
            Deferral::ResourceConfigUnknown => {
                (proto::deferred::Reason::ResourceConfigUnknown, "something in its configuration is")
            }
            Deferral::ProviderConfigUnknown => (
                proto::deferred::Reason::ProviderConfigUnknown,
                "something in the provider's configuration is",
            ),
            Deferral::AbsentPrerequisite => (proto::deferred::Reason::AbsentPrereq, "what it needs is"),
        };
        if self.client.deferral_allowed {
            return Ok(Some(proto::Deferred { reason: reason.into() }));
        }
        Err(Diagnostic::error("It is too early for this")
            .detail(format!(
                "This cannot be planned while {words} not there yet, and this version of Terraform cannot put it off. Apply what \
                 it depends on first: terraform apply -target=ADDRESS"
            ))
            .into())
    }
}
