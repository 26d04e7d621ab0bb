//! Configurations with a hole: null, or a value that is not known yet, in the place of one of their values.
//!
//! Terraform may send null in every place where a user can write an expression, and what is not known yet wherever an expression may
//! depend on something that does not exist yet. A provider that was never asked with either in some place fails there for somebody.

use std::collections::BTreeMap;
use std::fmt;

use crate::plan::part;
use crate::schema::Kind;
use crate::{Attribute, Path, Step, Type, Value};

use super::harness::Harness;
use super::offers::Offer;
use super::outcome::{Action, Plan};
use crate::terraform::{self, at};

/// What stands in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filler {
    /// Null.
    Null,
    /// A value that is not known yet.
    Unknown,
}

/// A configuration that is like another in all places but one.
#[derive(Clone, Debug)]
pub struct Hole {
    /// The place.
    pub place: Path,
    /// What stands there.
    pub filler: Filler,
    /// The whole configuration.
    pub config: Value,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filler = match self.filler {
            Filler::Null => "null",
            Filler::Unknown => "unknown",
        };
        write!(f, "`{}` {filler}", self.place)
    }
}

impl Harness {
    /// This configuration with each hole that a user can make into it.
    pub fn holes(&self, of: Offer<'_>, config: &Value) -> Vec<Hole> {
        let mut places = vec![];
        attributes(&self.schemas.of_offer(of).attributes, config, &mut vec![], &mut places);
        holes(config, &places)
    }

    /// The attributes that users can set and none of these configurations sets, nested ones among them: holes in them are not tried.
    pub fn unset(&self, of: Offer<'_>, configs: &[Value]) -> Vec<String> {
        let mut unset = vec![];
        find_unset(
            &self.schemas.of_offer(of).attributes,
            &configs.iter().collect::<Vec<_>>(),
            "",
            &mut unset,
        );
        unset
    }

    /// Plans once more, with a configuration in which everything is known now, as an apply does. An error says what Terraform would hold
    /// against the final plan.
    pub async fn resolve(&self, plan: &Plan, config: &Value) -> Result<Plan, String> {
        // What is replaced is gone by then.
        let prior = plan.prior.as_ref().filter(|_| plan.action != Action::Replace);
        let after =
            self.plan(&plan.type_name, prior, config).await.map_err(|errors| format!("{errors:#?}"))?;
        if let Some(path) = terraform::broken_promise(&plan.planned, &after.planned, &Path::root()) {
            let value = |plan: &Plan| at(&path, &plan.planned).cloned();
            return Err(format!("`{path}` was {:?}, but now {:?}", value(plan), value(&after)));
        }
        let same = match plan.action {
            Action::Replace => after.action == Action::Create,
            Action::Update => matches!(after.action, Action::Update | Action::NoOp),
            action => after.action == action,
        };
        if same { Ok(after) } else { Err(format!("it was {:?}, and now is {:?}", plan.action, after.action)) }
    }

    /// Whether a plan leaves open what the configuration does, as it has to: the place may come to have any value.
    pub fn leaves_open(&self, plan: &Plan, place: &Path) -> bool {
        let attributes = &self.schemas.resource(&plan.type_name).attributes;
        let parent = place.steps().split_last().map(|(_, parent)| Path::from_steps(parent));
        let parent = parent.and_then(|parent| at(&parent, &plan.planned));
        at(place, &plan.planned).is_some_and(is_open)
            // Elements of a set have no place of their own.
            || matches!(parent, Some(list @ Value::List(_)) if list.contains_unknown())
            // What is write-only is in no plan.
            || is_write_only(attributes, place.steps())
    }
}

/// A value of any type, such as an argument of a function, with each hole that can be made into it.
pub fn holes_in(value: &Value) -> Vec<Hole> {
    let mut places = vec![];
    within(&Type::Dynamic, value, &mut vec![], &mut places);
    holes(value, &places)
}

