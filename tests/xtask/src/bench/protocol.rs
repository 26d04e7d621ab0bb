//! What the protocol costs by itself: a resource with a map of machines and a map of what they run, made and changed
//! under real Terraform, against Terraform's own `terraform_data` with the same map in the same minute.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{median, millis};
use crate::build::{cargo, run, target};
use crate::{TaskError, setup};

const SIZES: [usize; 4] = [1, 10, 100, 1000];
const RUNS: usize = 5;

/// Measures, and prints.
pub(crate) fn bench() -> Result<(), TaskError> {
    let terraform = e2e::terraform()?;
    setup::setup()?;
    let mut build =
        cargo(&["build", "--quiet", "--locked", "--release", "-p", "tfplugin", "--example", "kitchen"]);
    run(&mut build, "building the example")?;
    println!(
        "\nprotocol alone, median of {RUNS}      schema   plan, new   apply, new   plan, same   apply, \
         changed   provider's memory"
    );
    for size in SIZES {
        let ours = measure(&terraform, size, Kind::Ours)?;
        let theirs = measure(&terraform, size, Kind::Terraform)?;
        println!("{size:>4} machines, through tfplugin {}", ours.line());
        println!("     the same in terraform_data  {}", theirs.line());
    }
    Ok(())
}

/// What carries the map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Terraform,
}

/// Medians, and the most memory that any process of the provider needed.
struct Figures {
    times: [Duration; 5],
    memory_kib: Option<u64>,
}

impl Figures {
    fn line(&self) -> String {
        let [schema, plan, apply, same, change] = self.times.map(millis);
        let memory = self.memory_kib.map_or("-".to_owned(), |kib| format!("{} MiB", kib / 1024));
        format!(
            "{schema:>6.0} ms {plan:>8.0} ms {apply:>9.0} ms {same:>9.0} ms {change:>13.0} ms {memory:>16}"
        )
    }
}

fn measure(terraform: &Path, size: usize, kind: Kind) -> Result<Figures, TaskError> {
    let mut columns: [Vec<Duration>; 5] = Default::default();
    let mut memory_kib = None;
    for _ in 0..RUNS {
        let here = Site::new(terraform, size, kind)?;
        columns[0].push(here.terraform(&["providers", "schema", "-json"])?);
        columns[1].push(here.terraform(&["plan", "-refresh=false"])?);
        columns[2].push(here.terraform(&["apply", "-auto-approve"])?);
        columns[3].push(here.terraform(&["plan"])?);
        columns[4].push(here.terraform(&["apply", "-auto-approve", "-var", "order=second"])?);
        memory_kib = memory_kib.max(here.memory());
    }
    Ok(Figures { times: columns.map(median), memory_kib })
}

/// A directory of its own.
struct Site {
    directory: tempfile::TempDir,
    terraform: PathBuf,
}

impl Site {
    fn new(terraform: &Path, size: usize, kind: Kind) -> Result<Self, TaskError> {
        let failed = || TaskError::io("the directory of the benchmark");
        let directory = tempfile::tempdir().map_err(failed())?;
        let path = |name: &str| directory.path().join(name);
        std::fs::create_dir(path("bin")).map_err(failed())?;
        let program = std::fs::canonicalize(target().join("release/examples/kitchen"));
        std::os::unix::fs::symlink(program.map_err(failed())?, path("bin/terraform-provider-kitchen"))
            .map_err(failed())?;
        let config = format!(
            "provider_installation {{\n  dev_overrides {{ \"example/kitchen\" = \"{}\" }}\n}}\n",
            path("bin").display()
        );
        std::fs::write(path("terraform.rc"), config).map_err(failed())?;
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTyvGbZ3pAkVHcNNoWqDgkwrxXbBuZSvXxgrBmX1234";
        let machines = format!(
            "{{ for n in range({size}) : \"machine-${{n}}\" => {{ host = \"192.0.2.${{n % 250}}\", port = \
             22, user = \"root\", host_public_key = \"{key}\" }} }}"
        );
        let resource = match kind {
            Kind::Ours => format!(
                "resource \"kitchen_brigade\" \"all\" {{\n  order = var.order\n  machines = {machines}\n}}\n"
            ),
            Kind::Terraform => {
                format!(
                    "resource \"terraform_data\" \"all\" {{\n  input = {{ order = var.order, machines = \
                     {machines} }}\n}}\n"
                )
            }
        };
        let provider = match kind {
            Kind::Ours => {
                "terraform {\n  required_providers { kitchen = { source = \"example/kitchen\" } }\n}\n"
            }
            Kind::Terraform => "",
        };
        let main = format!("{provider}variable \"order\" {{ default = \"first\" }}\n{resource}");
        std::fs::write(path("main.tf"), main).map_err(failed())?;
        Ok(Self { terraform: terraform.to_owned(), directory })
    }

    fn terraform(&self, arguments: &[&str]) -> Result<Duration, TaskError> {
        let here = self.directory.path();
        let start = Instant::now();
        let output = Command::new(&self.terraform)
            .args(arguments)
            .current_dir(here)
            .env("TF_CLI_CONFIG_FILE", here.join("terraform.rc"))
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_IN_AUTOMATION", "1")
            .env("KITCHEN_REPORT", here.join("memory"))
            .stdin(Stdio::null())
            .output()
            .map_err(TaskError::io(self.terraform.display()))?;
        let took = start.elapsed();
        if output.status.success() {
            return Ok(took);
        }
        Err(TaskError::Failed(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()))
    }

    fn memory(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.directory.path().join("memory")).ok()?;
        text.lines().filter_map(|line| line.trim().parse().ok()).max()
    }
}
