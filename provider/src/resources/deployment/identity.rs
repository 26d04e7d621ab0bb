//! Which machine was deployed to: what a deployment remembers of it, so that another one at its address is noticed.
//!
//! Targets of `nixos_machine` say themselves what identifies a machine. Those that are written as plain objects have
//! an address and no more, so the machine id that was found there is kept in private state, and so is the host key
//! that `accept_new` has accepted.

use nixos_activator::MachineName;
use nixos_activator::facts::Facts;
use nixos_activator::ssh::{Endpoint, HostKeyPolicy};

use super::model::Deployment;
use super::private::{Met, Private};
use crate::machines::{Sameness, Target};

/// Whether a machine of the configuration is the one that a prior state knows by this name.
pub(super) fn sameness(prior: &Deployment, config: &Deployment, name: &str) -> Sameness {
    match (prior.target(name), config.target(name)) {
        (Some(before), Some(now)) => now.sameness(before),
        (Some(_), None) if config.machines.known().is_some_and(|machines| machines.contains_key(name)) => {
            Sameness::Open
        }
        _ => Sameness::Other,
    }
}

impl Private {
    /// Where to connect to, with the host key that was accepted there at first as the only one.
    pub(super) fn pinned(&self, name: &str, endpoint: Endpoint) -> Endpoint {
        if endpoint.host_key_policy != HostKeyPolicy::AcceptNew || endpoint.host_public_key.is_some() {
            return endpoint;
        }
        let host_public_key = self.met_at(name, &endpoint).and_then(|met| met.host_key.clone());
        Endpoint { host_public_key, ..endpoint }
    }

    /// The machine id that was found there last.
    pub(super) fn met_id(&self, name: &str, endpoint: &Endpoint) -> Option<String> {
        self.met_at(name, endpoint)?.machine_id.clone()
    }

    /// Whether `facts` are of another machine than the one that was deployed to.
    pub(super) fn is_another(&self, name: &str, endpoint: &Endpoint, target: &Target, facts: &Facts) -> bool {
        let before = self.met_id(name, endpoint).or_else(|| target.machine_id.known().cloned());
        before.is_some_and(|before| facts.machine_id.as_ref().is_some_and(|found| *found != before))
    }

    /// Remembers what was found at `endpoint`; `accepted` is the host key that was accepted there on first use.
    pub(super) fn meet(
        &mut self,
        name: &MachineName,
        endpoint: &Endpoint,
        machine_id: Option<String>,
        accepted: Option<String>,
    ) {
        let before = self.met_at(name.as_str(), endpoint).cloned().unwrap_or_default();
        let host_key = match endpoint.host_key_policy {
            HostKeyPolicy::AcceptNew => {
                accepted.or_else(|| endpoint.host_public_key.clone()).or(before.host_key)
            }
            HostKeyPolicy::Strict | HostKeyPolicy::Off => None,
        };
        let met = Met { place: place(endpoint), machine_id: machine_id.or(before.machine_id), host_key };
        self.met.insert(name.clone(), met);
    }

    fn met_at(&self, name: &str, endpoint: &Endpoint) -> Option<&Met> {
        let met = self.met.iter().find(|(machine, _)| machine.as_str() == name)?.1;
        (met.place == place(endpoint)).then_some(met)
    }
}

/// The address, and the way there.
fn place(endpoint: &Endpoint) -> String {
    let address = |host: &str, port: Option<u16>| {
        port.map_or_else(|| host.to_owned(), |port| format!("{host} port {port}"))
    };
    let there = address(&endpoint.host, endpoint.port);
    match &endpoint.bastion {
        Some(bastion) => format!("{there} behind {}", address(&bastion.host, bastion.port)),
        None => there,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nixos_activator::ssh::Key;

    use super::*;

    fn endpoint(host: &str, policy: HostKeyPolicy) -> Endpoint {
        Endpoint {
            host: host.into(),
            port: None,
            user: "root".into(),
            key: Key::Ambient,
            host_public_key: None,
            host_key_policy: policy,
            bastion: None,
            options: vec![],
            elevate: vec![],
            elevate_password: None,
            connect_timeout: Duration::from_secs(1),
            compress: false,
        }
    }

    fn found(machine_id: &str) -> Facts {
        Facts { machine_id: Some(machine_id.into()), ..Facts::default() }
    }

    #[test]
    fn the_first_key_is_the_only_one_at_its_place() {
        let web: MachineName = "web".parse().unwrap();
        let mut private = Private::default();
        let here = endpoint("here", HostKeyPolicy::AcceptNew);
        assert_eq!(private.pinned("web", here.clone()), here);
        private.meet(&web, &here, None, Some("ssh-ed25519 AAAA".into()));
        let pinned = private.pinned("web", here.clone());
        assert_eq!(pinned.host_public_key.as_deref(), Some("ssh-ed25519 AAAA"));
        // A connection that was checked against the pinned key accepts none.
        private.meet(&web, &pinned, Some("m".into()), None);
        assert_eq!(private.pinned("web", here.clone()), pinned);
        // What is configured wins, and elsewhere, or with another policy, there is nothing to hold on to.
        let said = Endpoint { host_public_key: Some("ssh-ed25519 BBBB".into()), ..here.clone() };
        assert_eq!(private.pinned("web", said.clone()), said);
        for other in [endpoint("there", HostKeyPolicy::AcceptNew), endpoint("here", HostKeyPolicy::Strict)] {
            assert_eq!(private.pinned("web", other.clone()), other);
        }
        assert_eq!(private.pinned("db", here.clone()), here);
    }

    #[test]
    fn another_machine_at_the_address_is_noticed() {
        let web: MachineName = "web".parse().unwrap();
        let here = endpoint("here", HostKeyPolicy::Strict);
        let (mut private, target) = (Private::default(), Target::default());
        let is_another = |private: &Private, target: &Target, id: &str| {
            private.is_another("web", &here, target, &found(id))
        };
        assert!(!is_another(&private, &target, "m"), "nobody was met");
        let said = Target { machine_id: tfplugin::Attr::Known("m".into()), ..Target::default() };
        assert!(is_another(&private, &said, "n"));
        private.meet(&web, &here, Some("m".into()), None);
        assert!(is_another(&private, &target, "n") && !is_another(&private, &target, "m"));
        assert!(!private.is_another("web", &here, &target, &Facts::default()), "it does not say");
        private.meet(&web, &here, None, None);
        assert!(is_another(&private, &target, "n"), "silence is not forgetting");
        private.meet(&web, &endpoint("there", HostKeyPolicy::Strict), None, None);
        assert!(!is_another(&private, &target, "n"));
    }
}