fn holes(config: &Value, places: &[Vec<Step>]) -> Vec<Hole> {
    let filled = |steps: &Vec<Step>| {
        let hole = |filler, value: Value| {
            let changed = with(config, steps, &value);
            // What was null is null in the configuration itself.
            (changed != *config).then(|| Hole { place: Path::from_steps(steps), filler, config: changed })
        };
        [hole(Filler::Null, Value::Null), hole(Filler::Unknown, Value::Unknown)].into_iter().flatten()
    };
    places.iter().flat_map(filled).collect()
}

/// The places of the attributes that users can set, and those within them.
fn attributes(
    attributes: &BTreeMap<String, Attribute>,
    config: &Value,
    here: &mut Vec<Step>,
    places: &mut Vec<Vec<Step>>,
) {
    for (name, attribute) in attributes.iter().filter(|(_, attribute)| is_settable(attribute)) {
        here.push(Step::Attribute(name.clone()));
        let value = part(config, name);
        // Blocks are written, so that neither they nor their elements are null or unknown; what is in them may be.
        if attribute.block.is_none() {
            places.push(here.clone());
        }
        match &attribute.kind {
            Kind::Plain(ty) => within(ty, value, here, places),
            Kind::Nested(_, nested) => {
                for (step, element) in elements(&attribute.ty(), value) {
                    let depth = here.len();
                    here.extend(step);
                    if attribute.block.is_none() && here.len() > depth {
                        places.push(here.clone());
                    }
                    self::attributes(&nested.attributes, element, here, places);
                    here.truncate(depth);
                }
            }
        }
        here.pop();
    }
}

/// The places within a value that is no object of the schema.
fn within(ty: &Type, value: &Value, here: &mut Vec<Step>, places: &mut Vec<Vec<Step>>) {
    let (ty, value) = match value {
        Value::Dynamic(typed) => (&typed.0, &typed.1),
        value => (ty, value),
    };
    let of = |step: &Step| match (ty, step) {
        (Type::List(element) | Type::Set(element) | Type::Map(element), _) => (**element).clone(),
        (Type::Object(types), Step::Key(name)) => types.get(name).cloned().unwrap_or(Type::Dynamic),
        _ => Type::Dynamic,
    };
    let inner: Vec<(Step, &Value)> = match value {
        Value::List(items) => items.iter().enumerate().map(|(n, item)| (Step::Index(n), item)).collect(),
        Value::Map(entries) => entries.iter().map(|(key, item)| (Step::Key(key.clone()), item)).collect(),
        _ => vec![],
    };
    for (step, item) in inner {
        let ty = of(&step);
        here.push(step);
        places.push(here.clone());
        within(&ty, item, here, places);
        here.pop();
    }
}

/// The objects of a nested attribute, and the step to each.
fn elements<'v>(ty: &Type, value: &'v Value) -> Vec<(Option<Step>, &'v Value)> {
    match (ty, value) {
        (Type::Object(_), value @ Value::Map(_)) => vec![(None, value)],
        (Type::Map(_), Value::Map(entries)) => {
            entries.iter().map(|(key, value)| (Some(Step::Key(key.clone())), value)).collect()
        }
        (_, Value::List(items)) => {
            items.iter().enumerate().map(|(n, value)| (Some(Step::Index(n)), value)).collect()
        }
        _ => vec![],
    }
}

fn find_unset(
    attributes: &BTreeMap<String, Attribute>,
    configs: &[&Value],
    prefix: &str,
    unset: &mut Vec<String>,
) {
    for (name, attribute) in attributes.iter().filter(|(_, attribute)| is_settable(attribute)) {
        let path = format!("{prefix}{name}");
        let set: Vec<&Value> = configs.iter().map(|config| part(config, name)).collect();
        if set.iter().all(|value| value.is_null()) {
            unset.push(path);
        } else if let Kind::Nested(_, nested) = &attribute.kind {
            let ty = attribute.ty();
            let inner: Vec<&Value> =
                set.iter().flat_map(|value| elements(&ty, value)).map(|(_, value)| value).collect();
            find_unset(&nested.attributes, &inner, &format!("{path}."), unset);
        }
    }
}

