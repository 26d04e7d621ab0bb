//! A lab with Terraform and the provider on its control host: what the end-to-end tests and the demo stand on.

mod cloud;
mod weather;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use cloud::{Cloud, PYTHON, PYTHON_PACKAGES};
use lab::{HostOptions, Lab, LabError};
pub use weather::{Storm, Weather};

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where the provider stands on the control host, as `terraform init` finds it.
pub const MIRROR: &str = "/opt/mirror";

/// Where the command line is put, below the repository.
pub const COMMAND_LINE: &str = "target/bin/nixos-activator";

/// The provider's address.
pub const SOURCE: &str = "registry.terraform.io/terraform-provider-nixos/nixos";

/// Why there is no world to test in.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// There is no Terraform.
    #[error(
        "neither `terraform` nor `tofu` is on PATH; install one of them, or say where it is: \
         TERRAFORM=/path/to/terraform"
    )]
    NoTerraform,
    /// The provider was not put into its mirror.
    #[error("the provider is not in {0}: run the tests by `cargo xtask test`, or `cargo xtask build` first")]
    NoProvider(PathBuf),
    /// The stand-in for AWS was not installed.
    #[error("{0} is not there: run the tests by `cargo xtask test`, or `cargo xtask setup` first")]
    NoMoto(PathBuf),
    /// It does not answer.
    #[error("the moto server does not answer")]
    NoAnswer,
}

/// A lab with Terraform on `control`.
#[derive(Debug)]
pub struct World {
    /// The hosts.
    pub lab: Arc<Lab>,
}

/// What a Terraform command did.
#[derive(Debug)]
pub struct Run {
    /// Exit code; -1 when a signal ended it.
    pub code: i32,
    /// Everything it printed, both streams, without colours.
    pub text: String,
    /// How long it took.
    pub took: Duration,
}

/// The directory on control in which Terraform runs.
pub const DIRECTORY: &str = "/root/site";

impl World {
    /// Boots `control` and the named hosts.
    pub fn boot(hosts: &[&str], progress: &dyn Fn(&str)) -> Result<Self, WorldError> {
        let hosts: Vec<_> = hosts.iter().map(|name| (*name, HostOptions::default())).collect();
        Self::boot_with(&hosts, progress)
    }

    /// The same with hosts of special kinds.
    pub fn boot_with(hosts: &[(&str, HostOptions)], progress: &dyn Fn(&str)) -> Result<Self, WorldError> {
        let root = repository();
        let mirror = root.join("target/mirror");
        if !mirror.join(SOURCE).is_dir() {
            return Err(WorldError::NoProvider(mirror));
        }
        let terraform = terraform()?;
        let binds = vec![
            (mirror, MIRROR.into()),
            (terraform, "/usr/local/bin/terraform".into()),
            (root.join(COMMAND_LINE), "/usr/local/bin/nixos-activator".into()),
        ];
        let binds = binds.into_iter().map(|(here, there)| (canonical(&here), there)).collect();
        let fixture = root.join("tests/fixtures/mini-nixos");
        let mut builder = Lab::builder(&root.join("target/lab"), &fixture)
            .on_progress(progress)
            .host_with("control", HostOptions { binds, ..HostOptions::default() });
        for (name, options) in hosts {
            builder = builder.host_with(name, options.clone());
        }
        let world = Self { lab: Arc::new(builder.boot()?) };
        let control = world.lab.control();
        control.copy_in(&fixture, "/root/mini-nixos")?;
        let config = format!(
            "disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{ path = \
             \"{MIRROR}\" }}\n}}\n"
        );
        control.write_file("/root/.terraformrc", config)?;
        control.write_file(&format!("{DIRECTORY}/.keep"), "")?;
        Ok(world)
    }

    /// Writes a file into Terraform's directory.
    pub fn write(&self, name: &str, content: &str) -> Result<(), WorldError> {
        Ok(self.lab.control().write_file(&format!("{DIRECTORY}/{name}"), content)?)
    }

