//! Small conversions between what users write and what the activator wants.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::SystemTime;

use serde_json::Value as Json;
use tfplugin::{Attr, Attribute, Diagnostic, Type, Value};

/// A list, of which some elements may not be known while planning.
pub(crate) type List<T> = Attr<Vec<Attr<T>>>;

/// The elements of a list that are known.
pub(crate) fn known_elements<T>(list: &List<T>) -> impl Iterator<Item = &T> {
    list.known().into_iter().flatten().filter_map(Attr::known)
}

/// A list of texts, none where it is null; `None` while not all of them are known.
pub(crate) fn texts(list: &List<String>) -> Option<Vec<String>> {
    match list {
        Attr::Null => Some(vec![]),
        Attr::Unknown => None,
        Attr::Known(items) => items.iter().map(|item| item.known().cloned()).collect(),
    }
}

/// The schema of an optional list of strings.
pub(crate) fn strings_attribute(description: &str) -> Attribute {
    Attribute::list(Type::String).optional().description(description)
}

/// A plan with what it leaves open taken from what there is.
pub(crate) fn completed<M: Clone + serde::Serialize + serde::de::DeserializeOwned>(
    planned: &M,
    actual: &M,
) -> M {
    // Models are made of values and go back to them.
    tfplugin::completed(planned, actual).unwrap_or_else(|_| planned.clone())
}

/// What to say of an import that cannot log in.
pub(crate) const IMPORT_KNOWS_ITS_ID: &str = "An import does not see the configuration of the resource. \
                                              What leads to the machine, such as its `host_public_key`, \
                                              can be in the id: `jsonencode({ name = …, ssh = { host = …, \
                                              host_public_key = … } })` for a nixos_machine, `jsonencode({ \
                                              network = …, machines = … })` for a nixos_deployment.";

/// The configuration in the id of an import that is one, written by `jsonencode`; `None` for an id of another kind.
pub(crate) fn configuration_in(id: &str) -> Result<Option<serde_json::Map<String, Json>>, Diagnostic> {
    if !id.trim_start().starts_with('{') {
        return Ok(None);
    }
    serde_json::from_str(id).map(Some).map_err(|error| {
        Diagnostic::error("The id is not JSON").detail(format!(
            "It begins with `{{`, as a configuration does that `jsonencode` writes, but: {error}."
        ))
    })
}

/// The schema of a string that only the provider sets.
pub(crate) fn computed(description: &str) -> Attribute {
    Attribute::string().computed().description(description)
}

/// A name that nothing else has: `prefix`, the time, something random. Later ones sort behind earlier ones.
pub(crate) fn unique(prefix: &str) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let random = RandomState::new().build_hasher().finish();
    format!("{prefix}{now:011x}{:08x}", random & 0xffff_ffff)
}

/// A configuration value as JSON for Nix; what is not known yet becomes a marker that names its place.
pub(crate) fn to_json(value: &Value, origin: &str) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Unknown => nixos_activator::network::unknown(origin),
        Value::Bool(bool) => Json::Bool(*bool),
        Value::String(text) => Json::String(text.clone()),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => integer.into(),
            (None, Some(float)) => float.into(),
            // Nix has nothing larger than a double either; its text is the best there is.
            (None, None) => Json::String(number.to_string()),
        },
        Value::List(items) => {
            items.iter().enumerate().map(|(n, item)| to_json(item, &format!("{origin}[{n}]"))).collect()
        }
        Value::Map(entries) => entries
            .iter()
            .map(|(key, item)| (key.clone(), to_json(item, &format!("{origin}.{key}"))))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Dynamic(typed) => to_json(&typed.1, origin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_known_when_all_of_it_is() {
        let known = |text: &str| Attr::Known(text.to_owned());
        assert_eq!(texts(&Attr::Null), Some(vec![]));
        assert_eq!(texts(&Attr::Known(vec![known("a")])), Some(vec!["a".to_owned()]));
        assert_eq!(texts(&Attr::Known(vec![known("a"), Attr::Unknown])), None);
        assert_eq!(texts(&Attr::Unknown), None);
    }

    #[test]
    fn unknown_arguments_keep_their_place() {
        let value =
            Value::Map([("a".to_owned(), Value::List(vec![Value::Bool(true), Value::Unknown]))].into());
        assert_eq!(
            to_json(&value, "arguments"),
            serde_json::json!({ "a": [true, { "__unknown": "arguments.a[1]" }] })
        );
    }
}
