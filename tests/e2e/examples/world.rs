//! Boots a world with the quickstart on control and opens a shell there.

use std::process::Stdio;

fn main() -> Result<(), e2e::WorldError> {
    let world = e2e::World::boot(&["db", "web"], &|step| println!("{step}"))?;
    world.use_example("quickstart")?;
    let shell = world.lab.control().command(&["env", "NIX_PATH=nixpkgs=/root/mini-nixos", "bash", "-i"]);
    let mut shell = shell;
    let _ = shell.stdin(Stdio::inherit()).status();
    Ok(())
}