/// Whether nothing of a value is known. In an object with write-only attributes those are null.
fn is_open(value: &Value) -> bool {
    match value {
        Value::Map(entries) => {
            value.contains_unknown() && entries.values().all(|value| value.is_null() || is_open(value))
        }
        value => value.is_unknown(),
    }
}

fn is_write_only(attributes: &BTreeMap<String, Attribute>, steps: &[Step]) -> bool {
    let mut attributes = Some(attributes);
    steps.iter().any(|step| {
        let Step::Attribute(name) = step else { return false };
        let attribute = attributes.and_then(|attributes| attributes.get(name));
        attributes = attribute.and_then(|attribute| match &attribute.kind {
            Kind::Nested(_, nested) => Some(&nested.attributes),
            Kind::Plain(_) => None,
        });
        attribute.is_some_and(|attribute| attribute.write_only)
    })
}

fn is_settable(attribute: &Attribute) -> bool {
    attribute.required || attribute.optional || attribute.block.is_some()
}

/// A value with `by` in one place, whether there was something or not.
fn with(value: &Value, steps: &[Step], by: &Value) -> Value {
    let [step, rest @ ..] = steps else {
        return by.clone();
    };
    match (step, value) {
        (_, Value::Dynamic(typed)) => with(&typed.1, steps, by),
        (Step::Attribute(name) | Step::Key(name), Value::Map(entries)) => {
            let mut entries = entries.clone();
            let inner = with(entries.get(name).unwrap_or(&Value::Null), rest, by);
            // What is not written stays so.
            if !inner.is_null() || entries.contains_key(name) {
                entries.insert(name.clone(), inner);
            }
            Value::Map(entries)
        }
        (Step::Index(index), Value::List(items)) => {
            let mut items = items.clone();
            if let Some(item) = items.get_mut(*index) {
                *item = with(item, rest, by);
            }
            Value::List(items)
        }
        (_, value) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Block, Nested, Schema};

    #[test]
    fn holes_are_made_in_every_place_a_user_can_write_to() {
        let part = || {
            Nested::new()
                .attribute("size", Attribute::number().required())
                .attribute("id", Attribute::string().computed())
        };
        let schema = Schema::new(0)
            .attribute("words", Attribute::list(Type::String).optional())
            .attribute("parts", Attribute::nested_map(part()).optional())
            .attribute("any", Attribute::dynamic().optional())
            .attribute("id", Attribute::string().computed())
            .attribute("left", Attribute::string().optional())
            .block("rule", Block::list(part()));
        let config: Value = json!({
            "words": ["a"], "parts": { "one": { "size": 1 } }, "any": { "deep": [true] }, "rule": [{ "size": 2 }]
        })
        .into();
        let mut places = vec![];
        attributes(&schema.attributes, &config, &mut vec![], &mut places);
        let found: Vec<String> = holes(&config, &places).iter().map(ToString::to_string).collect();
        let twice = [
            "any",
            "any[\"deep\"]",
            "any[\"deep\"][0]",
            "parts",
            "parts[\"one\"]",
            "parts[\"one\"].size",
            "rule[0].size",
            "words",
            "words[0]",
        ];
        let mut expected: Vec<String> = twice
            .iter()
            .flat_map(|place| [format!("`{place}` null"), format!("`{place}` unknown")])
            .collect();
        expected.push("`left` unknown".to_owned());
        assert_eq!(
            found.iter().collect::<std::collections::BTreeSet<_>>(),
            expected.iter().collect::<std::collections::BTreeSet<_>>()
        );
        let mut unset = vec![];
        find_unset(&schema.attributes, &[&config], "", &mut unset);
        assert_eq!(unset, ["left"]);
    }
}
