//! What a login told about a machine, and how the state takes it over.

use nixos_activator::StorePath;
use nixos_activator::facts::Facts;
use tfplugin::{Attr, Diagnostic, Diagnostics, Path};

use super::addresses::Addresses;
use super::machine::Machine;

/// What a login told.
pub(crate) struct Seen {
    pub(crate) facts: Facts,
    pub(crate) port: u16,
    /// The host key that the connection was checked against; `None`: any of `known_hosts`, or none was checked.
    pub(crate) host_key: Option<String>,
    /// Whether the host key is checked at all.
    pub(crate) is_checked: bool,
}

impl Machine {
    /// Takes over what a refresh has seen. Where another machine answers, nothing is kept of the one before.
    pub(crate) fn refresh(&mut self, seen: &Seen) {
        let facts = &seen.facts;
        let is_another = self.other_than(facts).is_some();
        self.take_over(facts);
        if self.ssh.known().is_some_and(|block| block.port.is_null()) {
            self.port = Attr::Known(seen.port);
        }
        if !self.target.is_known() {
            return;
        }
        // The first key that was accepted is the only one from then on.
        if let (Attr::Null, Some(key)) = (&self.host_public_key, &seen.host_key) {
            self.host_public_key = Attr::Known(key.clone());
        }
        if is_another {
            self.system = Attr::from(facts.system.clone());
            self.state_version = Attr::from(facts.nixos_release.clone());
            if let Attr::Known(block) = &self.ssh {
                let derived = block.target();
                self.public_ipv4 = derived.public_ipv4;
                self.private_ipv4 = derived.private_ipv4;
                self.public_ipv6 = derived.public_ipv6;
                if !seen.is_checked && block.host_public_key.is_null() {
                    self.host_public_key = Attr::from(facts.host_keys.first().cloned());
                }
                self.complete_addresses(facts);
            }
        }
        self.update_target();
    }

    /// Completes a planned state by what was seen. Values that were planned stay as they are, or it is an error.
    pub(crate) fn complete(&mut self, seen: &Seen, prior: Option<&Self>) -> Result<(), Diagnostics> {
        let facts = &seen.facts;
        if let (Some(declared), Some(found)) = (self.system.known(), &facts.system)
            && declared != found
            && prior.is_none_or(|prior| prior.system.known() != Some(declared))
        {
            let summary = format!("Machine \"{}\" is another kind of machine", self.label());
            return Err(Diagnostic::error(summary)
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
                    "The plan was made for the machine with `machine_id` {known}, found {found}. Plan \
                     again to see what it is."
                ))
                .at(self.block_path())
                .into());
        }
        self.take_over(facts);
        let is_same = prior.is_some_and(|prior| prior.machine_id == self.machine_id);
        let release = prior.filter(|_| is_same).map(|prior| prior.state_version.clone());
        fill(&mut self.port, || Attr::Known(seen.port));
        fill(&mut self.host_public_key, || {
            Attr::from(seen.host_key.clone().or_else(|| facts.host_keys.first().cloned()))
        });
        fill(&mut self.system, || Attr::from(facts.system.clone()));
        fill(&mut self.state_version, || release.unwrap_or_else(|| Attr::from(facts.nixos_release.clone())));
        self.complete_addresses(facts);
        self.update_target();
        Ok(())
    }

    /// Takes over what changes by itself.
    fn take_over(&mut self, facts: &Facts) {
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

    /// Fills in the addresses that are still unknown by the one at which the machine was reached.
    fn complete_addresses(&mut self, facts: &Facts) {
        let reached = facts.address.map(Addresses::of).unwrap_or_default();
        fill(&mut self.public_ipv4, || Attr::from(reached.public_ipv4));
        fill(&mut self.private_ipv4, || Attr::from(reached.private_ipv4));
        fill(&mut self.public_ipv6, || Attr::from(reached.public_ipv6));
    }
}

/// Sets a value that is unknown.
pub(crate) fn fill<T>(value: &mut Attr<T>, with: impl FnOnce() -> Attr<T>) {
    if value.is_unknown() {
        *value = with();
    }
}
