//! Small conversions between what users write and what the activator wants.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, SystemTime};

use serde_json::Value as Json;
use tfplugin::{Attr, Attribute, Diagnostic, Nested, Type, Value, validators};

/// The `timeouts` attribute of a resource.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Timeouts {
    pub(crate) create: Attr<String>,
    pub(crate) read: Attr<String>,
    pub(crate) update: Attr<String>,
    pub(crate) delete: Attr<String>,
}

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

/// The schema of `timeouts`; `defaults` completes its description.
pub(crate) fn timeouts_attribute(defaults: &str) -> Attribute {
    let duration = |what: &str| {
        Attribute::string()
            .optional()
            .validate(validators::duration())
            .description(format!("How long {what} may take, e.g. `90s`, `30m` or `1h30m`."))
    };
    let nested = Nested::new()
        .attribute("create", duration("creation"))
        .attribute("read", duration("refreshing"))
        .attribute("update", duration("an update"))
        .attribute("delete", duration("deletion"));
    Attribute::nested_single(nested).optional().description(format!(
        "Limits for each operation; at the end of one the operation stops at the next safe point. {defaults}"
    ))
}

/// Reads `90s`, `30m`, `1h30m`; the schema has checked the form.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut number = String::new();
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c.is_ascii_digit() || c == '.' {
            number.push(c);
            continue;
        }
        let unit = match (c, characters.peek()) {
            ('m', Some('s')) => {
                characters.next();
                0.001
            }
            ('h', _) => 3600.0,
            ('m', _) => 60.0,
            ('s', _) => 1.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * unit;
        number.clear();
    }
    (number.is_empty() && !text.is_empty()).then_some(())?;
    Duration::try_from_secs_f64(total).ok()
}

/// The configured duration, or the default.
pub(crate) fn duration_or(configured: Option<&Attr<String>>, default: Duration) -> Duration {
    configured.and_then(Attr::known).and_then(|text| duration(text)).unwrap_or(default)
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
    fn durations_are_those_of_go() {
        assert_eq!(duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Some(Duration::from_mins(90)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for bad in ["", "90", "m", "1x", "-1s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
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
