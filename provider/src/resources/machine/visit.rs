//! Logging in to a machine, asking what it is, and filling in what was still open.

use nixos_activator::StorePath;
use nixos_activator::facts::{self, Facts, FactsError};
use nixos_activator::ssh::{Connection, HostKeyPolicy, SshError, Wait};
use std::sync::Arc;
use tfplugin::{Attr, Cx, Diagnostic, Diagnostics, Path};

use super::Machine;
use crate::context::{Context, SshDefaults};
use crate::diagnose;
use crate::machines::{Addresses, NoEndpoint, Target, not_refreshed, provider_unknown};

/// What one visit brought.
pub(super) struct Seen {
    pub(super) facts: Facts,
    pub(super) port: u16,
    /// The host key that the connection was checked against, where it was one of ours.
    pub(super) host_key: Option<String>,
    /// Whether the host key is checked at all.
    pub(super) is_checked: bool,
}

/// Why a visit brought nothing.
pub(super) enum VisitError {
    Setting(NoEndpoint),
    Ssh(SshError),
    Facts(FactsError),
}

impl VisitError {
    /// Whether it says something about this machine alone.
    pub(super) fn concerns_machine(&self) -> bool {
        match self {
            Self::Setting(_) | Self::Facts(FactsError::Shell { .. }) => true,
            Self::Ssh(error) | Self::Facts(FactsError::Ssh(error)) => error.concerns_machine(),
        }
    }

    /// What a refresh says about a machine whose last state it keeps.
    pub(super) fn warning(&self, machine: &Machine) -> Diagnostic {
        match self {
            Self::Setting(reason) => {
                not_refreshed(machine.label(), &reason.clone().into()).at(machine.block_path())
            }
            _ => diagnose::kept(self.diagnostic(machine)),
        }
    }

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
    wait: Wait,
) -> Result<Arc<Connection>, VisitError> {
    let target = machine.target.known().cloned().unwrap_or_default();
    // A key that is not known yet is not pinned yet.
    let target = Target { host_public_key: Attr::from(target.host_public_key.known().cloned()), ..target };
    let endpoint = target.endpoint(defaults, &machine.block_path()).map_err(VisitError::Setting)?;
    cx.data.tools.pool.connect(&endpoint, wait, &cx.cancel).await.map_err(VisitError::Ssh)
}

/// Logs in and asks the machine for its facts.
pub(super) async fn visit(
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
    Ok(Seen { facts, port, host_key: endpoint.host_public_key.clone().filter(|_| is_checked), is_checked })
}

/// Visits the machine and fills in what was still open.
pub(super) async fn settle(
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
    machine.settle(&seen, prior)
}

impl Machine {
    /// The block that says where the machine runs.
    pub(super) fn block_path(&self) -> Path {
        Path::root().attribute(if self.ec2.is_null() { "ssh" } else { "ec2" })
    }

    /// Who logs in: what the block says, else the provider by now.
    pub(super) fn login_user(&self, defaults: Option<&SshDefaults>, prior: Option<&Self>) -> Attr<String> {
        let said = self.ssh.known().map(|block| &block.user);
        match (said.or(self.ec2.known().map(|block| &block.user)), defaults) {
            (Some(said @ (Attr::Known(_) | Attr::Unknown)), _) => said.clone(),
            (_, Some(defaults)) => Attr::Known(defaults.user.clone()),
            (_, None) => prior.map_or(Attr::Unknown, |prior| prior.user.clone()),
        }
    }