    /// Copies an example into Terraform's directory and says where the hosts are.
    pub fn use_example(&self, name: &str) -> Result<(), WorldError> {
        self.lab.control().copy_in(&repository().join("terraform-examples").join(name), DIRECTORY)?;
        self.write("terraform.tfvars.json", &self.machines(&["db", "web"]))
    }

    /// `{"machines": …}` as the quickstart wants it.
    pub fn machines(&self, names: &[&str]) -> String {
        let machines: serde_json::Map<_, _> = names
            .iter()
            .map(|name| {
                let host = self.lab.host(name);
                let machine = serde_json::json!({ "host": host.address().to_string(), "host_public_key": host.host_public_key() });
                ((*name).to_owned(), machine)
            })
            .collect();
        serde_json::json!({ "machines": machines }).to_string()
    }

    /// A Terraform command in that directory, for those who want to signal it or see its streams.
    pub fn terraform_command(
        &self,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> std::process::Command {
        let environment: Vec<String> =
            environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let chdir = format!("-chdir={DIRECTORY}");
        let mut words =
            vec!["env", "NIX_PATH=nixpkgs=/root/mini-nixos", "TF_IN_AUTOMATION=1", "TF_CLI_ARGS=-no-color"];
        words.extend(environment.iter().map(String::as_str));
        words.extend(["terraform", &chdir]);
        words.extend(arguments);
        self.lab.control().command(&words)
    }

    /// Runs Terraform to its end.
    pub fn terraform(&self, arguments: &[&str]) -> Run {
        self.terraform_with(&[], arguments)
    }

    /// The same with more environment.
    pub fn terraform_with(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Run {
        let start = Instant::now();
        let output = self.terraform_command(environment, arguments).output();
        Run::new(output, start.elapsed())
    }

    /// `terraform show -json` of the state.
    pub fn state(&self) -> serde_json::Value {
        serde_json::from_str(&self.terraform(&["show", "-json"]).text).unwrap_or_default()
    }

    /// The attributes of a resource in state.
    pub fn resource(&self, address: &str) -> serde_json::Value {
        let state = self.state();
        let resources = state["values"]["root_module"]["resources"].as_array().cloned().unwrap_or_default();
        let found = resources.into_iter().find(|resource| resource["address"] == address);
        found.map(|resource| resource["values"].clone()).unwrap_or_default()
    }

    /// A plan as `terraform show -json` tells it.
    pub fn plan_json(&self) -> serde_json::Value {
        let plan = self.terraform(&["plan", "-input=false", "-out=plan.bin"]);
        if plan.code != 0 {
            return serde_json::Value::String(plan.text);
        }
        serde_json::from_str(&self.terraform(&["show", "-json", "plan.bin"]).text).unwrap_or_default()
    }

    /// The system a host really runs.
    pub fn current_system(&self, host: &str) -> String {
        let finished = self.lab.host(host).exec(&["readlink", "-f", "/run/current-system"]);
        finished.map(|finished| finished.stdout.trim().to_owned()).unwrap_or_default()
    }
}

impl Run {
    fn new(output: std::io::Result<Output>, took: Duration) -> Self {
        match output {
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                Self {
                    code: output.status.code().unwrap_or(-1),
                    text: String::from_utf8_lossy(&text).into_owned(),
                    took,
                }
            }
            Err(error) => Self { code: -1, text: error.to_string(), took },
        }
    }
}

/// Terraform, or OpenTofu: what `TERRAFORM` says, else what is on PATH.
pub fn terraform() -> Result<PathBuf, WorldError> {
    if let Some(path) = std::env::var_os("TERRAFORM").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(canonical(&path)) } else { Err(WorldError::NoTerraform) };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["terraform", "tofu"]
        .iter()
        .flat_map(|program| std::env::split_paths(&path).map(move |directory| directory.join(program)))
        .find(|program| program.is_file())
        .map(|program| canonical(&program))
        .ok_or(WorldError::NoTerraform)
}

fn canonical(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}
