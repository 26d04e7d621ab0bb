//! `nixos_machine` as it is configured and stored, and the views of it that all places share.
//!
//! What a machine is (its identity, its addresses, its platform and release) is held in attributes of its own.
//! `target` is a view of them: [`Machine::update_target`] makes it anew after each change.

use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Path, Timeouts};

use super::defaults::SshDefaults;
use super::ec2::Ec2Block;
use super::ssh::SshBlock;
use super::target::Target;

/// Configuration and state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) name: Attr<String>,
    pub(crate) ssh: Attr<SshBlock>,
    pub(crate) ec2: Attr<Ec2Block>,
    pub(crate) power_state: Attr<String>,
    pub(crate) system: Attr<String>,
    pub(crate) public_ipv4: Attr<String>,
    pub(crate) private_ipv4: Attr<String>,
    pub(crate) public_ipv6: Attr<String>,
    pub(crate) target_env: Attr<String>,
    pub(crate) timeouts: Attr<Timeouts>,
    pub(crate) id: Attr<String>,
    pub(crate) host: Attr<String>,
    pub(crate) port: Attr<u16>,
    pub(crate) user: Attr<String>,
    pub(crate) host_public_key: Attr<String>,
    pub(crate) os_release: Attr<String>,
    pub(crate) state_version: Attr<String>,
    pub(crate) machine_id: Attr<String>,
    pub(crate) boot_id: Attr<String>,
    pub(crate) current_system: Attr<String>,
    pub(crate) booted_system: Attr<String>,
    pub(crate) target: Attr<Target>,
}

impl Machine {
    /// The name of the block that says where the machine runs: its place.
    pub(crate) fn block(&self) -> &'static str {
        if self.ec2.is_null() { "ssh" } else { "ec2" }
    }

    /// How to log in, as that block says; `None` while the block is not known.
    pub(crate) fn login(&self) -> Option<SshBlock> {
        match self.block() {
            "ec2" => self.ec2.known().map(|block| block.login(self.host.clone())),
            _ => self.ssh.known().cloned(),
        }
    }

    /// The path of that block, for messages.
    pub(crate) fn block_path(&self) -> Path {
        Path::root().attribute(self.block())
    }

    /// Whether this resource makes the machine. One that is reached by `ssh` was there before, and outlives it.
    fn is_made_here(&self) -> bool {
        self.block() != "ssh"
    }

    /// How messages call the machine.
    pub(crate) fn label(&self) -> &str {
        self.name.known().or(self.host.known()).map_or("?", String::as_str)
    }

    /// Whether it is to run. A machine without a power state always runs.
    pub(crate) fn runs(&self) -> bool {
        self.power_state.known().is_none_or(|state| state == "running")
    }

    /// The user who logs in: as the block says, else as the provider says now.
    pub(crate) fn login_user(&self, defaults: Option<&SshDefaults>, prior: Option<&Self>) -> Attr<String> {
        match (self.login().map(|login| login.user), defaults) {
            (Some(said @ (Attr::Known(_) | Attr::Unknown)), _) => said,
            (_, Some(defaults)) => Attr::Known(defaults.user.clone()),
            (_, None) => prior.map_or(Attr::Unknown, |prior| prior.user.clone()),
        }
    }

    /// The port: as the block says, else as the provider says now, else as it was when the machine was last seen.
    pub(crate) fn login_port(&self, defaults: Option<&SshDefaults>, prior: Option<&Self>) -> Attr<u16> {
        match (self.login().map(|login| login.port), defaults.and_then(|ssh| ssh.port)) {
            (Some(said @ (Attr::Known(_) | Attr::Unknown)), _) => said,
            (_, Some(port)) => Attr::Known(port),
            (_, None) => prior.map_or(Attr::Unknown, |prior| prior.port.clone()),
        }
    }

    /// Whether only a login can tell what is still unknown.
    pub(crate) fn needs_login(&self) -> bool {
        let told_by_machine = [
            &self.machine_id,
            &self.host_public_key,
            &self.system,
            &self.state_version,
            &self.public_ipv4,
            &self.private_ipv4,
            &self.public_ipv6,
        ];
        self.port.is_unknown() || !self.target.is_known() || told_by_machine.into_iter().any(Attr::is_unknown)
    }

    /// Makes `target` anew from everything else.
    pub(crate) fn update_target(&mut self) {
        let Some(login) = self.login() else { return };
        let or_place = |said: &Attr<String>| match said {
            Attr::Null if self.is_made_here() => Attr::Known(self.block().to_owned()),
            said => said.clone(),
        };
        self.target = Attr::Known(Target {
            host: self.host.clone(),
            port: login.port,
            user: login.user,
            key: login.key,
            private_key_file: login.private_key_file,
            host_public_key: self.host_public_key.clone(),
            host_key_policy: login.host_key_policy,
            bastion: login.bastion,
            options: login.options,
            elevate: login.elevate,
            system: self.system.clone(),
            state_version: self.state_version.clone(),
            public_ipv4: self.public_ipv4.clone(),
            private_ipv4: self.private_ipv4.clone(),
            public_ipv6: self.public_ipv6.clone(),
            target_env: or_place(&self.target_env),
            machine_id: self.machine_id.clone(),
            instance_id: if self.is_made_here() { self.id.clone() } else { Attr::Null },
        });
    }

    /// Accepts this host key and no other from now on, unless the block names one.
    pub(crate) fn pin_host_key(&mut self, key: Option<String>) {
        let configured = self.login().and_then(|login| login.host_public_key.into_known());
        if let Some(key) = configured.or(key) {
            self.host_public_key = Attr::Known(key);
        }
        self.update_target();
    }
}