    /// The port: what the block says, else the provider by now, else what it was when the machine was last seen.
    pub(super) fn login_port(&self, defaults: Option<&SshDefaults>, prior: Option<&Self>) -> Attr<u16> {
        let said = self.ssh.known().map(|block| &block.port);
        match (said.or(self.ec2.known().map(|block| &block.port)), defaults.and_then(|ssh| ssh.port)) {
            (Some(said @ (Attr::Known(_) | Attr::Unknown)), _) => said.clone(),
            (_, Some(port)) => Attr::Known(port),
            (_, None) => prior.map_or(Attr::Unknown, |prior| prior.port.clone()),
        }
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
                    &target.public_ipv6,
                ]
                .into_iter()
                .any(Attr::is_unknown)
            })
    }

    /// Takes over what was seen at a refresh. Where another machine answers, nothing is kept of the one before.
    pub(super) fn refresh(&mut self, seen: &Seen) {
        let facts = &seen.facts;
        let is_another = self.other_than(facts).is_some();
        self.take(facts);
        if self.ssh.known().is_some_and(|block| block.port.is_null()) {
            self.port = Attr::Known(seen.port);
        }
        let Attr::Known(mut target) = self.target.clone() else { return };
        target.machine_id = self.machine_id.clone();
        // The first key that was accepted is the only one from then on.
        if let (Attr::Null, Some(key)) = (&target.host_public_key, &seen.host_key) {
            target.host_public_key = Attr::Known(key.clone());
            self.host_public_key = target.host_public_key.clone();
        }
        if is_another {
            target.system = Attr::from(facts.system.clone());
            target.state_version = Attr::from(facts.nixos_release.clone());
            self.system = target.system.clone();
            self.state_version = target.state_version.clone();
            if let Attr::Known(block) = &self.ssh {
                let mut derived = block.target();
                fill_addresses(&mut derived, facts);
                target.public_ipv4 = derived.public_ipv4;
                target.private_ipv4 = derived.private_ipv4;
                target.public_ipv6 = derived.public_ipv6;
                self.public_ipv4 = target.public_ipv4.clone();
                self.private_ipv4 = target.private_ipv4.clone();
                self.public_ipv6 = target.public_ipv6.clone();
                if !seen.is_checked && block.host_public_key.is_null() {
                    target.host_public_key = Attr::from(facts.host_keys.first().cloned());
                    self.host_public_key = target.host_public_key.clone();
                }
            }
        }
        self.target = Attr::Known(target);
    }

    /// Takes over what changes by itself.
    fn take(&mut self, facts: &Facts) {
        let path = |path: &Option<StorePath>| Attr::from(path.as_ref().map(ToString::to_string));
        self.os_release = Attr::from(facts.os_release.clone());
        if facts.machine_id.is_some() || self.machine_id.is_unknown() {
            self.machine_id = Attr::from(facts.machine_id.clone());
        }
        self.boot_id = Attr::from(facts.boot_id.clone());
        self.current_system = path(&facts.current_system);
        self.booted_system = path(&facts.booted_system);
    }

    /// The known and the found machine id, where another machine answers than the one that is known.
    fn other_than<'a>(&'a self, facts: &'a Facts) -> Option<(&'a str, &'a str)> {
        let (known, found) = (self.machine_id.known()?, facts.machine_id.as_ref()?);
        (known != found).then_some((known, found))
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
        if let Some((known, found)) = self.other_than(facts) {
            let summary = format!("Another machine answers in the place of \"{}\"", self.label());
            return Err(Diagnostic::error(summary)
                .detail(format!(
                    "The plan was made for the machine with `machine_id` {known}, found {found}. Plan again to see what it is."
                ))
                .at(self.block_path())
                .into());
        }
        self.take(facts);
        let same_machine = prior.is_some_and(|prior| prior.machine_id == self.machine_id);
        let release = prior.filter(|_| same_machine).map(|prior| prior.state_version.clone());

        fill(&mut self.port, || Attr::Known(seen.port));
        let mut target = self.target.known().cloned().unwrap_or_default();
        fill(&mut target.host_public_key, || {
            Attr::from(seen.host_key.clone().or_else(|| facts.host_keys.first().cloned()))
        });
        fill(&mut target.system, || Attr::from(facts.system.clone()));
        fill(&mut target.state_version, || {
            release.unwrap_or_else(|| Attr::from(facts.nixos_release.clone()))
        });
        fill_addresses(&mut target, facts);
        target.machine_id = self.machine_id.clone();
        self.host_public_key = target.host_public_key.clone();
        self.system = target.system.clone();
        self.state_version = target.state_version.clone();
        self.public_ipv4 = target.public_ipv4.clone();
        self.private_ipv4 = target.private_ipv4.clone();
        self.public_ipv6 = target.public_ipv6.clone();
        self.target = Attr::Known(target);
        Ok(())
    }
}

pub(super) fn fill<T>(value: &mut Attr<T>, with: impl FnOnce() -> Attr<T>) {
    if value.is_unknown() {
        *value = with();
    }
}

/// Fills in the addresses that are still open by the one at which the machine was reached.
fn fill_addresses(target: &mut Target, facts: &Facts) {
    let reached = facts.address.map(Addresses::of).unwrap_or_default();
    fill(&mut target.public_ipv4, || Attr::from(reached.public_ipv4));
    fill(&mut target.private_ipv4, || Attr::from(reached.private_ipv4));
    fill(&mut target.public_ipv6, || Attr::from(reached.public_ipv6));
}
