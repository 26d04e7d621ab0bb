//! For tests: a plan or result that breaks Terraform's rules goes out all the same, and what was found is written to a file. So a test can
//! compare it with what Terraform itself says.

use std::io::Write as _;

use crate::{Diagnostics, Value};

/// Where findings go. Set by a test.
const FILE: &str = "TFPLUGIN_JUDGED";

/// Whether breaches are only noted.
pub(super) fn is_on() -> bool {
    cfg!(feature = "testing") && std::env::var_os(FILE).is_some()
}

/// Notes what was found about the object whose attribute `case` names it, and forgets it. Does nothing unless a test wants it.
pub(super) fn note(phase: &str, value: &Value, broken: &mut Diagnostics) {
    if !is_on() {
        return;
    }
    let Some(case) = value.get("case").and_then(Value::as_str) else { return };
    let found: Vec<String> = std::mem::take(broken).into_iter().map(|one| one.detail).collect();
    let line = serde_json::json!({ "phase": phase, "case": case, "found": found });
    let file = std::env::var_os(FILE)
        .and_then(|path| std::fs::OpenOptions::new().append(true).create(true).open(path).ok());
    if let Some(mut file) = file {
        // In one piece: several calls may write at once.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}
