//! `kitchen_mimic` plans and returns what its configuration says, right or wrong: Terraform is to judge it.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tfplugin::{
    Applied, ApplyRequest, Attribute, Block, Cx, Diagnostics, Nested, PlanRequest, PlanResponse, Resource,
    Schema, State, Type, Value,
};

use super::Cook;

pub(super) struct Mimic;

type Model = BTreeMap<String, Value>;

fn nested() -> Nested {
    Nested::new()
        .attribute("in", Attribute::string().optional().description("A text."))
        .attribute("out", Attribute::string().computed().description("A text."))
        .attribute("both", Attribute::string().optional().computed().description("A text."))
}

fn described(attribute: Attribute) -> Attribute {
    attribute.description("Some value.")
}

/// What an attribute says by `[{ "at": ["rows", 0, "in"], "to": … }, …]` is put there. `{ "unknown": true }` is what is not known.
fn edit(model: &mut Model, edits: &str) {
    let Some(Value::String(text)) = model.get(edits).cloned() else { return };
    let edits: Vec<Json> = serde_json::from_str(&text).unwrap_or_default();
    for one in edits {
        let steps = one["at"].as_array().cloned().unwrap_or_default();
        let Some((Json::String(name), rest)) = steps.split_first() else { continue };
        let place = model.get_mut(name).and_then(|value| at(value, rest));
        if let Some(place) = place {
            *place = value(&one["to"]);
        }
    }
}

/// The value at a path in another one.
fn at<'v>(value: &'v mut Value, path: &[Json]) -> Option<&'v mut Value> {
    let Some((step, rest)) = path.split_first() else {
        return Some(value);
    };
    let inner = match (value, step) {
        (Value::Map(entries), Json::String(name)) => entries.get_mut(name),
        (Value::List(items), Json::Number(index)) => items.get_mut(usize::try_from(index.as_u64()?).ok()?),
        _ => None,
    };
    at(inner?, rest)
}

fn value(json: &Json) -> Value {
    match json {
        Json::Array(items) => Value::List(items.iter().map(value).collect()),
        Json::Object(entries) if entries.contains_key("unknown") => Value::Unknown,
        Json::Object(entries) if entries.contains_key("dynamic") => value(&entries["dynamic"]).into_dynamic(),
        Json::Object(entries) => {
            Value::Map(entries.iter().map(|(name, one)| (name.clone(), value(one))).collect())
        }
        other => Value::from_json(other),
    }
}

/// What is not known becomes a text, or nothing where no text can be.
fn known(value: Value) -> Value {
    match value {
        Value::Unknown => Value::from("known"),
        Value::List(items) => Value::List(items.into_iter().map(known).collect()),
        Value::Map(entries) => {
            Value::Map(entries.into_iter().map(|(name, value)| (name, known(value))).collect())
        }
        Value::Dynamic(typed) => Value::Dynamic(Box::new((typed.0, known(typed.1)))),
        value => value,
    }
}

impl Resource<Cook> for Mimic {
    const TYPE: &'static str = "kitchen_mimic";
    type Model = Model;
    type Private = ();

    fn schema(&self) -> Schema {
        let texts = || Attribute::list(Type::String);
        Schema::new(0)
            .description("Plans and returns what it is told to.")
            .attribute("case", described(Attribute::string().required()))
            .attribute("plan", described(Attribute::string().optional()))
            .attribute("result", described(Attribute::string().optional()))
            .attribute("text", described(Attribute::string().optional()))
            .attribute("out", described(Attribute::string().computed()))
            .attribute("both", described(Attribute::string().optional().computed()))
            .attribute("hidden", described(Attribute::string().optional().write_only()))
            .attribute("list", described(texts().optional()))
            .attribute("set", described(Attribute::set(Type::String).optional()))
            .attribute("map", described(Attribute::map(Type::String).optional().computed()))
            .attribute("any", described(Attribute::dynamic().optional().computed()))
            .attribute("one", described(Attribute::nested_single(nested()).optional()))
            .attribute("rows", described(Attribute::nested_list(nested()).optional()))
            .attribute("lines", described(Attribute::nested_list(nested()).optional().computed()))
            .attribute("bag", described(Attribute::nested_set(nested()).optional()))
            .attribute("parts", described(Attribute::nested_map(nested()).optional()))
            .block("row", Block::list(nested()).description("Some rows."))
            .block("thing", Block::set(nested()).description("Some things."))
    }

    async fn plan(
        &self,
        _: &Cx<Cook>,
        request: PlanRequest<Model>,
    ) -> Result<PlanResponse<Model>, Diagnostics> {
        let mut planned = request.proposed;
        edit(&mut planned, "plan");
        Ok(PlanResponse::new(planned, ()))
    }

    async fn read(&self, _: &Cx<Cook>, state: State<Model>) -> Result<Option<State<Model>>, Diagnostics> {
        Ok(Some(state))
    }

    async fn create(&self, _: &Cx<Cook>, request: ApplyRequest<Model>) -> Applied<Model> {
        let mut result: Model = request
            .planned
            .into_iter()
            .map(|(name, value)| {
                let is_text = !matches!(
                    name.as_str(),
                    "list" | "set" | "map" | "one" | "rows" | "lines" | "bag" | "parts"
                );
                // A whole collection that is not known turns out not to be there.
                let value = if value == Value::Unknown && !is_text { Value::Null } else { known(value) };
                (name, value)
            })
            .collect();
        edit(&mut result, "result");
        Ok(result.into())
    }

    async fn update(&self, cx: &Cx<Cook>, _: State<Model>, request: ApplyRequest<Model>) -> Applied<Model> {
        self.create(cx, request).await
    }

    async fn delete(&self, _: &Cx<Cook>, _: State<Model>) -> Result<(), Diagnostics> {
        Ok(())
    }
}
