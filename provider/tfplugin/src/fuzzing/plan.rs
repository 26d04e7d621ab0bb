//! Planning with any values of a schema that has something of everything.
//!
//! Bytes say which values: each makes one decision, and where none are left everything is null.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::plan::{
    check_applied, check_known, check_paths, check_planned, known_only, normalized, propose, replaced,
};
use crate::schema::{Kind, Nesting};
use crate::terraform::{conform, proposed_new};
use crate::{Attribute, Block, Nested, Number, Schema, Type, Value, validators};

/// Bytes of values: a prior state, which may have come of an earlier configuration, a configuration and anything
/// planned.
///
/// Nothing of any values panics. A plan made by the rules keeps the rules, as does any result in which only the unknown
/// of the plan has become known; after that there is nothing more to plan.
pub fn plan(bytes: &[u8]) {
    let schema = &*SCHEMA;
    let mut bytes = Bytes(bytes);
    let earlier = bytes.object(&schema.attributes, Role::Config);
    let edited = bytes.edited(&schema.attributes, &earlier);
    let any = bytes.object(&schema.attributes, Role::Any);
    let prior = match bytes.below(4) {
        0 => Value::Null,
        1 => normalized(schema, bytes.object(&schema.attributes, Role::State)),
        _ => lawful(schema, &Value::Null, &sent(schema, &earlier), &mut bytes),
    };
    let config = sent(schema, &edited);
    lawful(schema, &prior, &config, &mut bytes);
    arbitrary(schema, &prior, &config, &any);
}

/// A configuration as Terraform sends it.
fn sent(schema: &Schema, config: &Value) -> Value {
    match conform(schema, config) {
        Ok(config) => config,
        Err(found) => panic!("the configuration is not one that Terraform sends: {found:?}"),
    }
}

/// What holds for any plan, also one that no provider would make.
fn arbitrary(schema: &Schema, prior: &Value, config: &Value, any: &Value) {
    let _ = schema.validate(config, true);
    let _ = schema.configurable(any.clone());
    let normal = normalized(schema, any.clone());
    assert_eq!(normalized(schema, normal.clone()), normal, "normalized twice");
    assert_eq!(check_known("t", schema, any).is_empty(), !any.contains_unknown());
    let known = known_only(any.clone());
    assert!(!known.contains_unknown());
    for value in [any, &normal, &known] {
        let _ = propose(schema, prior, config, value);
        let _ = check_planned("t", schema, prior, config, value);
        let _ = check_applied("t", schema, value, &known);
        let _ = check_applied("t", schema, config, value);
        let found = check_paths("t", &replaced(schema, prior, value), prior, value);
        assert!(found.is_empty(), "{found:?}");
    }
}

/// What holds for plans by the rules and for results that keep them. Gives the result.
fn lawful(schema: &Schema, prior: &Value, config: &Value, bytes: &mut Bytes<'_>) -> Value {
    let proposed = proposed_new(schema, prior, config);
    let start = propose(schema, prior, config, &proposed);
    assert_eq!(propose(schema, prior, config, &start), start, "proposed twice");
    let planned = normalized(schema, start.clone());
    // Settling opens objects of which nothing is known.
    if !config.contains_unknown() {
        assert_eq!(planned, start, "a plan is in its normal form");
    }
    // A plan whose elements have become one by what was added to them breaks Terraform's rules, whoever makes it.
    if count(config, BAG) == count(&planned, BAG) {
        let found = check_planned("t", schema, prior, config, &planned);
        assert!(found.is_empty(), "{found:#?}\nprior {prior:?}\nconfig {config:?}\nplanned {planned:?}");
    }

    let actual = normalized(schema, bytes.completed(&schema.attributes, &planned));
    let found = check_applied("t", schema, &planned, &actual);
    assert!(found.is_empty(), "{found:#?}\nplanned {planned:?}\nactual {actual:?}");
    assert!(check_known("t", schema, &actual).is_empty());

    // Which element of a set was which can be lost, and what was unknown may be anything by now.
    if !config.contains_unknown() && count(config, BAG) < 2 {
        let proposed = proposed_new(schema, &actual, config);
        let again = propose(schema, &actual, config, &proposed);
        assert_eq!(again, actual, "there is something left to plan");
    }
    actual
}

/// The set whose elements nothing tells apart.
const BAG: &str = "bag";

