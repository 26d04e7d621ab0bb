//! A place where Terraform runs, and what it said.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;

/// A directory with a configuration, and the examples where Terraform finds them.
pub(crate) struct Site {
    pub(crate) directory: TempDir,
    /// Set where a provider is attached to.
    pub(crate) reattach: Option<String>,
}

/// What Terraform did.
pub(crate) struct Run {
    code: i32,
    pub(crate) text: String,
}

const HEAD: &str = r#"
terraform {
  required_providers {
    kitchen = { source = "example/kitchen" }
  }
}
provider "kitchen" { shelf = "shelf.json" }
"#;

/// An example that cargo has built beside this test.
pub(crate) fn example(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let directory = here.ancestors().find(|path| path.join("examples").is_dir()).unwrap();
    let program = directory.join("examples").join(name);
    assert!(program.is_file(), "{} is built by `cargo test -p tfplugin` as a whole", program.display());
    program
}

fn terraform() -> PathBuf {
    std::env::var_os("TERRAFORM").filter(|path| !path.is_empty()).map_or("terraform".into(), PathBuf::from)
}

impl Site {
    /// With this configuration below what every one begins with.
    pub(crate) fn new(main: &str) -> Self {
        let site = Self { directory: tempfile::tempdir().unwrap(), reattach: None };
        fs::create_dir(site.path("bin")).unwrap();
        std::os::unix::fs::symlink(example("kitchen"), site.path("bin/terraform-provider-kitchen")).unwrap();
        let overrides = site.path("bin");
        let config = format!(
            "provider_installation {{\n  dev_overrides {{ \"example/kitchen\" = \"{}\" }}\n}}\n",
            overrides.display()
        );
        fs::write(site.path("terraform.rc"), config).unwrap();
        site.write(main);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write(&self, main: &str) {
        fs::write(self.path("main.tf"), format!("{HEAD}{main}")).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(terraform());
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env("TF_CLI_CONFIG_FILE", self.path("terraform.rc"))
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_IN_AUTOMATION", "1")
            .env("TF_CLI_ARGS", "-no-color")
            .env_remove("TF_LOG")
            .env_remove("TF_LOG_PROVIDER")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(reattach) = &self.reattach {
            command.env("TF_REATTACH_PROVIDERS", reattach);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    #[track_caller]
    pub(crate) fn apply(&self) -> Run {
        self.run(&["apply", "-auto-approve", "-input=false"]).succeeds()
    }

    #[track_caller]
    pub(crate) fn no_changes(&self) {
        let run = self.run(&["plan", "-input=false", "-detailed-exitcode"]);
        assert_eq!(run.code, 0, "nothing was to be done:\n{}", run.text);
    }

    /// What is really there.
    pub(crate) fn shelf(&self) -> Json {
        serde_json::from_slice(&fs::read(self.path("shelf.json")).unwrap_or_default()).unwrap_or_default()
    }

    pub(crate) fn done(&self) -> Vec<String> {
        serde_json::from_value(self.shelf()["done"].clone()).unwrap_or_default()
    }

    /// The attributes of a resource in state.
    pub(crate) fn resource(&self, address: &str) -> Json {
        let state: Json = serde_json::from_str(&self.run(&["show", "-json"]).text).unwrap_or_default();
        let resources = state["values"]["root_module"]["resources"].as_array().cloned().unwrap_or_default();
        let found = resources.into_iter().find(|resource| resource["address"] == address);
        found.map(|resource| resource["values"].clone()).unwrap_or_default()
    }

    pub(crate) fn state_file(&self) -> String {
        fs::read_to_string(self.path("terraform.tfstate")).unwrap_or_default()
    }
}

impl Run {
    pub(crate) fn of(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        Self { code: output.status.code().unwrap_or(-1), text: String::from_utf8_lossy(&text).into_owned() }
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "terraform was to succeed:\n{}", self.text);
        self
    }

    #[track_caller]
    pub(crate) fn fails(self) -> Self {
        assert_eq!(self.code, 1, "terraform was to fail:\n{}", self.text);
        self
    }

    /// Line breaks and the frame that Terraform draws do not count.
    #[track_caller]
    pub(crate) fn says(self, texts: &[&str]) -> Self {
        let flat = self.text.replace(['│', '╷', '╵'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
        for text in texts {
            assert!(flat.contains(text), "terraform was to say {text:?}:\n{}", self.text);
        }
        self
    }
}

/// A process that does not outlive its test.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[track_caller]
pub(crate) fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}
