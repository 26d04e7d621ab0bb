//! The login that all places share: to a machine that was just made, for its facts, and at every refresh.

use std::sync::Arc;
use std::time::Duration;

use nixos_activator::facts::{self, FactsError};
use nixos_activator::ssh::{Connection, HostKeyPolicy, SshError, Wait};
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics};

use super::defaults::SshDefaults;
use super::host_key::rotate;
use super::machine::Machine;
use super::seen::Seen;
use super::target::Target;
use super::unreachable::{NoEndpoint, not_refreshed, provider_unknown};
use crate::context::Context;
use crate::diagnose;

/// Why a login brought nothing.
pub(crate) enum VisitError {
    /// It is not known, or wrongly configured, how to log in.
    Setting(NoEndpoint),
    /// The connection.
    Ssh(SshError),
    /// The machine's answer.
    Facts(FactsError),
}

impl VisitError {
    /// Whether it concerns this machine alone, so that other machines can be worked on all the same.
    pub(crate) fn concerns_machine(&self) -> bool {
        match self {
            Self::Setting(_) | Self::Facts(FactsError::Shell { .. }) => true,
            Self::Ssh(error) | Self::Facts(FactsError::Ssh(error)) => error.concerns_machine(),
        }
    }

    /// What a refresh says about a machine whose last state it keeps.
    fn warning(&self, machine: &Machine) -> Diagnostic {
        match self {
            Self::Setting(reason) => {
                not_refreshed(machine.label(), &reason.clone().into()).at(machine.block_path())
            }
            _ => diagnose::kept(self.diagnostic(machine)),
        }
    }

    pub(crate) fn diagnostic(&self, machine: &Machine) -> Diagnostic {
        let (path, machine) = (machine.block_path(), machine.label());
        match self {
            Self::Setting(reason) => reason.clone().into(),
            Self::Ssh(error) => diagnose::ssh(machine, error, &path),
            Self::Facts(error) => diagnose::facts(machine, error, &path),
        }
    }
}

/// Logs in.
pub(crate) async fn connect(
    cx: &Cx<Context>,
    defaults: &SshDefaults,
    machine: &Machine,
    wait: Wait,
) -> Result<Arc<Connection>, VisitError> {
    let target = machine.target.known().cloned().unwrap_or_default();
    // A key that is not known yet is not pinned yet.
    let target = Target { host_public_key: Attr::from(target.host_public_key.known().cloned()), ..target };
    let endpoint = target.endpoint(defaults, &machine.block_path()).map_err(VisitError::Setting)?;
    cx.data.tools.pool.connect(&endpoint, wait, &cx.cancel).await.map_err(VisitError::Ssh)
}

/// Logs in and asks the machine for its facts.
pub(crate) async fn visit(
    cx: &Cx<Context>,
    defaults: &SshDefaults,
    machine: &Machine,
    wait: Wait,
) -> Result<Seen, VisitError> {
    let connection = connect(cx, defaults, machine, wait).await?;
    let facts = facts::gather(machine.label(), &connection).await.map_err(VisitError::Facts)?;
    let port = connection.port().await.map_err(VisitError::Ssh)?;
    let endpoint = connection.endpoint();
    let is_checked = endpoint.host_key_policy != HostKeyPolicy::Off;
    let host_key = endpoint.host_public_key.clone().filter(|_| is_checked);
    Ok(Seen { facts, port, host_key, is_checked })
}

/// Logs in and fills in what is still unknown of a planned state.
pub(crate) async fn complete(
    cx: &Cx<Context>,
    machine: &mut Machine,
    prior: Option<&Machine>,
    wait: Wait,
) -> Result<(), Diagnostics> {
    let defaults = cx.data.ssh.as_ref().ok_or_else(provider_unknown)?;
    let seen = match visit(cx, defaults, machine, wait).await {
        Ok(seen) => seen,
        Err(error) => return Err(error.diagnostic(machine).into()),
    };
    machine.complete(&seen, prior)
}

/// The first login to a machine that was just made with the host key `handed_over`; `None`: its host key is its own.
///
/// A host key that was handed over has been elsewhere before it came to the machine. So the machine makes itself a
/// new one, and that one is pinned.
pub(crate) async fn first_login(
    cx: &Cx<Context>,
    machine: &mut Machine,
    handed_over: Option<String>,
    wait: Wait,
) -> Result<(), VisitError> {
    let defaults =
        cx.data.ssh.as_ref().ok_or_else(|| VisitError::Setting(NoEndpoint::Later(provider_unknown())))?;
    let is_handed_over = handed_over.is_some();
    machine.pin_host_key(handed_over);
    let connection = connect(cx, defaults, machine, wait).await?;
    if !is_handed_over {
        return Ok(());
    }
    match rotate(&connection).await {
        Ok(public) => machine.pin_host_key(Some(public)),
        Err(error) => cx.warn(
            Diagnostic::warning(format!("Machine \"{}\" keeps its first host key", machine.label())).detail(
                format!(
                    "{error}\n\nIt was handed over in user data, which the machine's users can read: \
                     whoever can log in there could pretend to be this machine."
                ),
            ),
        ),
    }
    Ok(())
}

/// Asks the machine at a refresh what it is now. A machine that cannot be asked keeps its state, so that it stops
/// nothing but itself.
pub(crate) async fn refresh(cx: &Cx<Context>, machine: &mut Machine) -> Result<(), Diagnostics> {
    let Some(defaults) = cx.data.ssh.as_ref() else {
        cx.warn(not_refreshed(machine.label(), &provider_unknown()));
        return Ok(());
    };
    let limit = machine.timeouts.read_or(Duration::ZERO);
    match visit(cx, defaults, machine, Wait::UntilReachable(limit)).await {
        Ok(seen) => machine.refresh(&seen),
        Err(error) if error.concerns_machine() => cx.warn(error.warning(machine)),
        Err(error) => return Err(error.diagnostic(machine).into()),
    }
    Ok(())
}
