//! A provider that uses all of the crate: what the tests cook with.

mod provider;

use std::process::ExitCode;

fn main() -> ExitCode {
    let kitchen = provider::Kitchen::default();
    // For the benchmark: what all of it took.
    let report = std::env::var_os("KITCHEN_REPORT");
    tfplugin::serve(kitchen, async move {
        if let Some(path) = report {
            let _ = provider::report_memory(&path);
        }
    })
}
