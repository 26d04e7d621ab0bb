//! What Terraform's state says of machines: where they are, and what was deployed on them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nixos_activator::MachineName;
use nixos_activator::Secret;
use nixos_activator::agent::DeploymentId;
use nixos_activator::ssh::{Bastion, Endpoint, HostKeyPolicy, Key};
use serde::Deserialize;

use crate::problem::Problem;

/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Where the state is.
#[derive(Debug, clap::Args)]
pub(crate) struct Source {
    /// The directory in which Terraform runs
    #[arg(long, short = 'C', value_name = "DIR", default_value = ".", global = true)]
    chdir: PathBuf,
    /// Only this deployment, e.g. `module.site.nixos_deployment.web`
    #[arg(long, value_name = "ADDRESS", global = true)]
    deployment: Option<String>,
    /// The private key to log in with, where the configuration has it as a value: those are not in state
    #[arg(long, short, value_name = "FILE", global = true)]
    identity: Option<PathBuf>,
    /// The user to log in as, where a machine names none. Default: root
    #[arg(long, value_name = "USER", global = true)]
    user: Option<String>,
    /// A further line for `ssh_config`, such as `ProxyJump=gate.example`
    #[arg(long, value_name = "KEYWORD=VALUE", global = true)]
    ssh_option: Vec<String>,
    /// The command that gives root to its arguments, where a machine names none, such as `sudo -n`
    #[arg(long, value_name = "COMMAND", value_delimiter = ' ', global = true)]
    elevate: Vec<String>,
    /// Ask for the password that this command wants
    #[arg(long, global = true)]
    ask_elevate_password: bool,
    /// Terraform or OpenTofu
    #[arg(long, value_name = "PROGRAM", env = "TERRAFORM", default_value = "terraform", global = true)]
    terraform: String,
}

/// A machine and what the state says it runs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Machine {
    pub(crate) name: MachineName,
    /// The address of its deployment.
    pub(crate) deployment: String,
    pub(crate) endpoint: Endpoint,
    /// The system that was deployed.
    pub(crate) toplevel: Option<String>,
    /// Who answers for its secrets: the identity of its deployment.
    pub(crate) owner: Option<DeploymentId>,
    /// What stands for each of its secrets.
    pub(crate) secrets: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct State {
    #[serde(default)]
    values: Values,
}

#[derive(Debug, Default, Deserialize)]
struct Values {
    #[serde(default)]
    root_module: Module,
}

#[derive(Debug, Default, Deserialize)]
struct Module {
    #[serde(default)]
    resources: Vec<Resource>,
    #[serde(default)]
    child_modules: Vec<Module>,
}

#[derive(Debug, Deserialize)]
struct Resource {
    address: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    mode: String,
    values: serde_json::Value,
}

/// What is of interest of a `nixos_deployment`.
#[derive(Debug, Deserialize)]
struct Deployment {
    id: Option<DeploymentId>,
    machines: BTreeMap<MachineName, Target>,
    systems: Option<BTreeMap<MachineName, System>>,
}

#[derive(Debug, Deserialize)]
struct System {
    toplevel: Option<String>,
    secrets: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
struct Target {
    host: String,
    port: Option<u16>,
    user: Option<String>,
    private_key_file: Option<PathBuf>,
    host_public_key: Option<String>,
    host_key_policy: Option<String>,
    bastion: Option<JumpHost>,
    options: Option<Vec<String>>,
    elevate: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct JumpHost {
    host: String,
    port: Option<u16>,
    user: Option<String>,
    private_key_file: Option<PathBuf>,
    host_public_key: Option<String>,
}

impl Source {
    /// The machines of the deployments in state, by name.
    pub(crate) async fn machines(&self) -> Result<Vec<Machine>, Problem> {
        let program = || self.terraform.clone();
        let output = tokio::process::Command::new(&self.terraform)
            .args(["show", "-json"])
            .current_dir(&self.chdir)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| Problem::NoTerraform { program: program(), reason: error.to_string() })?;
        if !output.status.success() {
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Problem::Terraform { program: program(), message });
        }
        let machines = read(&output.stdout, self.deployment.as_deref(), &self.defaults()?)?;
        if machines.is_empty() {
            let (directory, address) = (self.chdir.clone(), self.deployment.clone());
            return Err(Problem::NothingDeployed { directory, address });
        }
        Ok(machines)
    }

    fn defaults(&self) -> Result<Defaults, Problem> {
        let asked = self.ask_elevate_password.then(|| rpassword::prompt_password("Password for root: "));
        Ok(Defaults {
            user: self.user.clone(),
            identity: self.identity.clone(),
            options: self.ssh_option.clone(),
            elevate: self.elevate.clone(),
            elevate_password: asked.transpose().map_err(Problem::NoPassword)?.map(Secret::new),
        })
    }
}

/// What holds for machines that say nothing of it: the provider's own `ssh` block is not in state.
#[derive(Debug, Default)]
struct Defaults {
    user: Option<String>,
    identity: Option<PathBuf>,
    options: Vec<String>,
    elevate: Vec<String>,
    elevate_password: Option<Secret>,
}