fn count(value: &Value, name: &str) -> usize {
    match value.get(name) {
        Some(Value::List(items)) => items.len(),
        _ => 0,
    }
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let plain = || {
        Nested::new()
            .attribute("in", Attribute::string().optional())
            .attribute("out", Attribute::string().computed())
            .attribute("kept", Attribute::string().computed().use_state_for_unknown())
            .attribute("both", Attribute::number().optional().computed())
            .attribute("mode", Attribute::string().optional().computed().default("a"))
            .attribute("fixed", Attribute::bool().optional().requires_replace())
            .attribute("tags", Attribute::set(Type::String).optional())
    };
    let keyed = || plain().attribute(KEY, Attribute::string().required());
    let secret = || plain().attribute("secret", Attribute::string().optional().write_only());
    let own = || {
        Nested::new()
            .attribute("out", Attribute::string().computed())
            .attribute("both", Attribute::string().optional().computed())
    };
    let row = secret()
        .attribute("inner", Attribute::nested_set(keyed()).optional())
        .attribute("own", Attribute::nested_single(own()).optional().computed());
    let object = Type::Object(
        [
            ("a".to_owned(), Type::String),
            ("b".to_owned(), Type::Set(Box::new(Type::Number))),
            ("c".to_owned(), Type::Tuple(vec![Type::Bool, Type::Dynamic])),
        ]
        .into(),
    );
    Schema::new(0)
        .attribute("name", Attribute::string().required().requires_replace())
        .attribute("id", Attribute::string().computed().use_state_for_unknown())
        .attribute("stamp", Attribute::string().computed())
        .attribute(
            "size",
            Attribute::number().optional().computed().validate(validators::integer_between(0, 1000)),
        )
        .attribute("mode", Attribute::string().optional().computed().default("a").requires_replace())
        .attribute("secret", Attribute::string().optional().write_only())
        .attribute("shy", Attribute::string().optional().sensitive())
        .attribute("tags", Attribute::set(Type::String).optional())
        .attribute("sizes", Attribute::set(Type::Number).optional().computed())
        .attribute("list", Attribute::list(Type::Number).optional())
        .attribute("map", Attribute::map(Type::String).optional().computed().use_state_for_unknown())
        .attribute("any", Attribute::dynamic().optional())
        .attribute("some", Attribute::dynamic().optional().computed())
        .attribute("object", Attribute::of_kind(Kind::Plain(object.clone())).optional())
        .attribute("objects", Attribute::set(object).optional().computed())
        .attribute("one", Attribute::nested_single(row.clone()).optional())
        .attribute("rows", Attribute::nested_list(row.clone()).optional())
        .attribute("parts", Attribute::nested_map(row).optional())
        .attribute(BAG, Attribute::nested_set(plain()).optional())
        .attribute("own", Attribute::nested_single(own()).optional().computed())
        .attribute("owned", Attribute::nested_map(own()).computed())
        .attribute("owns", Attribute::nested_set(own()).computed().use_state_for_unknown())
        .block("timeouts", Block::single(plain()))
        .block("rule", Block::list(secret().block("lot", Block::set(keyed()))).at_most(3))
        .block("lot", Block::set(keyed()).requires_replace())
        .at_most_one_of(&["size", "shy"])
});

/// The attribute by which the elements of a set differ.
const KEY: &str = "key";

const TEXTS: [&str; 8] = ["", "a", "b", "\u{e9}", "e\u{301}", "1", "true", "key"];
const NUMBERS: [&str; 8] = ["0", "1", "1.0", "-1", "0.1", "1e3", "1000", "18446744073709551616"];

/// Whose values they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Terraform sends it as a configuration.
    Config,
    /// A state: all is known, and nothing write-only is there.
    State,
    /// Whatever fits the types.
    Any,
}

struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    /// The next decision between so many.
    fn below(&mut self, limit: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first % limit
    }

    fn object(&mut self, attributes: &BTreeMap<String, Attribute>, role: Role) -> Value {
        let entries =
            attributes.iter().map(|(name, attribute)| (name.clone(), self.attribute(attribute, role)));
        Value::Map(entries.collect())
    }

    /// A configuration of which some attributes are written anew.
    fn edited(&mut self, attributes: &BTreeMap<String, Attribute>, config: &Value) -> Value {
        let entries = attributes.iter().map(|(name, attribute)| {
            let value = match config.get(name) {
                Some(value) if self.below(4) != 1 => value.clone(),
                _ => self.attribute(attribute, Role::Config),
            };
            (name.clone(), value)
        });
        Value::Map(entries.collect())
    }

    fn attribute(&mut self, attribute: &Attribute, role: Role) -> Value {
        let only_provider = attribute.computed && !attribute.optional;
        if role == Role::Config && only_provider || role == Role::State && attribute.write_only {
            return Value::Null;
        }
        let value = match self.below(8) {
            0 | 1 => Value::Null,
            2 if role != Role::State => Value::Unknown,
            _ => match &attribute.kind {
                Kind::Plain(ty) => self.known(ty, role),
                Kind::Nested(nesting, nested) => self.nested(*nesting, &nested.attributes, role),
            },
        };
        match value {
            Value::Null if role != Role::Any && attribute.required => TEXTS[0].into(),
            Value::Null if role != Role::Any && is_list(attribute) => Value::List(vec![]),
            value => value,
        }
    }

    fn nested(&mut self, nesting: Nesting, attributes: &BTreeMap<String, Attribute>, role: Role) -> Value {
        if nesting == Nesting::Single {
            return self.object(attributes, role);
        }
        let count = usize::from(self.below(4));
        let items = (0..count).map(|index| {
            let mut item = self.object(attributes, role);
            if let Value::Map(entries) = &mut item
                && role != Role::Any
                && let Some(key) = entries.get_mut(KEY)
            {
                *key = index.to_string().into();
            }
            item
        });
        let items: Vec<Value> = items.collect();
        match nesting {
            Nesting::Set => Value::set(items),
            Nesting::Map => Value::Map(TEXTS.iter().map(|key| (*key).to_owned()).zip(items).collect()),
            Nesting::Single | Nesting::List => Value::List(items),
        }
    }

    /// A value of a type, which may be null or unknown.
    fn value(&mut self, ty: &Type, role: Role) -> Value {
        match self.below(8) {
            0 => Value::Null,
            1 if role != Role::State => Value::Unknown,
            _ => self.known(ty, role),
        }
    }

    fn known(&mut self, ty: &Type, role: Role) -> Value {
        let items = |bytes: &mut Self, element: &Type| -> Vec<Value> {
            (0..bytes.below(4)).map(|_| bytes.value(element, role)).collect()
        };
        match ty {
            Type::String => TEXTS[usize::from(self.below(8))].into(),
            Type::Number => {
                Number::parse(NUMBERS[usize::from(self.below(8))]).map_or(Value::Null, Value::Number)
            }
            Type::Bool => (self.below(2) == 0).into(),
            Type::List(element) => Value::List(items(self, element)),
            Type::Set(element) => Value::set(items(self, element)),
            Type::Map(element) => {
                let items = items(self, element);
                Value::Map(TEXTS.iter().map(|key| (*key).to_owned()).zip(items).collect())
            }
            Type::Tuple(types) => Value::List(types.iter().map(|ty| self.value(ty, role)).collect()),
            Type::Object(types) => {
                Value::Map(types.iter().map(|(name, ty)| (name.clone(), self.value(ty, role))).collect())
            }
            Type::Dynamic => {
                let ty = match self.below(6) {
                    0 => Type::String,
                    1 => Type::Number,
                    2 => Type::Set(Box::new(Type::String)),
                    3 => Type::Tuple(vec![Type::Bool, Type::String]),
                    4 => Type::Object([("a".to_owned(), Type::String)].into()),
                    _ => Type::List(Box::new(Type::Dynamic)),
                };
                let value = self.value(&ty, role);
                Value::Dynamic(Box::new((ty, value)))
            }
        }
    }

    /// What becomes of a plan: something known in every place that is not.
    fn completed(&mut self, attributes: &BTreeMap<String, Attribute>, planned: &Value) -> Value {
        let Value::Map(entries) = planned else {
            return planned.clone();
        };
        let entries = entries.iter().map(|(name, planned)| {
            let value = match attributes.get(name) {
                Some(attribute) => self.completed_attribute(attribute, planned),
                None => planned.clone(),
            };
            (name.clone(), value)
        });
        Value::Map(entries.collect())
    }

    fn completed_attribute(&mut self, attribute: &Attribute, planned: &Value) -> Value {
        let (nesting, attributes) = match &attribute.kind {
            Kind::Plain(ty) => return self.completed_type(ty, planned),
            Kind::Nested(nesting, nested) => (*nesting, &nested.attributes),
        };
        let mut one = |planned: &Value| {
            if planned.is_unknown() {
                self.object(attributes, Role::State)
            } else {
                self.completed(attributes, planned)
            }
        };
        match planned {
            Value::Unknown => self.attribute(attribute, Role::State),
            Value::List(items) => Value::List(items.iter().map(one).collect()),
            Value::Map(entries) if nesting == Nesting::Map => {
                Value::Map(entries.iter().map(|(key, value)| (key.clone(), one(value))).collect())
            }
            planned => one(planned),
        }
    }

    fn completed_type(&mut self, ty: &Type, planned: &Value) -> Value {
        match (ty, planned) {
            (ty, Value::Unknown) => self.value(ty, Role::State),
            (Type::List(element) | Type::Set(element), Value::List(items)) => {
                Value::List(items.iter().map(|item| self.completed_type(element, item)).collect())
            }
            (Type::Tuple(types), Value::List(items)) => {
                let items = types.iter().zip(items).map(|(ty, item)| self.completed_type(ty, item));
                Value::List(items.collect())
            }
            (Type::Map(element), Value::Map(entries)) => {
                let entries = entries.iter();
                let entries = entries.map(|(key, value)| (key.clone(), self.completed_type(element, value)));
                Value::Map(entries.collect())
            }
            (Type::Object(types), Value::Map(_)) => {
                let entries = types.iter().map(|(name, ty)| {
                    let planned = planned.get(name).unwrap_or(&Value::Null);
                    (name.clone(), self.completed_type(ty, planned))
                });
                Value::Map(entries.collect())
            }
            (_, Value::Dynamic(typed)) => {
                let (ty, planned) = &**typed;
                Value::Dynamic(Box::new((ty.clone(), self.completed_type(ty, planned))))
            }
            (_, planned) => planned.clone(),
        }
    }
}

/// Whether it is empty, not null, where there is none.
fn is_list(attribute: &Attribute) -> bool {
    attribute.block.is_some() && matches!(attribute.kind, Kind::Nested(Nesting::List | Nesting::Set, _))
}
