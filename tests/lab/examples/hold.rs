//! Boots a lab with one host, prints where its disk is and holds it until it is killed.

use std::path::Path;
use std::time::Duration;

fn main() -> Result<(), lab::LabError> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let lab = lab::Lab::builder(&root.join("target/lab"), &root.join("tests/fixtures/mini-nixos"))
        .host("held")
        .boot()?;
    println!("{}", lab.host("held").root().unwrap_or_default().display());
    std::thread::sleep(Duration::from_mins(2));
    Ok(())
}
