//! Terraform with the provider that was just built, and nothing from elsewhere: its programs answer here what they
//! answer a user.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use tempfile::TempDir;

use super::schema::ProviderSchema;
use crate::TaskError;

/// What a configuration says that says nothing about providers.
pub(crate) const REQUIREMENT: &str = "terraform {
  required_providers {
    nixos = { source = \"terraform-provider-nixos/nixos\" }
  }
}
";

/// The first version that tells all that pages have.
const OLDEST: (u32, u32) = (1, 11);

/// A directory in which `terraform init` has been run. Every configuration of ours is validated with what it has
/// installed, because installing takes longer than validating.
#[derive(Debug)]
pub(crate) struct Terraform {
    program: PathBuf,
    directory: TempDir,
}

/// What `terraform validate -json` has to say about one place.
#[derive(Debug, Deserialize)]
pub(crate) struct Diagnostic {
    pub(crate) severity: String,
    pub(crate) summary: String,
    #[serde(default)]
    pub(crate) detail: String,
    pub(crate) range: Option<Range>,
    pub(crate) snippet: Option<Code>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Range {
    pub(crate) filename: String,
    pub(crate) start: Position,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Position {
    pub(crate) line: usize,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Code {
    pub(crate) code: String,
}

impl Terraform {
    /// Installs the provider from the mirror.
    pub(crate) fn start() -> Result<Self, TaskError> {
        let mirror = e2e::repository().join("target/mirror");
        let mirror = std::fs::canonicalize(&mirror).map_err(TaskError::io(mirror.display()))?;
        let directory = tempfile::tempdir().map_err(TaskError::io("a temporary directory"))?;
        let terraform = Self { program: e2e::terraform()?, directory };
        let config = format!(
            "disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{ path = {:?} \
             }}\n}}\n",
            mirror.display().to_string()
        );
        let root = terraform.directory.path();
        write(&root.join("terraform.rc"), config)?;
        terraform.check_version()?;
        write(&root.join("terraform.tf"), REQUIREMENT)?;
        terraform.run(root, &["init", "-no-color", "-input=false"])?;
        Ok(terraform)
    }

    /// Older ones know no functions, ephemeral resources and write-only attributes, so that pages would lack them.
    fn check_version(&self) -> Result<(), TaskError> {
        #[derive(Deserialize)]
        struct Document {
            terraform_version: String,
        }
        let output = self.run(self.directory.path(), &["version", "-json"])?;
        let Document { terraform_version: version } = serde_json::from_slice(&output.stdout)
            .map_err(|error| TaskError::Failed(format!("terraform version -json: {error}")))?;
        let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
        if (parts.next(), parts.next()) < (Some(OLDEST.0), Some(OLDEST.1)) {
            return Err(TaskError::Failed(format!(
                "documentation is made and checked with Terraform {}.{} or later; {} is {version}",
                OLDEST.0,
                OLDEST.1,
                self.program.display()
            )));
        }
        Ok(())
    }

    /// The schemas of the provider.
    pub(crate) fn schema(&self) -> Result<ProviderSchema, TaskError> {
        #[derive(Deserialize)]
        struct Document {
            provider_schemas: std::collections::BTreeMap<String, ProviderSchema>,
        }
        let output = self.run(self.directory.path(), &["providers", "schema", "-json"])?;
        let document: Document = serde_json::from_slice(&output.stdout)
            .map_err(|error| TaskError::Failed(format!("terraform providers schema -json: {error}")))?;
        let (_, schema) = document.provider_schemas.into_iter().next().ok_or_else(|| {
            TaskError::Failed("terraform providers schema -json printed no provider".to_owned())
        })?;
        Ok(schema)
    }

    /// A place for a configuration, with what `terraform init` would leave in it.
    pub(crate) fn module(&self, name: &str) -> Result<PathBuf, TaskError> {
        const LOCK: &str = ".terraform.lock.hcl";
        let module = self.modules().join(name);
        std::fs::create_dir_all(&module).map_err(TaskError::io(module.display()))?;
        let lock = self.directory.path().join(LOCK);
        std::fs::copy(&lock, module.join(LOCK)).map_err(TaskError::io(lock.display()))?;
        Ok(module)
    }

    /// What `terraform validate` has to say, warnings too.
    pub(crate) fn validate(&self, module: &Path) -> Result<Vec<Diagnostic>, TaskError> {
        #[derive(Deserialize)]
        struct Document {
            diagnostics: Vec<Diagnostic>,
        }
        let output = self.output(module, &["validate", "-json"])?;
        let document: Document = serde_json::from_slice(&output.stdout).map_err(|error| {
            TaskError::Failed(format!(
                "terraform validate: {error}\n{}",
                String::from_utf8_lossy(&output.stderr)
            ))
        })?;
        Ok(document.diagnostics)
    }

    /// The files of all modules that are not formatted as `terraform fmt` does it.
    pub(crate) fn unformatted(&self) -> Result<Vec<PathBuf>, TaskError> {
        let modules = self.modules();
        let output = self.output(&modules, &["fmt", "-check", "-recursive"])?;
        // 3 is what it ends with when it has something to list.
        if !matches!(output.status.code(), Some(0 | 3)) {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(TaskError::Failed(format!("terraform fmt failed:\n{}", said.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(|line| modules.join(line)).collect())
    }

    /// How `terraform fmt` would change a file: the hunks of a diff.
    pub(crate) fn format_changes(&self, file: &Path) -> Result<String, TaskError> {
        let name = file.display().to_string();
        let output = self.output(&self.modules(), &["fmt", "-check", "-diff", &name])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().skip_while(|line| !line.starts_with("@@")).map(|line| format!("{line}\n")).collect())
    }

    fn modules(&self) -> PathBuf {
        self.directory.path().join("modules")
    }

    fn run(&self, directory: &Path, arguments: &[&str]) -> Result<Output, TaskError> {
        let output = self.output(directory, arguments)?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(TaskError::Failed(format!("terraform {} failed:\n{said}", arguments.join(" "))))
    }

    fn output(&self, directory: &Path, arguments: &[&str]) -> Result<Output, TaskError> {
        let root = self.directory.path();
        let mut command = Command::new(&self.program);
        // What a user has set for their own work is not asked.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TF_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(directory)
            .args(arguments)
            .env("TF_CLI_CONFIG_FILE", root.join("terraform.rc"))
            .env("TF_DATA_DIR", root.join(".terraform"))
            .env("TF_IN_AUTOMATION", "1")
            .output()
            .map_err(TaskError::io(self.program.display()))
    }
}

pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<(), TaskError> {
    std::fs::write(path, content).map_err(TaskError::io(path.display()))
}
