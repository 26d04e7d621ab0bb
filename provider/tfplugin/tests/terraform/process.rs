//! How the process of a provider comes and goes: started, interrupted, debugged, attached to, left alone.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::provider::Kitchen;
use crate::site::{Killed, Run, Site, example, signal, wait_for};

#[test]
fn by_hand_it_says_what_it_is() {
    let run = Run::of(Command::new(example("files")).output().unwrap()).fails();
    run.says(&["This is a Terraform provider", "terraform init"]);
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
    // A process that has ended has no program any more, even if nothing waits for it.
    let program = Path::new("/proc").join(id.trim()).join("exe");
    wait_for("its end", || program.read_link().is_err());
    let mut rest = String::new();
    shell.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
}
