//! Whether a Rust type and a schema say the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::plan::normalized;
use crate::schema::{Kind, Nesting};
use crate::{Attribute, Path, Schema, Step, Type, Value, from_value, to_value};

/// What is wrong with a model, one sentence each: an attribute of the schema that it loses, or a value that Terraform may
/// send and it cannot take. Terraform may send an unknown value in every place, elements of lists, sets and maps among them, because any
/// of it may come from something that does not exist yet; and null wherever validation by the schema lets it pass.
pub fn model_problems<M: Serialize + DeserializeOwned>(schema: &Schema) -> Vec<String> {
    let mut problems = vec![];
    let mut lost = BTreeSet::new();
    let full = filled(&schema.attributes);
    let mut check =
        |what: String, value: &Value| match from_value::<M>(value).and_then(|model| to_value(&model)) {
            Ok(back) => {
                // What is write-only need not come back.
                let (value, back) = (normalized(schema, value.clone()), normalized(schema, back));
                if let Some(path) = difference(&value, &back, &Path::root())
                    && lost.insert(path.to_string())
                {
                    problems.push(format!("{what}: `{path}` does not come back as it was"));
                }
            }
            Err(error) => problems.push(format!("{what}: {error}")),
        };
    check("with every attribute set".to_owned(), &full);
    let mut places = vec![];
    collect(&schema.attributes, &mut vec![], &mut places);
    for Place { steps, may_be_null } in places {
        let path = Path::from_steps(&steps);
        let mut with = |value: Value, name: &str| {
            check(format!("with `{path}` {name}"), &replaced(&full, &steps, &value));
        };
        with(Value::Unknown, "not known");
        if may_be_null {
            with(Value::Null, "null");
        }
    }
    problems
}

/// A value with something in every place.
fn filled(attributes: &BTreeMap<String, Attribute>) -> Value {
    Value::Map(attributes.iter().map(|(name, attribute)| (name.clone(), sample(attribute))).collect())
}

fn sample(attribute: &Attribute) -> Value {
    // An example that passes the checks, where one of them names one.
    if let Some(example) = attribute.validators.iter().find_map(|validator| validator.example()) {
        return example.clone();
    }
    match &attribute.kind {
        Kind::Plain(ty) => sample_of(ty),
        Kind::Nested(nesting, nested) => {
            let object = filled(&nested.attributes);
            match nesting {
                Nesting::Single => object,
                Nesting::List | Nesting::Set => Value::List(vec![object]),
                Nesting::Map => Value::Map([("key".to_owned(), object)].into()),
            }
        }
    }
}

fn sample_of(ty: &Type) -> Value {
    match ty {
        Type::String => "text".into(),
        Type::Number => 1i64.into(),
        Type::Bool => true.into(),
        Type::Dynamic => Value::List(vec!["text".into()]).into_dynamic(),
        Type::List(element) | Type::Set(element) => Value::List(vec![sample_of(element)]),
        Type::Map(element) => Value::Map([("key".to_owned(), sample_of(element))].into()),
        Type::Tuple(types) => Value::List(types.iter().map(sample_of).collect()),
        Type::Object(types) => {
            Value::Map(types.iter().map(|(name, ty)| (name.clone(), sample_of(ty))).collect())
        }
    }
}

/// A place of a filled value.
struct Place {
    steps: Vec<Step>,
    /// Whether a configuration that has null there is valid.
    may_be_null: bool,
}

/// Every place of a filled value: attributes, and elements of lists, sets and maps.
fn collect(attributes: &BTreeMap<String, Attribute>, here: &mut Vec<Step>, places: &mut Vec<Place>) {
    for (name, attribute) in attributes {
        here.push(Step::Attribute(name.clone()));
        // Blocks in lists and sets are never null.
        let never_null =
            attribute.block.is_some() && !matches!(attribute.kind, Kind::Nested(Nesting::Single, _));
        places.push(Place { steps: here.clone(), may_be_null: !attribute.required && !never_null });
        // Of what only the provider sets, an element is what the provider makes it.
        if attribute.block.is_none() && (attribute.required || attribute.optional) {
            elements(&attribute.ty(), attribute.null_elements, here, places);
        }
        if let Kind::Nested(nesting, nested) = &attribute.kind {
            let depth = here.len();
            here.extend(match nesting {
                Nesting::Single => None,
                Nesting::List | Nesting::Set => Some(Step::Index(0)),
                Nesting::Map => Some(element_key()),
            });
            collect(&nested.attributes, here, places);
            here.truncate(depth);
        }
        here.pop();
    }
}

