//! Boots a lab and opens a shell on its control host: `cargo run -p lab --example lab -- db web`.

use std::path::Path;
use std::process::Stdio;

fn main() -> Result<(), lab::LabError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut builder = lab::Lab::builder(&root.join("target/lab"), &root.join("tests/fixtures/mini-nixos"))
        .on_progress(&|step| println!("{step}"));
    for name in std::env::args().skip(1) {
        builder = builder.host(&name);
    }
    let lab = builder.boot()?;
    println!(
        "You are on control; the others: see `ip neigh` or 10.88.0.2 and on. Leave the shell to end the lab."
    );
    let shell = lab.control().command(&["bash", "-i"]).stdin(Stdio::inherit()).status();
    drop(shell);
    Ok(())
}
