//! For tests of the rules themselves: a plan or result that breaks them is sent to Terraform all the same, and the
//! findings go to a file. The test compares them with what Terraform says.

use std::io::Write as _;

use crate::{Diagnostics, Schema, Value};

/// The variable with the path of that file. A test sets it.
const FILE: &str = "TFPLUGIN_JUDGED";

/// Whether breaches are only written down, instead of failing the call.
pub(super) fn is_on() -> bool {
    cfg!(feature = "testing") && std::env::var_os(FILE).is_some()
}

/// Notes what was found about the object whose attribute `case` names it, and forgets it. Does nothing unless a test
/// wants it.
pub(super) fn note(phase: &str, value: &Value, broken: &mut Diagnostics) {
    if !is_on() {
        return;
    }
    let found: Vec<String> = std::mem::take(broken).into_iter().map(|one| one.detail).collect();
    write(phase, value, &found);
}

/// Notes whether what Terraform proposes is what the harness would have proposed.
#[cfg(feature = "testing")]
pub(super) fn note_proposal(schema: &Schema, prior: &Value, config: &Value, proposed: &Value) {
    if !is_on() {
        return;
    }
    let ours = crate::terraform::proposed_new(schema, prior, config);
    let differs = |name: &&String| crate::plan::part(&ours, name) != crate::plan::part(proposed, name);
    let shown = |name: &String| {
        let [prior, config, ours, theirs] =
            [prior, config, &ours, proposed].map(|value| crate::plan::part(value, name));
        format!("{name}: prior {prior:?}, config {config:?}, ours {ours:?}, theirs {theirs:?}")
    };
    let found: Vec<String> = schema.attributes.keys().filter(differs).map(shown).collect();
    write("propose", proposed, &found);
}

#[cfg(not(feature = "testing"))]
pub(super) fn note_proposal(_: &Schema, _: &Value, _: &Value, _: &Value) {}

fn write(phase: &str, value: &Value, found: &[String]) {
    let Some(case) = value.get("case").and_then(Value::as_str) else { return };
    let line = serde_json::json!({ "phase": phase, "case": case, "found": found });
    let file = std::env::var_os(FILE)
        .and_then(|path| std::fs::OpenOptions::new().append(true).create(true).open(path).ok());
    if let Some(mut file) = file {
        // In one piece: several calls may write at once.
        let _ = file.write_all(format!("{line}\n").as_bytes());
    }
}
