//! The examples under a real Terraform (or OpenTofu: `TERRAFORM=/path/to/it`).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../examples/kitchen/provider/mod.rs"]
mod provider;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use provider::Kitchen;
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// A directory with a configuration, and the examples where Terraform finds them.
struct Site {
    directory: TempDir,
    /// Set where a provider is attached to.
    reattach: Option<String>,
}

/// What Terraform did.
struct Run {
    code: i32,
    text: String,
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
fn example(name: &str) -> PathBuf {
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
    fn new(main: &str) -> Self {
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

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, main: &str) {
        fs::write(self.path("main.tf"), format!("{HEAD}{main}")).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
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

    fn run(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    #[track_caller]
    fn apply(&self) -> Run {
        self.run(&["apply", "-auto-approve", "-input=false"]).succeeds()
    }

    #[track_caller]
    fn no_changes(&self) {
        let run = self.run(&["plan", "-input=false", "-detailed-exitcode"]);
        assert_eq!(run.code, 0, "nothing was to be done:\n{}", run.text);
    }

    /// What is really there.
    fn shelf(&self) -> Json {
        serde_json::from_slice(&fs::read(self.path("shelf.json")).unwrap_or_default()).unwrap_or_default()
    }

    fn done(&self) -> Vec<String> {
        serde_json::from_value(self.shelf()["done"].clone()).unwrap_or_default()
    }

    /// The attributes of a resource in state.
    fn resource(&self, address: &str) -> Json {
        let state: Json = serde_json::from_str(&self.run(&["show", "-json"]).text).unwrap_or_default();
        let resources = state["values"]["root_module"]["resources"].as_array().cloned().unwrap_or_default();
        let found = resources.into_iter().find(|resource| resource["address"] == address);
        found.map(|resource| resource["values"].clone()).unwrap_or_default()
    }

    fn state_file(&self) -> String {
        fs::read_to_string(self.path("terraform.tfstate")).unwrap_or_default()
    }
}

impl Run {
    fn of(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        Self { code: output.status.code().unwrap_or(-1), text: String::from_utf8_lossy(&text).into_owned() }
    }

    #[track_caller]
    fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "terraform was to succeed:\n{}", self.text);
        self
    }

    #[track_caller]
    fn fails(self) -> Self {
        assert_eq!(self.code, 1, "terraform was to fail:\n{}", self.text);
        self
    }

    /// Line breaks and the frame that Terraform draws do not count.
    #[track_caller]
    fn says(self, texts: &[&str]) -> Self {
        let flat = self.text.replace(['│', '╷', '╵'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
        for text in texts {
            assert!(flat.contains(text), "terraform was to say {text:?}:\n{}", self.text);
        }
        self
    }
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[track_caller]
fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_small_example_is_installed_and_lives_its_life() {
    let directory = tempfile::tempdir().unwrap();
    let here = |name: &str| directory.path().join(name);
    let package = here("mirror/registry.terraform.io/example/files/1.2.3").join(platform());
    fs::create_dir_all(&package).unwrap();
    fs::copy(example("files"), package.join("terraform-provider-files_v1.2.3")).unwrap();
    let mirror = here("mirror");
    let config =
        format!("provider_installation {{\n  filesystem_mirror {{ path = \"{}\" }}\n}}\n", mirror.display());
    fs::write(here("terraform.rc"), config).unwrap();
    let site = Site { directory, reattach: None };
    let head = "terraform {\n  required_providers { files = { source = \"example/files\", version = \"~> 1.2\" } }\n}\n";
    let write = |body: &str| fs::write(site.path("main.tf"), format!("{head}{body}")).unwrap();
    let file = |content: &str| {
        format!(
            "resource \"files_file\" \"a\" {{\n  path = \"a.txt\"\n  content = {content:?}\n}}\noutput \"size\" {{ value = files_file.a.size }}\n"
        )
    };

    write(&file("one"));
    site.run(&["init"]).succeeds().says(&["Installed example/files v1.2.3"]);
    site.apply().says(&["size = 3"]);
    write(&file("three"));
    site.apply().says(&["1 changed", "size = 5"]);
    assert_eq!(fs::read_to_string(site.path("a.txt")).unwrap(), "three");
    site.no_changes();

    fs::remove_file(site.path("a.txt")).unwrap();
    site.run(&["plan"]).succeeds().says(&["1 to add"]);
    site.apply();

    // Forgotten, and found again.
    write("removed {\n  from = files_file.a\n  lifecycle { destroy = false }\n}\n");
    site.apply();
    assert!(site.path("a.txt").exists(), "what is forgotten is not destroyed");
    write("import {\n  to = files_file.a\n  id = \"a.txt\"\n}\n");
    site.run(&["plan", "-generate-config-out=generated.tf"]).succeeds().says(&["1 to import, 0 to add"]);
    let generated = fs::read_to_string(site.path("generated.tf")).unwrap();
    assert!(generated.contains("three") && !generated.contains("size"), "{generated}");
    site.apply();
    site.no_changes();
    site.run(&["destroy", "-auto-approve"]).succeeds();
    assert!(!site.path("a.txt").exists());
}

fn platform() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux_arm64" } else { "linux_amd64" }
}

#[test]
fn a_pot_with_everything_comes_changes_and_goes() {
    let pot = |size: u32, tags: &str, weight: u32| {
        format!(
            r#"resource "kitchen_pot" "wok" {{
                 name = "e\u0301tuve"
                 size = {size}
                 tags = [{tags}]
                 any  = {{ pi = 3.14159265358979323846264338327950288, list = [1, "x", null] }}
                 parts = {{ handle = {{ kind = "long", weight = {weight} }} }}
                 lids  = [{{ kind = "steel" }}, {{ kind = "glass", weight = 2 }}]
                 rule {{ of = "thumb" }}
                 dynamic "rule" {{
                   for_each = toset(["two"])
                   content {{ of = rule.value }}
                 }}
               }}"#
        )
    };
    let site = Site::new(&pot(3, "\"b\", \"a\"", 1));
    site.apply();
    site.no_changes();
    let state = site.resource("kitchen_pot.wok");
    assert_eq!(state["name"], "étuve", "strings are in normal form C");
    assert_eq!(state["parts"]["handle"]["serial"], "étuve/long");
    assert_eq!(state["tags"], json!(["a", "b"]));
    assert_eq!(state["rule"], json!([{ "of": "thumb" }, { "of": "two" }]));
    assert!(site.state_file().contains("3.14159265358979323846264338327950288"), "every digit is kept");
    // The order of a set is no difference; a weight is a change; another kind is another pot.
    site.write(&pot(3, "\"a\", \"b\"", 1));
    site.no_changes();
    site.write(&pot(4, "\"a\"", 2));
    site.apply().says(&["0 added, 1 changed"]);
    site.no_changes();
    site.write(&pot(4, "\"a\"", 2).replace("long", "short"));
    site.run(&["plan"]).succeeds().says(&["forces replacement", "1 to add, 0 to change, 1 to destroy"]);
    site.apply();
    site.no_changes();
    site.run(&["destroy", "-auto-approve"]).succeeds();
    assert_eq!(site.shelf()["pots"], json!({}));
}

#[test]
fn what_is_null_or_unknown_keeps_its_type_where_any_may_be() {
    let site = Site::new(
        r#"
        resource "terraform_data" "x" {}
        resource "kitchen_pot" "null" {
          name = "null"
          any  = tostring(null)
        }
        resource "kitchen_pot" "unknown" {
          name = "unknown"
          any  = terraform_data.x.id
        }
        "#,
    );
    site.apply();
    site.no_changes();
    assert_eq!(site.resource("kitchen_pot.unknown")["any"], site.resource("terraform_data.x")["id"]);
}

#[test]
fn functions_are_called() {
    let site = Site::new(
        r#"
        output "same" { value = provider::kitchen::echo({ a = [1, 0.1, "x", null], b = tomap({ k = toset(["z", "y"]) }) }) == { a = [1, 0.1, "x", null], b = tomap({ k = toset(["z", "y"]) }) } }
        output "digits" { value = tostring(provider::kitchen::echo(1e40 + 0.1)) }
        output "joined" { value = provider::kitchen::join("-", 1, 2, 3) }
        "#,
    );
    site.apply().says(&[
        "same = true",
        "digits = \"10000000000000000000000000000000000000000.1\"",
        "joined = \"1-2-3\"",
    ]);
    site.write("output \"x\" { value = provider::kitchen::join(\"-\", 1, 300) }");
    site.run(&["plan"]).fails().says(&["Invalid value for \"numbers\" parameter", "300"]);
    site.write("output \"x\" { value = provider::kitchen::burn(\"everything\") }");
    site.run(&["plan"]).fails().says(&["CallFunction of burn panicked"]);
}

#[test]
fn an_ephemeral_value_goes_into_a_write_only_attribute_and_nowhere_else() {
    let site = Site::new(
        r#"
        ephemeral "kitchen_fire" "camp" { fuel = "wood" }
        resource "kitchen_pot" "wok" {
          name           = "wok"
          secret         = ephemeral.kitchen_fire.camp.heat
          secret_version = 1
        }
        "#,
    );
    let secret = "heat of wood";
    site.run(&["plan", "-out=saved.plan"]).succeeds();
    let apply = site.command(&["apply", "saved.plan"]).env("TF_LOG_PROVIDER", "TRACE").output().unwrap();
    let apply = Run::of(apply).succeeds();
    assert_eq!(site.shelf()["pots"]["wok"]["secret_length"], secret.len());
    let done = site.done();
    assert!(done.contains(&"open wood".to_owned()) && done.contains(&"close wood".to_owned()), "{done:?}");
    for (what, text) in [("state", site.state_file()), ("log", apply.text)] {
        assert!(!text.contains(secret), "the secret is in the {what}");
    }
    let plan = site.run(&["show", "-json", "saved.plan"]).text;
    assert!(!plan.contains(secret), "the secret is in the plan");
    site.no_changes();
}

#[test]
fn what_is_open_is_renewed_while_a_run_lasts() {
    let site = Site::new(
        r#"
        ephemeral "kitchen_fire" "camp" {
          fuel  = "wood"
          renew = true
        }
        resource "terraform_data" "slow" {
          provisioner "local-exec" {
            command     = "sleep 2"
            environment = { HEAT = ephemeral.kitchen_fire.camp.heat }
          }
        }
        "#,
    );
    site.apply();
    let done = site.done();
    assert!(done.contains(&"renew wood".to_owned()), "{done:?}");
    // Terraform 1.11 closes with what opening has left, not with what the last renewal has.
    assert_eq!(done.last().map(|last| last.starts_with("close wood")), Some(true), "{done:?}");
}

#[test]
fn what_was_of_another_type_is_moved() {
    let site = Site::new("resource \"kitchen_kettle\" \"old\" { name = \"wok\" }");
    site.apply();
    site.write(
        "resource \"kitchen_pot\" \"new\" { name = \"wok\" }\nmoved {\n  from = kitchen_kettle.old\n  to = kitchen_pot.new\n}",
    );
    site.apply().says(&["0 added, 0 changed, 0 destroyed"]);
    assert_eq!(site.resource("kitchen_pot.new")["id"], "pot:wok");
    site.no_changes();
    // What cannot be taken over is refused, and the state is as it was.
    site.write(
        "resource \"kitchen_rogue\" \"x\" { how = \"behave\" }\nmoved {\n  from = kitchen_pot.new\n  to = kitchen_rogue.x\n}",
    );
    site.run(&["plan"]).fails().says(&["kitchen_pot cannot become kitchen_rogue"]);
    // From another provider.
    let data = Site::new("resource \"terraform_data\" \"old\" { input = \"pan\" }");
    data.apply();
    fs::write(data.path("shelf.json"), json!({ "pots": { "pan": { "size": 1 } }, "done": [] }).to_string())
        .unwrap();
    data.write(
        "resource \"kitchen_pot\" \"new\" { name = \"pan\" }\nmoved {\n  from = terraform_data.old\n  to = kitchen_pot.new\n}",
    );
    data.apply().says(&["0 added, 0 changed, 0 destroyed"]);
    assert_eq!(data.resource("kitchen_pot.new")["name"], "pan");
}

#[test]
fn a_state_of_version_0_is_brought_up_to_date() {
    let site = Site::new("resource \"kitchen_pot\" \"wok\" {\n  name = \"wok\"\n  size = 3\n}");
    let state = json!({
        "version": 4, "terraform_version": "1.9.0", "serial": 1, "lineage": "x", "outputs": {},
        "resources": [{
            "mode": "managed", "type": "kitchen_pot", "name": "wok",
            "provider": "provider[\"registry.terraform.io/example/kitchen\"]",
            "instances": [{
                "schema_version": 0,
                "attributes": { "id": "pot:wok", "name": "wok", "litres": "3", "stamp": "s" }
            }]
        }]
    });
    fs::write(site.path("terraform.tfstate"), state.to_string()).unwrap();
    fs::write(site.path("shelf.json"), json!({ "pots": { "wok": { "size": 3 } }, "done": [] }).to_string())
        .unwrap();
    site.no_changes();
    site.run(&["apply", "-refresh-only", "-auto-approve"]).succeeds();
    let state: Json = serde_json::from_str(&site.state_file()).unwrap();
    assert_eq!(state["resources"][0]["instances"][0]["schema_version"], 1);
    assert_eq!(state["resources"][0]["instances"][0]["attributes"]["size"], 3);
    // What cannot be read is refused, not lost.
    let broken = site.state_file().replace("\"schema_version\": 1", "\"schema_version\": 0");
    fs::write(site.path("terraform.tfstate"), &broken).unwrap();
    site.run(&["plan"]).fails().says(&["This state is not of version 0"]);
    assert_eq!(site.state_file(), broken);
}

#[test]
fn an_import_block_writes_the_configuration() {
    let site = Site::new("import {\n  to = kitchen_pot.wok\n  id = \"wok\"\n}");
    let shelf = json!({ "pots": { "wok": { "size": 7, "metal": "iron" } }, "done": [] });
    fs::write(site.path("shelf.json"), shelf.to_string()).unwrap();
    site.run(&["plan", "-generate-config-out=generated.tf"]).succeeds().says(&["1 to import, 0 to add"]);
    site.apply().says(&["1 imported, 0 added, 0 changed"]);
    site.no_changes();
    site.run(&["import", "kitchen_pot.other", ""]).fails();
    site.write("import {\n  to = kitchen_pot.ghost\n  id = \"ghost\"\n}\nresource \"kitchen_pot\" \"ghost\" { name = \"ghost\" }");
    site.run(&["plan"]).fails().says(&["Cannot import non-existent remote object"]);
}

#[test]
fn modules_tell_what_they_cook() {
    let meta = "terraform {\n  provider_meta \"kitchen\" { recipe = \"soup\" }\n}\n";
    let site = Site::new(&format!("{meta}resource \"kitchen_pot\" \"wok\" {{ name = \"wok\" }}"));
    site.apply();
    assert!(site.done().contains(&"plan by soup".to_owned()), "{:?}", site.done());
}

#[test]
fn messages_stand_at_the_line_they_are_about() {
    let site = Site::new("resource \"kitchen_pot\" \"wok\" {\n  name = \"wok\"\n  size = 100\n}");
    site.run(&["validate"]).fails().says(&[
        "Invalid value for `size`",
        "on main.tf line 10, in resource \"kitchen_pot\" \"wok\":",
        "10: size = 100",
        "Found 100, expected a whole number from 1 to 99.",
    ]);
    site.write("resource \"kitchen_pot\" \"wok\" { name = \"old pot\" }");
    site.apply().says(&["Warning: This pot is old"]);
    site.write("resource \"kitchen_pot\" \"wok\" {\n  name = \"old pot\"\n  metal = \"copper\"\n}");
    site.apply();
    site.write("");
    site.run(&["plan"]).succeeds().says(&["Warning: Copper is dear", "1 to destroy"]);
}

#[test]
fn a_breach_is_told_before_terraform_blames_the_provider() {
    let site = Site::new(
        r#"
        resource "kitchen_rogue" "bad" {
          how  = "return another text"
          text = "good"
        }
        resource "kitchen_pot" "good" { name = "wok" }
        "#,
    );
    let run = site.run(&["apply", "-auto-approve"]).fails().says(&[
        "kitchen_rogue returned \"another\" for `text` where \"good\" was due",
        "kitchen_pot.good: Creation complete",
    ]);
    assert!(!run.text.contains("inconsistent result after apply"), "ours comes first:\n{}", run.text);
    site.write("resource \"kitchen_rogue\" \"bad\" {\n  how = \"panic in apply\"\n}\nresource \"kitchen_pot\" \"good\" { name = \"pan\" }");
    site.run(&["apply", "-auto-approve"])
        .fails()
        .says(&["ApplyResourceChange of kitchen_rogue panicked", "kitchen_pot.good: Creation complete"]);
}

#[test]
fn ctrl_c_ends_an_apply_with_its_state() {
    let site = Site::new("resource \"kitchen_rogue\" \"slow\" { how = \"wait\" }");
    let child = site.command(&["apply", "-auto-approve"]).spawn().unwrap();
    wait_for("the apply", || site.done().contains(&"waiting".to_owned()));
    signal(&child, "INT");
    let start = Instant::now();
    let run = Run::of(child.wait_with_output().unwrap()).fails().says(&["Stopped at a safe point"]);
    assert!(start.elapsed() < Duration::from_secs(2), "it took {:?}:\n{}", start.elapsed(), run.text);
    assert_eq!(site.resource("kitchen_rogue.slow")["out"], "stopped");
}

#[test]
fn a_second_ctrl_c_leaves_what_is_running_at_a_safe_point() {
    let site = Site::new("resource \"kitchen_rogue\" \"slow\" { how = \"need half a second to stop\" }");
    let child = site.command(&["apply", "-auto-approve"]).spawn().unwrap();
    wait_for("the apply", || site.done().contains(&"waiting".to_owned()));
    signal(&child, "INT");
    wait_for("the first interrupt", || site.done().contains(&"told to stop".to_owned()));
    signal(&child, "INT");
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(site.done(), ["waiting", "told to stop", "at a safe point"], "{}", run.text);
}

#[test]
fn a_provider_within_a_test_is_attached_to() {
    let kitchen = Kitchen::default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let attached = runtime.block_on(async { tfplugin::testing::attach(kitchen.clone()) }).unwrap();
    let mut site = Site::new("resource \"kitchen_pot\" \"wok\" { name = \"wok\" }");
    let main = fs::read_to_string(site.path("main.tf")).unwrap().replace("shelf = \"shelf.json\"", "");
    fs::write(site.path("main.tf"), main).unwrap();
    site.reattach = Some(attached.variable().to_owned());
    site.apply();
    assert!(kitchen.shelf().pots.contains_key("wok"));
    kitchen.shelf().pots.clear();
    site.run(&["plan"]).succeeds().says(&["1 to add"]);
}

#[test]
fn a_debugged_provider_outlives_runs_and_interrupts() {
    let mut site = Site::new("resource \"kitchen_rogue\" \"slow\" { how = \"wait\" }");
    let mut command = Command::new(example("kitchen"));
    command.arg("--debug").current_dir(site.directory.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Killed(debugged) = &mut Killed(command.spawn().unwrap());
    let mut lines = BufReader::new(debugged.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| {
        line.unwrap().trim().strip_prefix("export TF_REATTACH_PROVIDERS=").map(str::to_owned)
    });
    site.reattach = Some(line.unwrap().trim_matches('\'').to_owned());
    for _ in 0..2 {
        let before = site.done().len();
        let child = site.command(&["apply", "-auto-approve"]).spawn().unwrap();
        wait_for("the apply", || site.done().len() > before);
        signal(&child, "INT");
        Run::of(child.wait_with_output().unwrap()).fails().says(&["Stopped at a safe point"]);
    }
    site.run(&["destroy", "-auto-approve"]).succeeds();
    site.write("resource \"kitchen_pot\" \"wok\" { name = \"wok\" }");
    site.apply();
    assert!(debugged.try_wait().unwrap().is_none(), "it lives on");
    signal(debugged, "INT");
    assert!(debugged.wait().unwrap().success());
}

#[test]
fn logs_are_those_of_a_provider() {
    let site = Site::new("resource \"kitchen_pot\" \"wok\" {\n  name = \"wok\"\n  secret = \"hush\"\n}");
    let apply = |level: &str| {
        let output =
            site.command(&["apply", "-auto-approve"]).env("TF_LOG_PROVIDER", level).output().unwrap();
        Run::of(output).succeeds().text
    };
    let log = apply("TRACE");
    let line = log
        .lines()
        .find(|line| line.contains("call ends") && line.contains("tf_rpc=ApplyResourceChange"))
        .unwrap_or_else(|| panic!("no such line:\n{log}"));
    for field in [
        "[TRACE]",
        "tf_resource_type=kitchen_pot",
        "tf_provider_addr=example/kitchen",
        "tf_req_id=",
        "took_ms=",
        "failed=false",
    ] {
        assert!(line.contains(field), "{field} not in {line}");
    }
    assert!(!log.contains("hush"), "a value is in the log");
    assert!(!apply("WARN").contains("tf_rpc"), "what nobody asked for is not logged");
}

#[test]
fn by_hand_it_says_what_it_is() {
    let run = Run::of(Command::new(example("files")).output().unwrap()).fails();
    run.says(&["This is a Terraform provider", "terraform init"]);
}

#[test]
fn without_terraform_it_does_not_live_on() {
    use std::io::Read as _;
    // A shell that starts it, hands on its handshake and dies without a word.
    let script = format!("{} & echo $!; sleep 0.5", example("files").display());
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .env("TF_PLUGIN_MAGIC_COOKIE", "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut id = String::new();
    BufReader::new(shell.stdout.as_mut().unwrap()).read_line(&mut id).unwrap();
    shell.wait().unwrap();
    let process = Path::new("/proc").join(id.trim());
    wait_for("its end", || !process.exists());
    let mut rest = String::new();
    shell.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
}