/// Reads the output of `terraform show -json`.
fn read(json: &[u8], only: Option<&str>, defaults: &Defaults) -> Result<Vec<Machine>, Problem> {
    let state: State = serde_json::from_slice(json).map_err(|error| Problem::State(error.to_string()))?;
    let mut resources = vec![];
    collect(state.values.root_module, &mut resources);
    let mut machines: Vec<Machine> = vec![];
    for resource in resources {
        let wanted = only.is_none_or(|address| address == resource.address);
        if resource.kind != "nixos_deployment" || resource.mode != "managed" || !wanted {
            continue;
        }
        let problem = |error: serde_json::Error| Problem::State(format!("{}: {error}", resource.address));
        let deployment: Deployment = serde_json::from_value(resource.values).map_err(problem)?;
        let mut systems = deployment.systems.unwrap_or_default();
        for (name, target) in deployment.machines {
            if let Some(other) = machines.iter().find(|machine| machine.name == name) {
                let addresses = format!("{}, {}", other.deployment, resource.address);
                return Err(Problem::Twice { name, addresses });
            }
            let system = systems.remove(&name);
            let (toplevel, secrets) = system.map_or((None, None), |system| (system.toplevel, system.secrets));
            machines.push(Machine {
                toplevel,
                owner: deployment.id.clone(),
                secrets: secrets.unwrap_or_default(),
                deployment: resource.address.clone(),
                endpoint: target.endpoint(defaults),
                name,
            });
        }
    }
    machines.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(machines)
}

fn collect(module: Module, resources: &mut Vec<Resource>) {
    resources.extend(module.resources);
    module.child_modules.into_iter().for_each(|child| collect(child, resources));
}

impl Target {
    fn endpoint(self, defaults: &Defaults) -> Endpoint {
        let key = |file: Option<PathBuf>| {
            file.or_else(|| defaults.identity.clone()).map_or(Key::Ambient, Key::File)
        };
        Endpoint {
            host: self.host,
            port: self.port,
            user: self.user.or_else(|| defaults.user.clone()).unwrap_or_else(|| "root".to_owned()),
            key: key(self.private_key_file),
            host_public_key: self.host_public_key,
            host_key_policy: match self.host_key_policy.as_deref() {
                // Nothing is learned here, so there is nothing to pin.
                Some("off") => HostKeyPolicy::Off,
                _ => HostKeyPolicy::Strict,
            },
            bastion: self.bastion.map(|bastion| Bastion {
                host: bastion.host,
                port: bastion.port,
                user: bastion.user,
                key: key(bastion.private_key_file),
                host_public_key: bastion.host_public_key,
            }),
            options: [self.options.unwrap_or_default(), defaults.options.clone()].concat(),
            elevate: self.elevate.unwrap_or_else(|| defaults.elevate.clone()),
            elevate_password: defaults.elevate_password.clone(),
            connect_timeout: CONNECT,
            compress: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(resources: &serde_json::Value, children: &serde_json::Value) -> Vec<u8> {
        let root = serde_json::json!({ "resources": resources, "child_modules": children });
        serde_json::json!({ "values": { "root_module": root } }).to_string().into_bytes()
    }

    fn deployment(address: &str, name: &str) -> serde_json::Value {
        serde_json::json!({
            "address": address, "type": "nixos_deployment", "mode": "managed",
            "values": {
                "machines": { name: { "host": "h", "port": null, "user": "deploy", "elevate": ["sudo", "-n"] } },
                "systems": { name: { "toplevel": "/nix/store/x" } },
            },
        })
    }

    #[test]
    fn machines_of_all_modules_are_found() {
        let other = serde_json::json!({ "address": "aws_s3_bucket.a", "type": "aws_s3_bucket", "mode": "managed", "values": {} });
        let child = serde_json::json!([{ "resources": [deployment("module.a.nixos_deployment.d", "db")] }]);
        let text = state(&serde_json::json!([other, deployment("nixos_deployment.d", "web")]), &child);
        let machines = read(&text, None, &Defaults::default()).unwrap();
        let names: Vec<&str> = machines.iter().map(|machine| machine.name.as_str()).collect();
        assert_eq!(names, ["db", "web"]);
        let web = &machines[1];
        assert_eq!((web.endpoint.user.as_str(), web.toplevel.as_deref()), ("deploy", Some("/nix/store/x")));
        assert_eq!(web.endpoint.key, Key::Ambient);
        let defaults = Defaults {
            user: Some("admin".into()),
            identity: Some("/key".into()),
            options: vec!["ProxyJump=gate".into()],
            elevate: vec!["doas".into()],
            elevate_password: None,
        };
        let one = read(&text, Some("nixos_deployment.d"), &defaults).unwrap();
        assert_eq!(one.len(), 1);
        let Endpoint { user, key, options, elevate, .. } = &one[0].endpoint;
        assert_eq!((user.as_str(), elevate), ("deploy", &vec!["sudo".to_owned(), "-n".to_owned()]));
        assert_eq!((key, options), (&Key::File("/key".into()), &defaults.options));
    }

    #[test]
    fn a_name_that_two_deployments_use_is_not_guessed() {
        let two = serde_json::json!([
            deployment("nixos_deployment.a", "web"),
            deployment("nixos_deployment.b", "web")
        ]);
        let text = state(&two, &serde_json::json!([]));
        assert!(matches!(read(&text, None, &Defaults::default()), Err(Problem::Twice { .. })));
        assert!(read(&text, Some("nixos_deployment.b"), &Defaults::default()).is_ok());
    }

    #[test]
    fn no_state_is_no_machine() {
        assert!(read(b"{\"format_version\":\"1.0\"}", None, &Defaults::default()).unwrap().is_empty());
        assert!(matches!(read(b"nonsense", None, &Defaults::default()), Err(Problem::State(_))));
    }
}
