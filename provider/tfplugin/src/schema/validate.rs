//! Runs a schema's checks over a configuration. What is null or not known yet passes: Terraform asks again.

use std::collections::BTreeMap;

use super::{Attribute, Kind, Nesting, Schema};
use crate::{Diagnostic, Diagnostics, Path, Value};

impl Schema {
    /// Everything that is wrong with `config`. `write_only` tells whether the client keeps write-only values out of state.
    pub(crate) fn validate(&self, config: &Value, write_only: bool) -> Diagnostics {
        let mut found = Diagnostics::default();
        for names in &self.exactly_one_of {
            found.extend(exactly_one(config, names));
        }
        validate_object(&self.attributes, config, &Path::root(), write_only, &mut found);
        found
    }
}

fn exactly_one(config: &Value, names: &[String]) -> Option<Diagnostic> {
    let is = |check: fn(&Value) -> bool| names.iter().filter(move |name| config.get(name).is_some_and(check));
    let set: Vec<&String> = is(|value| !value.is_null()).collect();
    let list =
        |names: &[&String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let all = list(&names.iter().collect::<Vec<_>>());
    if set.is_empty() {
        let summary =
            if names.len() == 1 { format!("{all} is missing") } else { format!("One of {all} is missing") };
        return Some(
            Diagnostic::error(summary)
                .detail(format!("None of them is set, exactly one of {all} is expected.")),
        );
    }
    let known = is(|value| !value.is_null() && !value.is_unknown()).count();
    (known > 1).then(|| {
        Diagnostic::error(format!("Only one of {all} can be set"))
            .detail(format!("Found {}. Remove all but one.", list(&set)))
            .at(Path::root().attribute(set.last().map_or("", |name| name.as_str())))
    })
}

fn validate_object(
    attributes: &BTreeMap<String, Attribute>,
    config: &Value,
    path: &Path,
    write_only: bool,
    found: &mut Diagnostics,
) {
    for (name, attribute) in attributes {
        let Some(value) = config.get(name) else { continue };
        if value.is_null() || value.is_unknown() {
            continue;
        }
        let path = path.clone().attribute(name);
        if attribute.write_only && !write_only {
            found.push(
                Diagnostic::error("This version of Terraform would store a secret")
                    .detail(format!(
                        "`{path}` is write-only, which needs Terraform 1.11 or OpenTofu 1.11. Older ones keep it in state in clear."
                    ))
                    .at(path.clone()),
            );
        }
        for validator in &attribute.validators {
            if let Err(expected) = validator.check(value) {
                let shown = if attribute.sensitive || attribute.write_only {
                    "(sensitive)".to_owned()
                } else {
                    brief(value)
                };
                found.push(
                    Diagnostic::error(format!("Invalid value for `{path}`"))
                        .detail(format!("Found {shown}, expected {expected}."))
                        .at(path.clone()),
                );
            }
        }
        if let Kind::Nested(nesting, nested) = &attribute.kind {
            let mut inner = |value: &Value, path: &Path| {
                validate_object(&nested.attributes, value, path, write_only, found);
            };
            match (nesting, value) {
                (Nesting::Single, value) => inner(value, &path),
                (_, Value::List(items)) => {
                    items.iter().enumerate().for_each(|(n, item)| inner(item, &path.clone().index(n)));
                }
                (_, Value::Map(entries)) => {
                    entries.iter().for_each(|(key, item)| inner(item, &path.clone().key(key)));
                }
                _ => {}
            }
        }
    }
}

/// A value in few characters, for messages.
pub(crate) fn brief(value: &Value) -> String {
    let text = match value {
        Value::Null => "null".to_owned(),
        Value::Unknown => "a value known only after apply".to_owned(),
        Value::Bool(bool) => bool.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("{text:?}"),
        Value::List(items) => format!("a list of {}", items.len()),
        Value::Map(entries) => format!("an object of {}", entries.len()),
        Value::Dynamic(typed) => brief(&typed.1),
    };
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
