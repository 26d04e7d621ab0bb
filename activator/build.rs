//! Builds the agent that is carried to machines: static, in a target directory of its own, because the cargo that
//! runs us holds the lock of the outer one.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    for watched in ["agent/src", "agent/Cargo.toml", "build.rs", "../Cargo.lock"] {
        println!("cargo:rerun-if-changed={watched}");
    }
    let agent = out.join("nixos-agent");
    let target = std::env::var("TARGET")?;
    if target.contains("linux") {
        build(&manifest, &out.join("agent"), &target, &agent)?;
    } else {
        // Machines are Linux; where that cannot be built, deploying says so.
        std::fs::write(&agent, b"")?;
    }
    println!("cargo:rustc-env=NIXOS_AGENT_PATH={}", agent.display());
    println!("cargo:rustc-env=NIXOS_AGENT_SHA256={}", digest(&agent)?);
    println!("cargo:rustc-env=NIXOS_AGENT_SYSTEM={}", system(&target));
    Ok(())
}

fn build(
    manifest: &Path,
    directory: &Path,
    target: &str,
    agent: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut cargo = Command::new(std::env::var("CARGO")?);
    cargo.current_dir(manifest.join("agent"));
    cargo.args(["build", "--release", "--quiet", "--locked", "--bin", "nixos-agent", "--target", target]);
    cargo.arg("--target-dir").arg(directory);
    for (name, _) in std::env::vars() {
        let ours = [
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_MAKEFLAGS",
            "MAKEFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
        ];
        if ours.contains(&name.as_str())
            || name.starts_with("CARGO_PROFILE_")
            || name.starts_with("CARGO_CFG_")
        {
            cargo.env_remove(name);
        }
    }
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    for (setting, value) in
        [("OPT_LEVEL", "z"), ("LTO", "fat"), ("CODEGEN_UNITS", "1"), ("PANIC", "abort"), ("STRIP", "symbols")]
    {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
    }
    let status = cargo.status()?;
    if !status.success() {
        return Err(format!("the agent could not be built ({status})").into());
    }
    std::fs::copy(directory.join(target).join("release/nixos-agent"), agent)?;
    Ok(())
}

fn digest(path: &Path) -> std::io::Result<String> {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(std::fs::read(path)?);
    Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Nix' name of the platform.
fn system(target: &str) -> String {
    format!("{}-linux", target.split('-').next().unwrap_or_default())
}
