//! Compiles the protocol description: pure Rust, no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: &[&str] = &["proto/tfplugin6.proto", "proto/plugin.proto"];
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["proto"])?;
    // The client serves the harness; a value is handed on as it came, not copied.
    tonic_prost_build::configure()
        .build_client(std::env::var_os("CARGO_FEATURE_TESTING").is_some())
        .bytes(".tfplugin6.DynamicValue")
        .generate_default_stubs(true)
        .compile_fds(descriptors)?;
    Ok(())
}
