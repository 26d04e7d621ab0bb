//! Logging in to a machine, asking what it is, and filling in what was still open.

use std::net::IpAddr;
use std::time::Duration;

use nixos_activator::StorePath;
use nixos_activator::facts::{self, Facts, FactsError};
use nixos_activator::ssh::{Connection, SshError};
use std::sync::Arc;
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Path};

use super::Machine;
use crate::context::{Context, SshDefaults};
use crate::diagnose;
use crate::machines::{NoEndpoint, Target, provider_unknown};

/// What one visit brought.
pub(super) struct Seen {
    pub(super) facts: Facts,
    pub(super) port: u16,
    pub(super) accepted_key: Option<String>,
}

/// Why a visit brought nothing.
pub(super) enum VisitError {
    Setting(NoEndpoint),
    Ssh(SshError),
    Facts(FactsError),
}

impl VisitError {
    pub(super) fn diagnostic(&self, machine: &Machine) -> Diagnostic {
        let (path, machine) = (machine.block_path(), machine.label());
        match self {
            Self::Setting(reason) => reason.clone().into(),
            Self::Ssh(error) => diagnose::ssh(machine, error, &path),
            Self::Facts(error) => diagnose::facts(machine, error, &path),
        }
    }
}

/// Logs in.
pub(super) async fn connect(
    cx: &Cx<Context>,
    defaults: &SshDefaults,
    machine: &Machine,
    limit: Duration,
) -> Result<Arc<Connection>, VisitError> {
    let target = machine.target.known().cloned().unwrap_or_default();
    // A key that is not known yet is not pinned yet.
    let target = Target { host_public_key: Attr::from(target.host_public_key.known().cloned()), ..target };
    let endpoint = target.endpoint(defaults, &machine.block_path()).map_err(VisitError::Setting)?;
    cx.data.tools.pool.connect(&endpoint, limit, &cx.cancel).await.map_err(VisitError::Ssh)
}

/// Logs in and asks the machine for its facts.
pub(super) async fn visit(
    cx: &Cx<Context>,
    defaults: &SshDefaults,
    machine: &Machine,
    limit: Duration,
) -> Result<Seen, VisitError> {
    let connection = connect(cx, defaults, machine, limit).await?;
    let facts = facts::gather(machine.label(), &connection).await.map_err(VisitError::Facts)?;
    let port = connection.port().await.map_err(VisitError::Ssh)?;
    Ok(Seen { facts, port, accepted_key: connection.accepted_key().map(str::to_owned) })
}

/// Visits the machine and fills in what was still open.
pub(super) async fn settle(
    cx: &Cx<Context>,
    machine: &mut Machine,
    prior: Option<&Machine>,
    limit: Duration,
) -> Result<(), Diagnostics> {
    let defaults = cx.data.ssh.as_ref().ok_or_else(provider_unknown)?;
    let seen = match visit(cx, defaults, machine, limit).await {
        Ok(seen) => seen,
        Err(error) => return Err(error.diagnostic(machine).into()),
    };
    machine.settle(&seen, prior)
}

impl Machine {
    /// The block that says where the machine runs.
    pub(super) fn block_path(&self) -> Path {
        Path::root().attribute(if self.ec2.is_null() { "ssh" } else { "ec2" })
    }

    /// Says at a refresh that the machine does not answer.
    pub(super) fn unreachable(&self, error: &SshError) -> Diagnostic {
        Diagnostic::warning(format!("Machine \"{}\" cannot be reached", self.label()))
            .detail(format!(
                "{error}\n\nThe last known state is kept; the plan may not show what has changed on it since."
            ))
            .at(self.block_path())
    }

