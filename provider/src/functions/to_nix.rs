//! `provider::nixos::to_nix(value)`: any value as a Nix expression, for files that Nix reads.

use tfplugin::{Function, FunctionError, Number, Parameter, Signature, Type, Value};

pub(crate) struct ToNix;

impl Function for ToNix {
    const NAME: &'static str = "to_nix";
    type Arguments = (Value,);
    type Output = String;

    fn signature(&self) -> Signature {
        Signature::returns(Type::String)
            .summary("A value as a Nix expression")
            .description(
                "Writes any value as a Nix expression: objects and maps as attribute sets, lists, sets and \
                 tuples as lists. Strings are escaped, so nothing in them is evaluated. What a deployment \
                 itself should know is better passed in its `arguments`; this is for files that Nix reads \
                 otherwise, e.g. by `local_file`.",
            )
            .parameter("value", Parameter::new(Type::Dynamic).allow_null().description("The value."))
    }

    fn call(&self, (value,): (Value,)) -> Result<String, FunctionError> {
        let mut text = String::new();
        write(&mut text, &value, 0).map_err(|problem| FunctionError::new(problem).argument(0))?;
        Ok(text)
    }
}

fn write(out: &mut String, value: &Value, depth: usize) -> Result<(), String> {
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(bool) => out.push_str(if *bool { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&nix_number(number)?),
        Value::String(text) => out.push_str(&nix_string(text)?),
        Value::Dynamic(typed) => write(out, &typed.1, depth)?,
        Value::List(items) if items.is_empty() => out.push_str("[ ]"),
        Value::List(items) => {
            out.push('[');
            for item in items {
                line(out, depth + 1);
                let mut element = String::new();
                write(&mut element, item, depth + 1)?;
                // A sign is an operation, and elements of a list are none.
                out.push_str(&if element.starts_with('-') { format!("({element})") } else { element });
            }
            line(out, depth);
            out.push(']');
        }
        Value::Map(entries) if entries.is_empty() => out.push_str("{ }"),
        Value::Map(entries) => {
            out.push('{');
            for (name, value) in entries {
                line(out, depth + 1);
                out.push_str(&nix_name(name)?);
                out.push_str(" = ");
                write(out, value, depth + 1)?;
                out.push(';');
            }
            line(out, depth);
            out.push('}');
        }
        Value::Unknown => return Err("the value is not known yet".to_owned()),
    }
    Ok(())
}

/// Nix has integers of 64 bits, and floats that need a point.
fn nix_number(number: &Number) -> Result<String, String> {
    if let Some(integer) = number.as_i64() {
        // The least one cannot be written as the negation of a literal.
        return Ok(if integer == i64::MIN {
            "(-9223372036854775807 - 1)".to_owned()
        } else {
            integer.to_string()
        });
    }
    // A whole number of more bits would silently become a rounded one.
    let float = number.as_f64().filter(|float| float.fract() != 0.0);
    let float = float
        .ok_or_else(|| format!("found {number}, but integers of Nix have 64 bits; pass it as a string"))?;
    let text = format!("{float:?}");
    Ok(match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
        _ => text,
    })
}

fn nix_string(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("strings of Nix cannot hold the character U+0000".to_owned());
    }
    let mut escaped = String::from("\"");
    for (at, c) in text.char_indices() {
        match c {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            '$' if text.get(at + 1..).is_some_and(|rest| rest.starts_with('{')) => escaped.push_str("\\$"),
            c => escaped.push(c),
        }
    }
    escaped.push('"');
    Ok(escaped)
}

/// Words that Nix' grammar keeps for itself.
const KEYWORDS: &[&str] = &["assert", "else", "if", "in", "inherit", "let", "or", "rec", "then", "with"];

fn nix_name(name: &str) -> Result<String, String> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let more = |c: char| first(c) || c.is_ascii_digit() || matches!(c, '\'' | '-');
    if name.starts_with(first) && name.chars().all(more) && !KEYWORDS.contains(&name) {
        Ok(name.to_owned())
    } else {
        nix_string(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_as_people_write_them() {
        let value = json!({
            "name": "web", "a b": null, "if": true, "n": [1, -2, 0.5, 2e-7], "empty": {}, "none": [],
            "text": "\"${x}\" $y \\ \n\u{e9}"
        });
        let text = ToNix.call((value.into(),)).unwrap();
        let expected = "{\n  \"a b\" = null;\n  empty = { };\n  \"if\" = true;\n  n = [\n    1\n    (-2)\n    \
                        0.5\n    2.0e-7\n  ];\n  name = \"web\";\n  none = [ ];\n  text = \"\\\"\\${x}\\\" \
                        $y \\\\ \\n\u{e9}\";\n}";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_nix_does_not_have_is_an_error() {
        let huge = Value::Number(Number::parse("18446744073709551616").unwrap());
        assert!(ToNix.call((huge,)).unwrap_err().text.contains("64 bits"));
        assert!(ToNix.call(("\0".into(),)).unwrap_err().text.contains("U+0000"));
    }
}
