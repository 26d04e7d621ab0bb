//! Boots a lab and opens a shell on its control host: `cargo run -p lab --example lab -- db web`. `web=grub` and
//! `web=systemd-boot` are virtual machines.

use std::path::Path;
use std::process::Stdio;

use lab::{BootLoader, HostOptions};

fn main() -> Result<(), lab::LabError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut builder = lab::Lab::builder(&root.join("target/lab"), &root.join("tests/fixtures/mini-nixos"))
        .on_progress(&|step| println!("{step}"));
    for argument in std::env::args().skip(1) {
        let (name, loader) = argument.split_once('=').unwrap_or((&argument, ""));
        let virtual_machine = match loader {
            "systemd-boot" => Some(BootLoader::SystemdBoot),
            "grub" => Some(BootLoader::Grub),
            _ => None,
        };
        builder = builder.host_with(name, HostOptions { virtual_machine, ..HostOptions::default() });
    }
    let lab = builder.boot()?;
    println!(
        "You are on control; the others: see `ip neigh` or 10.88.0.2 and on. Leave the shell to end the lab."
    );
    let shell = lab.control().command(&["bash", "-i"]).stdin(Stdio::inherit()).status();
    drop(shell);
    Ok(())
}
