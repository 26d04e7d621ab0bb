//! The main job on real hosts, told step by step. Every line that begins with `$` is a command that really runs.

use std::time::Instant;

use e2e::{Run, World};

use crate::build::build;
use crate::{TaskError, setup};

/// Runs it.
pub(crate) fn demo() -> Result<(), TaskError> {
    setup::check_lab()?;
    say("Building the provider and booting three hosts: control (Terraform runs here), db and web.");
    let timer = Instant::now();
    build(false)?;
    let built = timer.elapsed();
    let timer = Instant::now();
    let world = World::boot(&["db", "web"], &|step| println!("   {step}"))?;
    world.use_example("quickstart")?;
    println!("   built in {:.1} s, booted in {:.1} s", built.as_secs_f64(), timer.elapsed().as_secs_f64());

    say("1. A network of two machines. web's configuration contains db's address, which comes from \
         Terraform.");
    expect(&terraform(&world, &["init"], &["Terraform has been successfully initialized"]), 0)?;
    expect(&terraform(&world, &["plan"], &["toplevel", "changes", "Plan:"]), 0)?;
    expect(&terraform(&world, &["apply", "-auto-approve"], &["complete after", "Apply complete"]), 0)?;
    what_runs(&world)?;
    fetch(&world, "The database is at 10.88.0.2")?;

    say("2. The same plan again.");
    expect(&terraform(&world, &["plan", "-detailed-exitcode"], &["No changes"]), 0)?;

    say("3. The page is edited. The plan names web's old and new system; db is not touched.");
    edit(&world, "Welcome to", "Hello from")?;
    let db = world.current_system("db");
    expect(&terraform(&world, &["plan"], &["toplevel", "changes", "Plan:"]), 0)?;
    expect(&terraform(&world, &["apply", "-auto-approve"], &["complete after", "Apply complete"]), 0)?;
    fetch(&world, "Hello from")?;
    check(world.current_system("db") == db, "db was not to be touched")?;

    say("4. A mistake: web's server gets a port that does not exist. Apply fails, and web goes back by \
         itself.");
    let before = world.current_system("web");
    edit(&world, "-p 80", "-p eighty")?;
    let failed = terraform(
        &world,
        &["apply", "-auto-approve"],
        &["Error:", "went back", "nixos-system-web", "its journal", "httpd:", "Failed with result"],
    );
    expect(&failed, 1)?;
    check(world.current_system("web") == before, "web was to go back to what it ran before")?;
    fetch(&world, "Hello from")?;
    println!("   What is left to do:");
    expect(&terraform(&world, &["plan"], &["toplevel", "changes", "Plan:"]), 0)?;
    edit(&world, "-p eighty", "-p 80")?;
    println!("   Corrected:");
    expect(&terraform(&world, &["plan"], &["No changes", "Plan:", "Changes to Outputs"]), 0)?;

    say("5. Somebody switches web by hand to another system. The plan shows it, apply repairs it.");
    let by_hand = "/root/installer-system/bin/switch-to-configuration";
    println!("   web# {by_hand} switch");
    world.lab.host("web").exec(&[by_hand, "switch"])?;
    expect(&terraform(&world, &["plan"], &["has changed", "toplevel", "Plan:"]), 0)?;
    expect(&terraform(&world, &["apply", "-auto-approve"], &["complete after", "Apply complete"]), 0)?;
    check(world.current_system("web") == before, "web was to be repaired")?;
    fetch(&world, "Hello from")?;

    say("6. Destroy forgets the deployment; the machines keep running what they run.");
    expect(&terraform(&world, &["destroy", "-auto-approve"], &["Destroy complete"]), 0)?;
    fetch(&world, "Hello from")?;
    drop(world);
    println!(
        "\nDone in {:.0} s. Nothing is left on this machine but target/.",
        timer.elapsed().as_secs_f64()
    );
    Ok(())
}

fn say(text: &str) {
    println!("\n── {text}");
}

/// Runs Terraform and prints the lines that contain one of `telling`; all of them where it failed unexpectedly.
fn terraform(world: &World, arguments: &[&str], telling: &[&str]) -> Run {
    println!("   control$ terraform {}", arguments.join(" "));
    let run = world.terraform(arguments);
    let told = |line: &&str| telling.iter().any(|part| line.contains(part));
    let mut last = "";
    for line in run.text.lines().filter(told) {
        let line = line.trim();
        // The same thing may be said for a resource and for an output.
        if line != last {
            println!("     {line}");
        }
        last = line;
    }
    println!("     ({:.1} s)", run.took.as_secs_f64());
    run
}

fn expect(run: &Run, code: i32) -> Result<(), TaskError> {
    if run.code == code {
        return Ok(());
    }
    Err(TaskError::Failed(format!(
        "terraform ended with {} where {code} was expected:\n{}",
        run.code, run.text
    )))
}

fn check(fact: bool, otherwise: &str) -> Result<(), TaskError> {
    if fact { Ok(()) } else { Err(TaskError::Failed(otherwise.to_owned())) }
}

fn what_runs(world: &World) -> Result<(), TaskError> {
    for host in ["db", "web"] {
        println!("   {host} runs {}", world.current_system(host));
        check(
            world.current_system(host).contains(&format!("nixos-system-{host}")),
            "the host runs another system",
        )?;
    }
    Ok(())
}

/// Asks web from db.
fn fetch(world: &World, expected: &str) -> Result<(), TaskError> {
    let address = world.lab.host("web").address();
    println!("   db# curl http://{address}/");
    let page =
        world.lab.host("db").exec(&["curl", "--silent", "--show-error", &format!("http://{address}/")])?;
    page.stdout.lines().for_each(|line| println!("     {line}"));
    check(page.stdout.contains(expected), &format!("the page was to contain \"{expected}\": {}", page.stderr))
}

fn edit(world: &World, from: &str, to: &str) -> Result<(), TaskError> {
    println!("   control$ sed -i 's/{from}/{to}/' network.nix");
    let path = format!("{}/network.nix", e2e::DIRECTORY);
    let control = world.lab.control();
    let text = control.read_file(&path)?;
    check(text.contains(from), &format!("network.nix has no \"{from}\""))?;
    Ok(control.write_file(&path, text.replace(from, to))?)
}
