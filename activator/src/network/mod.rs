//! What is to be deployed: a specification in Nix, and what is known about the machines it speaks of.

mod error;
pub(crate) mod reference;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

pub use error::SpecError;

use crate::MachineName;
use reference::absolute;

/// Where the logical description of the machines is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// NixOps network files, merged in order.
    Network(Vec<PathBuf>),
    /// A flake reference, e.g. `.`, `/srv/infra`, `github:owner/repo?ref=main`; after `#` the output to read.
    Flake(String),
    /// One NixOS configuration, for every machine there is.
    Configuration(PathBuf),
}

/// A value that may not be known before other resources exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fact<T> {
    /// It is this.
    Known(T),
    /// There is none.
    #[default]
    Absent,
    /// It will be known later.
    Unknown,
}

/// What a specification may ask about a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineFacts {
    /// Where SSH connects to.
    pub host: Fact<String>,
    /// The port of its SSH server.
    pub port: Fact<u16>,
    /// Its address on the internet.
    pub public_ipv4: Fact<String>,
    /// Its address in its own network.
    pub private_ipv4: Fact<String>,
    /// Its IPv6 address on the internet.
    pub public_ipv6: Fact<String>,
    /// Its public host key.
    pub host_public_key: Fact<String>,
    /// Nix' name of its platform.
    pub system: Fact<String>,
    /// The NixOS release it was first seen with.
    pub state_version: Fact<String>,
    /// What NixOps called `deployment.targetEnv`: `ec2` or `none`.
    pub target_env: Fact<String>,
}

/// One question to the evaluator.
#[derive(Clone, Debug)]
pub struct Request {
    /// The specification.
    pub spec: Spec,
    /// The name modules see as `deploymentName`.
    pub deployment_name: String,
    /// The identity modules see as `uuid`; known only once the deployment exists.
    pub uuid: Fact<String>,
    /// What is known about each machine.
    pub machines: BTreeMap<MachineName, MachineFacts>,
    /// Arguments of the specification; see [`unknown`].
    pub arguments: Value,
    /// Results of other resources; see [`unknown`].
    pub resources: Value,
    /// Machines that get one of their specialisations instead of the base system, and its name.
    pub specialisations: BTreeMap<MachineName, Fact<String>>,
    /// Which nodes are wanted; `None`: all.
    pub nodes: Option<Vec<MachineName>>,
    /// Option values to report, as dotted paths (`services.openssh.ports`).
    pub options: Vec<String>,
    /// Whether evaluation may build what it imports. A plan that does is no longer quick, and changes the local store.
    pub import_from_derivation: bool,
}

/// Stands for a value that is not known yet. `origin` names it for the user, e.g. `arguments.domain`.
pub fn unknown(origin: &str) -> Value {
    json!({ "__unknown": origin })
}

impl Spec {
    /// Makes paths absolute against the current directory and checks that network files are there. References to
    /// flakes in local directories are written as Nix has to read them.
    pub fn resolve(&self) -> Result<Self, SpecError> {
        match self {
            Self::Network(files) => {
                files.iter().map(|file| absolute(file)).collect::<Result<_, _>>().map(Self::Network)
            }
            Self::Configuration(file) => absolute(file).map(Self::Configuration),
            Self::Flake(reference) => reference::resolved(reference).map(Self::Flake),
        }
    }
}

impl Request {
    /// What `eval.nix` calls `request`. `spec` is the specification as it is to be read now.
    pub(crate) fn to_input(&self, spec: &Value) -> Value {
        let machines: serde_json::Map<_, _> =
            self.machines.iter().map(|(name, facts)| (name.to_string(), facts.to_input(name))).collect();
        let specialisation = |(name, wanted): (&MachineName, &Fact<String>)| {
            (name.to_string(), wanted.to_input(&format!("specialisations.{name}")))
        };
        let specialisations: serde_json::Map<_, _> =
            self.specialisations.iter().map(specialisation).collect();
        json!({
            "spec": spec,
            "deployment": { "name": self.deployment_name, "uuid": self.uuid.to_input("the deployment's id") },
            "machines": machines,
            "arguments": self.arguments,
            "resources": self.resources,
            "specialisations": specialisations,
            "options": self.options,
        })
    }
}

impl MachineFacts {
    fn to_input(&self, name: &MachineName) -> Value {
        let origin = |fact: &str| format!("machines.{name}.{fact}");
        json!({
            "host": self.host.to_input(&origin("host")),
            "port": self.port.to_input(&origin("port")),
            "public_ipv4": self.public_ipv4.to_input(&origin("public_ipv4")),
            "private_ipv4": self.private_ipv4.to_input(&origin("private_ipv4")),
            "public_ipv6": self.public_ipv6.to_input(&origin("public_ipv6")),
            "host_public_key": self.host_public_key.to_input(&origin("host_public_key")),
            "system": self.system.to_input(&origin("system")),
            "state_version": self.state_version.to_input(&origin("state_version")),
            "target_env": self.target_env.to_input(&origin("target_env")),
        })
    }
}

impl<T> Fact<T> {
    /// The value, where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Absent | Self::Unknown => None,
        }
    }
}

impl<T: Serialize> Fact<T> {
    fn to_input(&self, origin: &str) -> Value {
        match self {
            Self::Known(value) => json!(value),
            Self::Absent => Value::Null,
            Self::Unknown => unknown(origin),
        }
    }
}

impl<T> From<Option<T>> for Fact<T> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Absent, Self::Known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_facts_say_where_they_come_from() {
        let facts = MachineFacts { private_ipv4: Fact::Unknown, port: Fact::Known(22), ..Default::default() };
        let input = facts.to_input(&"db".parse().unwrap());
        assert_eq!(input["private_ipv4"], json!({ "__unknown": "machines.db.private_ipv4" }));
        assert_eq!(input["port"], json!(22));
        assert_eq!(input["host"], Value::Null);
    }

    #[test]
    fn local_flakes_become_absolute_and_keep_their_query() {
        let here = std::env::current_dir().unwrap();
        let resolved = Spec::Flake("./src?dir=x".into()).resolve().unwrap();
        assert_eq!(resolved, Spec::Flake(format!("{}?dir=x", here.join("src").display())));
        let remote = Spec::Flake("github:owner/repo?ref=main".into());
        assert_eq!(remote.resolve().unwrap(), remote);
        assert!(Spec::Flake("./missing".into()).resolve().is_err());
        assert!(Spec::Flake(String::new()).resolve().is_err());
    }

    #[test]
    fn a_link_to_a_path_that_is_no_text_is_an_error() {
        use std::os::unix::ffi::OsStrExt as _;
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9"));
        std::fs::create_dir(&real).unwrap();
        std::fs::write(real.join("network.nix"), "{ }").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let file = link.join("network.nix");
        for spec in [
            Spec::Network(vec![file.clone()]),
            Spec::Configuration(file),
            Spec::Flake(link.to_str().unwrap().to_owned()),
        ] {
            let error = spec.resolve().unwrap_err();
            assert!(matches!(error, SpecError::NotText(_)), "{error}");
        }
    }
}
