//! One deployment with up to a thousand machines in its map: plan, apply, refresh, and what the provider needs for it.
//!
//! There are not a thousand hosts: a few real ones answer at many addresses each, and what is applied is `push`,
//! which machines at one host do not disturb each other with. Every node is evaluated by itself, and every machine is
//! logged in to and gets its closure; but ten machines at a time have the same configuration, or most of an apply
//! would be Nix building a thousand systems.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use e2e::World;
use serde_json::json;

use super::load::Load;
use super::millis;
use crate::build::build;
use crate::{TaskError, setup};

const SIZES: [usize; 4] = [1, 10, 100, 1000];
const RACKS: [&str; 4] = ["rack0", "rack1", "rack2", "rack3"];
/// How many machines have the same configuration.
const SAME: usize = 10;
/// How many logins the peer makes at once: as many as a refresh.
const AT_ONCE: &str = "32";

/// Measures, and prints.
pub(crate) fn bench() -> Result<(), TaskError> {
    setup::check_lab()?;
    build(true)?;
    let world = World::boot(&RACKS, &|step| println!("{step}"))?;
    let control = world.lab.control();
    for (number, rack) in RACKS.iter().enumerate() {
        let network = format!("10.99.{number}.0/24");
        let rack = world.lab.host(rack);
        rack.exec(&["ip", "route", "add", "local", &network, "dev", "lo"])?;
        control.exec(&["ip", "route", "add", &network, "via", &rack.address().to_string()])?;
    }
    println!(
        "\none deployment           plan, new   (plain nix)   apply, push   plan, same   (ssh true)   \
         plan, one changed   provider's memory   ssh at once"
    );
    for size in SIZES {
        println!("{size:>4} machines {}", measure(&world, size)?);
    }
    Ok(())
}

/// A line of figures.
fn measure(world: &World, size: usize) -> Result<String, TaskError> {
    let control = world.lab.control();
    control.exec(&[
        "sh",
        "-c",
        &format!("rm -rf {0} /root/.cache/nixos-activator; mkdir {0}", e2e::DIRECTORY),
    ])?;
    world.write("main.tf", CONFIGURATION)?;
    write_machines(world, size)?;
    for n in 0..size {
        world.write(&format!("m{n}.nix"), &machine(n / SAME, ""))?;
    }
    let nodes: String = (0..size).fold(String::new(), |mut text, n| {
        let _ = writeln!(text, "  m{n} = ./m{n}.nix;");
        text
    });
    world.write("network.nix", &format!("{{\n{nodes}}}\n"))?;
    let plain = "builtins.mapAttrs (name: file: (import /root/mini-nixos/nixos/lib/eval-config.nix { \
                 modules = [ file ]; }).config.system.build.toplevel.drvPath) (import ./network.nix)";
    world.write("plain.nix", plain)?;
    let by_hand = |script: &str| {
        let start = Instant::now();
        let done = control.exec(&["sh", "-c", &format!("cd {} && {script}", e2e::DIRECTORY)])?;
        if done.success { Ok(start.elapsed()) } else { Err(TaskError::Failed(done.stderr)) }
    };

    let load = Load::of(Load::PROVIDER);
    let run = |arguments: &[&str]| {
        let done = load.during(|| world.terraform(arguments));
        if done.code == 0 { Ok(done.took) } else { Err(TaskError::Failed(done.text)) }
    };
    run(&["init"])?;
    let plain = by_hand("nix-instantiate --eval --strict --json --read-write-mode plain.nix > plain.json")?;
    let new = run(&["plan"])?;
    let push = run(&["apply", "-auto-approve"])?;
    let same = run(&["plan", "-detailed-exitcode"])?;
    let logins = by_hand(&format!(
        "xargs -P {AT_ONCE} -I ADDRESS ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o \
         LogLevel=ERROR root@ADDRESS true < addresses"
    ))?;
    world.write("m0.nix", &machine(0, "changed"))?;
    let changed = run(&["plan"])?;
    Ok(format!(
        "{:>17.1} s {:>11.1} s {:>11.1} s {:>10.1} s {:>10.1} s {:>17.1} s {:>15} MiB {:>13}",
        seconds(new),
        seconds(plain),
        seconds(push),
        seconds(same),
        seconds(logins),
        seconds(changed),
        load.memory_kib() / 1024,
        load.connections(),
    ))
}

fn seconds(time: Duration) -> f64 {
    millis(time) / 1000.0
}

/// Terraform's configuration: the machines are variables, as if others had made them.
const CONFIGURATION: &str = r#"terraform {
  required_providers { nixos = { source = "terraform-provider-nixos/nixos" } }
}
variable "machines" { type = map(object({ host = string, host_public_key = string })) }
resource "nixos_deployment" "all" {
  network  = "${path.module}/network.nix"
  machines = var.machines
  action   = "push"
}
"#;

/// The machines, each at an address of its own, and beside them a plain list for `ssh`.
fn write_machines(world: &World, size: usize) -> Result<(), TaskError> {
    let mut addresses = String::new();
    let mut machines = BTreeMap::new();
    for n in 0..size {
        let rack = n % RACKS.len();
        let address = format!("10.99.{rack}.{}", n / RACKS.len() + 1);
        let key = world.lab.host(RACKS[rack]).host_public_key();
        let _ = writeln!(addresses, "{address}");
        machines.insert(format!("m{n}"), json!({ "host": address, "host_public_key": key }));
    }
    world.write("addresses", &addresses)?;
    world.write("terraform.tfvars.json", &json!({ "machines": machines }).to_string())?;
    Ok(())
}

fn machine(n: usize, text: &str) -> String {
    format!(
        "{{ pkgs, ... }}: {{\n  nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\";\n  \
         networking.hostName = \"all\";\n  environment.etc.text.text = \"{n} {text}\";\n}}\n"
    )
}