    /// Says at a refresh that nobody knows the machine's host key, as after the import of an instance.
    pub(super) fn stranger(&self, error: &SshError) -> Diagnostic {
        Diagnostic::warning(format!("The host key of machine \"{}\" is not known", self.label()))
            .detail(format!(
                "{error}\n\nWhat runs on the machine is left open. Set `host_public_key` to the machine's key \
                 (`/etc/ssh/ssh_host_ed25519_key.pub`), or `host_key_policy = \"accept_new\"` to trust the first key seen; the next \
                 apply pins it."
            ))
            .at(self.block_path())
    }

    /// How messages call the machine.
    pub(super) fn label(&self) -> &str {
        self.name.known().or(self.host.known()).map_or("?", String::as_str)
    }

    /// Whether a visit is needed to complete the state.
    pub(super) fn is_open(&self) -> bool {
        let target = self.target.known();
        self.port.is_unknown()
            || self.machine_id.is_unknown()
            || target.is_none_or(|target| {
                [
                    &target.host_public_key,
                    &target.system,
                    &target.state_version,
                    &target.public_ipv4,
                    &target.private_ipv4,
                ]
                .into_iter()
                .any(Attr::is_unknown)
            })
    }

    /// Takes over what changes by itself.
    pub(super) fn refresh(&mut self, facts: &Facts) {
        let path = |path: &Option<StorePath>| Attr::from(path.as_ref().map(ToString::to_string));
        self.os_release = Attr::from(facts.os_release.clone());
        self.machine_id = Attr::from(facts.machine_id.clone());
        self.boot_id = Attr::from(facts.boot_id.clone());
        self.current_system = path(&facts.current_system);
        self.booted_system = path(&facts.booted_system);
    }

    /// Completes a planned state by what was seen. Values that were planned stay as they are, or it is an error.
    pub(super) fn settle(&mut self, seen: &Seen, prior: Option<&Self>) -> Result<(), Diagnostics> {
        let facts = &seen.facts;
        if let (Some(declared), Some(found)) = (self.system.known(), &facts.system)
            && declared != found
            && prior.is_none_or(|prior| prior.system.known() != Some(declared))
        {
            return Err(Diagnostic::error(format!(
                "Machine \"{}\" is another kind of machine",
                self.label()
            ))
            .detail(format!(
                "`system` is \"{declared}\", but the machine is \"{found}\". Correct it or leave it out."
            ))
            .at(Path::root().attribute("system"))
            .into());
        }
        self.refresh(facts);
        let same_machine = prior.is_some_and(|prior| prior.machine_id == self.machine_id);
        let release = prior.filter(|_| same_machine).map(|prior| prior.state_version.clone());
        let (public, private) = addresses(facts);

        fill(&mut self.port, || Attr::Known(seen.port));
        let mut target = self.target.known().cloned().unwrap_or_default();
        fill(&mut target.host_public_key, || {
            Attr::from(seen.accepted_key.clone().or_else(|| facts.host_keys.first().cloned()))
        });
        fill(&mut target.system, || Attr::from(facts.system.clone()));
        fill(&mut target.state_version, || {
            release.unwrap_or_else(|| Attr::from(facts.nixos_release.clone()))
        });
        fill(&mut target.public_ipv4, || Attr::from(public));
        fill(&mut target.private_ipv4, || Attr::from(private));
        self.host_public_key = target.host_public_key.clone();
        self.system = target.system.clone();
        self.state_version = target.state_version.clone();
        self.public_ipv4 = target.public_ipv4.clone();
        self.private_ipv4 = target.private_ipv4.clone();
        self.target = Attr::Known(target);
        Ok(())
    }
}

pub(super) fn fill<T>(value: &mut Attr<T>, with: impl FnOnce() -> Attr<T>) {
    if value.is_unknown() {
        *value = with();
    }
}

/// The address the machine was reached at, as (public, private).
fn addresses(facts: &Facts) -> (Option<String>, Option<String>) {
    match facts.address {
        Some(IpAddr::V4(address)) if facts::is_private(address) => (None, Some(address.to_string())),
        Some(IpAddr::V4(address)) if !address.is_loopback() => (Some(address.to_string()), None),
        _ => (None, None),
    }
}
