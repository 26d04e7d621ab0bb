//! Configurations that are written as JSON, where Terraform has no place for one: in the id of an import.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::{Attribute, Kind, Nesting, Schema};
use crate::codec::json;
use crate::{Diagnostic, Diagnostics, Path, Value, from_value};

const TITLE: &str = "This is not a configuration of the resource";

impl Schema {
    /// Reads a configuration as `jsonencode` writes it: an object that has, by their names, the attributes that a configuration would set.
    /// Attributes that are left out are null or have their defaults.
    ///
    /// # Errors
    ///
    /// What Terraform and the schema's validators would refuse in a configuration; and values of write-only attributes, which an id would
    /// give away.
    pub fn read_configuration<M: DeserializeOwned>(
        &self,
        written: &serde_json::Value,
    ) -> Result<M, Diagnostics> {
        let mut value =
            json::decode_configuration(written.to_string().as_bytes(), &self.ty()).map_err(|error| {
                let place = if error.path.steps().is_empty() {
                    "The configuration".to_owned()
                } else {
                    format!("`{}`", error.path)
                };
                Diagnostic::error(TITLE).detail(format!("{place}: {}.", error.message))
            })?;
        let mut found = Diagnostics::default();
        complete(&self.attributes, &mut value, &Path::root(), &mut found);
        found.extend(self.validate(&value, true));
        if found.has_errors() {
            return Err(found);
        }
        from_value(&value).map_err(|error| {
            Diagnostic::error(TITLE).detail(format!("{}: {}.", error.path, error.message)).into()
        })
    }
}

/// Gives attributes that are not set their defaults, and finds those that must not be set.
fn complete(
    attributes: &BTreeMap<String, Attribute>,
    value: &mut Value,
    path: &Path,
    found: &mut Diagnostics,
) {
    let Value::Map(entries) = value else { return };
    for (name, attribute) in attributes {
        let Some(value) = entries.get_mut(name) else { continue };
        let path = path.clone().attribute(name);
        if value.is_null() {
            if let Some(default) = &attribute.default {
                *value = default.clone();
            }
            continue;
        }
        let refused = if attribute.write_only {
            Some("It is write-only: its value is a secret, which does not belong into an id. Leave it out.")
        } else if attribute.computed && !attribute.optional {
            Some("A configuration cannot set it. Leave it out.")
        } else {
            None
        };
        if let Some(why) = refused {
            found.push(Diagnostic::error(format!("`{path}` cannot be set here")).detail(why));
            continue;
        }
        let Kind::Nested(nesting, nested) = &attribute.kind else { continue };
        let inner = &nested.attributes;
        match (nesting, value) {
            (Nesting::Single, value) => complete(inner, value, &path, found),
            (Nesting::Map, Value::Map(entries)) => {
                for (key, value) in entries {
                    complete(inner, value, &path.clone().key(key), found);
                }
            }
            (_, Value::List(items)) => {
                for (index, value) in items.iter_mut().enumerate() {
                    complete(inner, value, &path.clone().index(index), found);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::{Attr, Nested, Type, validators};

    #[derive(Debug, Deserialize)]
    struct Model {
        name: String,
        mode: Attr<String>,
        more: Value,
        parts: Attr<BTreeMap<String, Part>>,
        id: Attr<String>,
    }

    #[derive(Debug, Deserialize)]
    struct Part {
        size: Attr<u64>,
        token_wo: Attr<String>,
    }

    fn schema() -> Schema {
        let part = Nested::new()
            .attribute("size", Attribute::number().optional().computed().default(8))
            .attribute("token_wo", Attribute::string().optional().write_only());
        Schema::new(0)
            .attribute("name", Attribute::string().required().validate(validators::one_of(&["a", "b"])))
            .attribute("mode", Attribute::string().optional().computed().default("soft"))
            .attribute("more", Attribute::dynamic().optional())
            .attribute("parts", Attribute::nested_map(part).optional())
            .attribute("id", Attribute::string().computed())
    }

    fn read(written: &serde_json::Value) -> Result<Model, String> {
        schema().read_configuration(written).map_err(|found| {
            let one = |found: Diagnostic| format!("{} {}", found.summary, found.detail);
            found.into_iter().map(one).collect::<Vec<_>>().join("\n")
        })
    }

    #[test]
    fn what_is_written_is_a_configuration_with_its_defaults() {
        let model =
            read(&json!({ "name": "a", "more": ["x", 1], "parts": { "one": {}, "two": { "size": 9 } } }))
                .unwrap();
        assert_eq!(
            (model.name.as_str(), &model.mode, &model.id),
            ("a", &Attr::Known("soft".into()), &Attr::Null)
        );
        let Value::Dynamic(more) = &model.more else { panic!("{:?}", model.more) };
        assert_eq!(more.0, Type::Tuple(vec![Type::String, Type::Number]), "as Terraform's own");
        let parts = model.parts.known().unwrap();
        assert_eq!((&parts["one"].size, &parts["two"].size), (&Attr::Known(8), &Attr::Known(9)));
        assert!(parts["one"].token_wo.is_null());
    }

    #[test]
    fn what_a_configuration_must_not_say_is_refused_by_name() {
        for (written, said) in [
            (json!({}), "`name` is missing"),
            (json!({ "name": "a", "names": "b" }), "there is no attribute \"names\""),
            (json!({ "name": 1 }), "`name`: expected a string, found a number"),
            (json!({ "name": "c" }), "name"),
            (json!({ "name": "a", "id": "i" }), "`id` cannot be set here"),
            (
                json!({ "name": "a", "parts": { "p": { "token_wo": "t" } } }),
                "`parts[\"p\"].token_wo` cannot be set here It is write-only",
            ),
            (json!("a"), "expected"),
        ] {
            let error = read(&written).unwrap_err();
            assert!(error.contains(said) && !error.contains("\"t\""), "{written}: {error}");
        }
    }
}
