//! Between the protocol's messages and ours.

use super::call::Call;
use crate::codec::{json, msgpack};
use crate::protocol::MAX_MESSAGE;
use crate::protocol::proto::{self, DynamicValue};
use crate::{Diagnostic, Diagnostics, Path, Schema, Severity, Step, Type, Value};

/// A value of a schema; null where there is none.
pub(super) fn decode(schema: &Schema, value: Option<&DynamicValue>) -> Result<Value, Diagnostics> {
    decode_type(&schema.ty(), value)
}

/// A value of a type; null where there is none.
pub(super) fn decode_type(ty: &Type, value: Option<&DynamicValue>) -> Result<Value, Diagnostics> {
    let Some(value) = value else {
        return Ok(Value::Null);
    };
    let decoded = match (&*value.msgpack, &*value.json) {
        (b"", b"") => return Ok(Value::Null),
        (b"", json) => json::decode(json, ty),
        (msgpack, _) => msgpack::decode(msgpack, ty),
    };
    decoded.map_err(|error| {
        Diagnostic::error("Terraform sent a value that does not fit the schema")
            .detail(error.message)
            .at(error.path)
            .into()
    })
}

pub(super) fn encode(schema: &Schema, value: &Value) -> Result<DynamicValue, Diagnostics> {
    encode_type(&schema.ty(), value)
}

pub(super) fn encode_type(ty: &Type, value: &Value) -> Result<DynamicValue, Diagnostics> {
    let msgpack = msgpack::encode(value, ty).map_err(|error| {
        Diagnostic::error("The provider made a value that does not fit its own schema")
            .detail(format!("{error}. Please report it."))
            .at(error.path)
    })?;
    Ok(DynamicValue { msgpack: msgpack.into(), json: vec![].into() })
}

/// An error for an answer that is larger than Terraform takes. Without it the call would fail with an error of the
/// connection, which does not name the resource.
pub(super) fn too_large(call: &Call, answer: &impl prost::Message) -> Option<Diagnostic> {
    let found = answer.encoded_len();
    let (mebibytes, most) = (found >> 20, MAX_MESSAGE >> 20);
    (found > MAX_MESSAGE).then(|| {
        Diagnostic::error("The provider's answer is too large").detail(format!(
            "The answer to {call} would have {mebibytes} MiB; a message may have {most} MiB."
        ))
    })
}

/// The answer, where it is not too large.
pub(super) fn small_enough<M: prost::Message>(call: &Call, answer: M) -> Result<M, Diagnostics> {
    too_large(call, &answer).map_or(Ok(answer), |error| Err(error.into()))
}

pub(super) fn to_wire(diagnostics: Diagnostics) -> Vec<proto::Diagnostic> {
    let wire = diagnostics.into_iter().map(|diagnostic| proto::Diagnostic {
        severity: match diagnostic.severity {
            Severity::Error => proto::diagnostic::Severity::Error.into(),
            Severity::Warning => proto::diagnostic::Severity::Warning.into(),
        },
        summary: printable(&diagnostic.summary),
        detail: printable(&diagnostic.detail),
        attribute: diagnostic.path.filter(|path| !path.steps().is_empty()).as_ref().map(path_to_wire),
    });
    wire.collect()
}

/// How many characters of a text are shown at most. Of a longer one the middle is left out, because its end usually
/// says what went wrong.
const SHOWN: usize = 32 << 10;

/// A text that a terminal can safely show. Messages quote what other programs and machines have said, and their control
/// sequences must not reach the user's terminal.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\u{1b}' => match rest.next_if(|next| matches!(next, '[' | ']')) {
                // A control sequence ends with a letter or the like, a command of the operating system with BEL or ESC.
                Some('[') => drop(rest.by_ref().find(|next| matches!(next, '@'..='~'))),
                Some(_) => {
                    rest.by_ref().find(|next| matches!(next, '\u{7}' | '\u{1b}'));
                    rest.next_if_eq(&'\\');
                }
                None => {}
            },
            '\r' if rest.peek() == Some(&'\n') => {}
            '\r' => shown.push('\n'),
            '\n' | '\t' => shown.push(character),
            // Characters that turn the direction of writing can make a text look like another one.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            // A run of bytes that were no text is shown as one sign.
            char::REPLACEMENT_CHARACTER if shown.ends_with(character) => {}
            _ if character.is_control() => {}
            _ => shown.push(character),
        }
    }
    let count = shown.chars().count();
    if count <= SHOWN {
        return shown;
    }
    let beginning: String = shown.chars().take(SHOWN / 2).collect();
    let end: String = shown.chars().skip(count - SHOWN / 2).collect();
    format!("{beginning}\n… ({} characters left out) …\n{end}", count - SHOWN)
}

pub(super) fn path_to_wire(path: &Path) -> proto::AttributePath {
    use proto::attribute_path::step::Selector;
    let step = |step: &Step| proto::attribute_path::Step {
        selector: Some(match step {
            Step::Attribute(name) => Selector::AttributeName(name.clone()),
            Step::Key(key) => Selector::ElementKeyString(key.clone()),
            Step::Index(index) => Selector::ElementKeyInt(i64::try_from(*index).unwrap_or(i64::MAX)),
        }),
    };
    proto::AttributePath { steps: path.steps().iter().map(step).collect() }
}

/// An answer that can say what went wrong.
pub(super) trait Answer: Default + Send + 'static {
    /// What it says.
    fn diagnostics(&mut self) -> &mut Vec<proto::Diagnostic>;

    /// The answer of a call that failed.
    fn failed(errors: Diagnostics) -> Self {
        let mut answer = Self::default();
        answer.diagnostics().extend(to_wire(errors));
        answer
    }
}

macro_rules! answers {
    ($($module:ident),* $(,)?) => {
        $(impl Answer for proto::$module::Response {
            fn diagnostics(&mut self) -> &mut Vec<proto::Diagnostic> {
                &mut self.diagnostics
            }
        })*
    };
}
answers! {
    get_metadata, get_provider_schema, get_resource_identity_schemas, get_functions, validate_provider_config,
    configure_provider, validate_resource_config, upgrade_resource_state, upgrade_resource_identity, read_resource,
    plan_resource_change, apply_resource_change, import_resource_state, move_resource_state, generate_resource_config,
    validate_data_resource_config, read_data_source, validate_ephemeral_resource_config, open_ephemeral_resource,
    renew_ephemeral_resource, close_ephemeral_resource, validate_list_resource_config, validate_action_config,
    plan_action,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_said_does_not_reach_the_terminal_as_it_was() {
        for (said, shown) in [
            ("plain\n\ttext — ü", "plain\n\ttext — ü"),
            ("\u{1b}[31;1mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;http://x\u{1b}\\link", "link"),
            ("one\r\ntwo\rthree", "one\ntwo\nthree"),
            ("a\0\u{8}b\u{9b}c\u{7f}", "abc"),
            ("\u{fffd}\u{fffd}\u{fffd}x", "\u{fffd}x"),
            ("user\u{202e}toor", "usertoor"),
            ("cut\u{1b}[3", "cut"),
        ] {
            assert_eq!(printable(said), shown, "{said:?}");
        }
        let long = format!("first{}last", "x".repeat(SHOWN * 2));
        let shown = printable(&long);
        assert!(shown.chars().count() < SHOWN + 100, "{}", shown.len());
        assert!(shown.starts_with("first") && shown.ends_with("last"), "both ends are there");
    }
}