/// The elements of a value of this type, and their elements.
fn elements(ty: &Type, may_be_null: bool, here: &mut Vec<Step>, places: &mut Vec<Place>) {
    let (step, element) = match ty {
        Type::List(element) | Type::Set(element) => (Step::Index(0), element),
        Type::Map(element) => (element_key(), element),
        _ => return,
    };
    here.push(step);
    places.push(Place { steps: here.clone(), may_be_null });
    elements(element, may_be_null, here, places);
    here.pop();
}

/// The key of the only element of each map.
fn element_key() -> Step {
    Step::Key("key".to_owned())
}

fn replaced(value: &Value, steps: &[Step], by: &Value) -> Value {
    let [step, rest @ ..] = steps else {
        return by.clone();
    };
    let mut value = value.clone();
    let place = match (step, &mut value) {
        (Step::Attribute(name) | Step::Key(name), Value::Map(entries)) => entries.get_mut(name),
        (Step::Index(index), Value::List(items)) => items.get_mut(*index),
        _ => None,
    };
    if let Some(place) = place {
        *place = replaced(place, rest, by);
    }
    value
}

fn difference(a: &Value, b: &Value, path: &Path) -> Option<Path> {
    match (a, b) {
        (Value::Map(a), Value::Map(b)) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            names.into_iter().find_map(|name| {
                let path = path.clone().attribute(name);
                // What is not there is null.
                difference(a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null), &path)
            })
        }
        (Value::List(a), Value::List(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(index, (a, b))| difference(a, b, &path.clone().index(index))),
        (Value::Dynamic(a), Value::Dynamic(b)) => difference(&a.1, &b.1, path),
        (Value::Dynamic(a), b) => difference(&a.1, b, path),
        (a, b) => (a != b).then(|| path.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{Attr, Nested, validators};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Mode {
        Soft,
    }

    #[derive(Serialize, Deserialize)]
    struct Good {
        name: Attr<String>,
        mode: Attr<Mode>,
        parts: Attr<BTreeMap<String, Attr<Part>>>,
    }

    #[derive(Serialize, Deserialize)]
    struct Part {
        size: Attr<u8>,
    }

    #[derive(Serialize, Deserialize)]
    struct Bad {
        name: String,
        parts: Option<BTreeMap<String, Attr<Part>>>,
    }

    /// Collections whose elements have to be known.
    #[derive(Serialize, Deserialize)]
    struct Bare {
        name: Attr<String>,
        mode: Attr<String>,
        parts: Attr<BTreeMap<String, Part>>,
        words: Attr<Vec<String>>,
        rows: Attr<Vec<Attr<Vec<String>>>>,
    }

    fn schema() -> Schema {
        Schema::new(0)
            .attribute("name", Attribute::string().required())
            .attribute("mode", Attribute::string().optional().validate(validators::one_of(&["soft"])))
            .attribute(
                "parts",
                Attribute::nested_map(Nested::new().attribute("size", Attribute::number().optional()))
                    .optional(),
            )
    }

    #[test]
    fn a_model_that_says_what_the_schema_says_has_no_problems() {
        assert_eq!(model_problems::<Good>(&schema()), [""; 0]);
    }

    #[test]
    fn a_model_that_loses_or_cannot_take_a_value_has() {
        let problems = model_problems::<Bad>(&schema()).join("\n");
        for expected in ["`mode` does not come back", "with `name` not known", "with `parts` not known"] {
            assert!(problems.contains(expected), "{expected} not in\n{problems}");
        }
        assert!(!problems.contains("`parts` null"), "{problems}");
    }

    #[test]
    fn a_model_that_cannot_take_an_unknown_element_has_a_problem() {
        let rows = Attribute::list(Type::List(Box::new(Type::String))).optional();
        let schema = schema()
            .attribute("words", Attribute::set(Type::String).optional().null_elements())
            .attribute("rows", rows);
        let problems = model_problems::<Bare>(&schema);
        let expected = [
            "with `parts[\"key\"]` not known",
            "with `rows[0][0]` not known",
            "with `words[0]` not known",
            "with `words[0]` null",
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.starts_with(expected), "{expected} is not what {problem} begins with");
        }
    }
}
