//! `kitchen_pot`, with every kind of attribute, and `kitchen_kettle`, which can become one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tfplugin::{
    Applied, ApplyRequest, Attr, Attribute, Block, Cx, Deferral, Diagnostic, Diagnostics, Found,
    IdentityAttribute, IdentitySchema, ListRequest, ListResource, Listed, MoveRequest, Nested, Path,
    PlanRequest, PlanResponse, Resource, Schema, State, StoredPrivate, Type, Value, to_value, validators,
};

use super::{Cook, Meta, json};

pub(super) struct Pot;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Model {
    id: Attr<String>,
    name: Attr<String>,
    size: Attr<u32>,
    metal: Attr<String>,
    secret: Attr<String>,
    secret_version: Attr<u32>,
    tags: Attr<Vec<Attr<String>>>,
    parts: Attr<BTreeMap<String, Attr<Part>>>,
    lids: Attr<Vec<Attr<Part>>>,
    stand: Attr<Part>,
    any: Attr<Value>,
    stamp: Attr<String>,
    rule: Attr<Vec<Attr<Rule>>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Part {
    kind: Attr<String>,
    weight: Attr<u32>,
    serial: Attr<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Rule {
    of: Attr<String>,
}

/// How often it was planned and applied, to see that private data go the right way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Private {
    #[serde(default)]
    owner: String,
    #[serde(default)]
    plans: u32,
}

impl Model {
    fn name(&self) -> &str {
        self.name.known().map_or("", String::as_str)
    }

    fn path() -> Path {
        Path::root().attribute("name")
    }

    /// Makes known what only the kitchen knows.
    fn finish(&mut self, cook: &Cook) {
        let name = self.name().to_owned();
        fill(&mut self.id, || format!("pot:{name}"));
        fill(&mut self.stamp, || cook.on_shelf(|shelf| format!("stamp {}", shelf.done.len())));
        let parts = self.parts.known_mut().into_iter().flat_map(|parts| parts.values_mut());
        let lids = self.lids.known_mut().into_iter().flatten();
        let loose = parts.chain(lids).filter_map(Attr::known_mut);
        for part in loose.chain(self.stand.known_mut()) {
            let kind = part.kind.known().cloned().unwrap_or_default();
            fill(&mut part.serial, || format!("{name}/{kind}"));
        }
    }

    fn put(mut self, cook: &Cook, verb: &str, private: Private) -> State<Self, Private> {
        let secret = self.secret.known().map_or(0, String::len);
        self.finish(cook);
        let mut there = json(&to_value(&self).unwrap_or(Value::Null));
        there["secret_length"] = secret.into();
        let name = self.name().to_owned();
        cook.on_shelf(|shelf| {
            shelf.done.push(format!("{verb} {name}"));
            shelf.pots.insert(name, there);
        });
        self.secret = Attr::Null;
        State { value: self, private }
    }
}

impl Private {
    /// Nobody's are those of a pot whose creation failed, or those that could not be read.
    fn is_of(&self, name: &str) {
        assert!(self.owner.is_empty() || self.owner == name, "private data are those of this pot");
    }
}

fn fill(attribute: &mut Attr<String>, value: impl FnOnce() -> String) {
    if attribute.is_unknown() {
        *attribute = Attr::Known(value());
    }
}

impl Resource<Cook> for Pot {
    const TYPE: &'static str = "kitchen_pot";
    type Model = Model;
    type Private = Private;
    const PRIVATE_VERSION: u32 = 1;

    fn schema(&self) -> Schema {
        let part = || {
            Nested::new()
                .attribute(
                    "kind",
                    Attribute::string().required().requires_replace().description("What it is."),
                )
                .attribute("weight", Attribute::number().optional().description("In grams."))
                .attribute(
                    "serial",
                    Attribute::string().computed().use_state_for_unknown().description("Its number."),
                )
        };
        let rule =
            Nested::new().attribute("of", Attribute::string().required().description("What it is about."));
        Schema::new(1)
            .description("A pot.")
            .attribute("id", Attribute::string().computed().use_state_for_unknown().description("Its id."))
            .attribute(
                "name",
                Attribute::string()
                    .required()
                    .requires_replace()
                    .validate(validators::not_empty())
                    .description("What it is called."),
            )
            .attribute(
                "size",
                Attribute::number()
                    .optional()
                    .computed()
                    .default(1i64)
                    .validate(validators::integer_between(1, 99))
                    .description("In litres."),
            )
            .attribute(
                "metal",
                Attribute::string()
                    .optional()
                    .validate(validators::one_of(&["iron", "copper"]))
                    .description("What it is made of."),
            )
            .attribute("secret", Attribute::string().optional().write_only().description("The recipe."))
            .attribute(
                "secret_version",
                Attribute::number().optional().description("Another number: another recipe."),
            )
            .attribute("tags", Attribute::set(Type::String).optional().description("Words."))
            .attribute("parts", Attribute::nested_map(part()).optional().description("By name."))
            .attribute("lids", Attribute::nested_set(part()).optional().description("Each once."))
            .attribute("stand", Attribute::nested_single(part()).optional().description("What it stands on."))
            .attribute("any", Attribute::dynamic().optional().description("Anything."))
            .attribute("stamp", Attribute::string().computed().description("Another one with each change."))
            .block("rule", Block::list(rule).description("What to keep to."))
            .identity(
                IdentitySchema::new(1)
                    .attribute("name", IdentityAttribute::new(Type::String).description("Its name.")),
            )
    }

    async fn validate(&self, config: Model) -> Result<(), Diagnostics> {
        match config.name.known().map(String::as_str) {
            Some("lid") => Err(Diagnostic::error("A lid is no pot").at(Model::path()).into()),
            Some("old pot") => Err(Diagnostic::warning("This pot is old").at(Model::path()).into()),
            _ => Ok(()),
        }
    }

    async fn plan(
        &self,
        cx: &Cx<Cook>,
        request: PlanRequest<Model, Private>,
    ) -> Result<PlanResponse<Model, Private>, Diagnostics> {
        if let Some(Meta { recipe: Attr::Known(recipe) }) = cx.meta() {
            cx.data.note(format!("plan by {recipe}"));
        }
        if cx.data.open {
            cx.defer(Deferral::ProviderConfigUnknown);
        }
        let mut private = request.prior.map(|state| state.private).unwrap_or_default();
        private.plans = request.planned.map_or(0, |planned| planned.plans) + 1;
        Ok(PlanResponse::new(request.proposed, private))
    }

    async fn plan_destroy(&self, cx: &Cx<Cook>, prior: State<Model, Private>) -> Result<(), Diagnostics> {
        match prior.value.metal.known().map(String::as_str) {
            Some("copper") if prior.value.name() == "heirloom" => {
                Err(Diagnostic::error("Heirlooms are not thrown away").into())
            }
            Some("copper") => {
                cx.warn(Diagnostic::warning("Copper is dear"));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn read(
        &self,
        cx: &Cx<Cook>,
        state: State<Model, Private>,
    ) -> Result<Option<State<Model, Private>>, Diagnostics> {
        let name = state.value.name().to_owned();
        let Some(there) = cx.data.on_shelf(|shelf| shelf.pots.get(&name).cloned()) else {
            return Ok(None);
        };
        let mut value = state.value;
        if value.size.is_null() {
            // Imported: nothing but its name is known yet.
            value.id = Attr::Known(format!("pot:{name}"));
            value.stamp = Attr::Known("imported".to_owned());
            value.metal = there["metal"].as_str().map(str::to_owned).into();
        }
        value.size = there["size"].as_u64().and_then(|size| u32::try_from(size).ok()).into();
        Ok(Some(State { value, private: state.private }))
    }

    async fn create(&self, cx: &Cx<Cook>, request: ApplyRequest<Model, Private>) -> Applied<Model, Private> {
        let value = Model { secret: request.config.secret, ..request.planned };
        let private = Private { owner: value.name().to_owned(), ..request.private };
        Ok(value.put(&cx.data, "create", private))
    }

    async fn update(
        &self,
        cx: &Cx<Cook>,
        prior: State<Model, Private>,
        request: ApplyRequest<Model, Private>,
    ) -> Applied<Model, Private> {
        prior.private.is_of(prior.value.name());
        let value = Model { secret: request.config.secret, ..request.planned };
        Ok(value.put(&cx.data, "update", request.private))
    }

    async fn delete(&self, cx: &Cx<Cook>, state: State<Model, Private>) -> Result<(), Diagnostics> {
        let name = state.value.name();
        state.private.is_of(name);
        cx.data.on_shelf(|shelf| {
            shelf.done.push(format!("delete {name}"));
            shelf.pots.remove(name);
        });
        Ok(())
    }

    async fn import(&self, _: &Cx<Cook>, id: &str) -> Result<State<Model, Private>, Diagnostics> {
        if id.is_empty() {
            return Err(Diagnostic::error("Expected the name of a pot").into());
        }
        let value = Model { name: Attr::Known(id.to_owned()), rule: Attr::Known(vec![]), ..Model::default() };
        Ok(State { value, private: Private { owner: id.to_owned(), plans: 0 } })
    }

    async fn move_state(&self, request: MoveRequest) -> Result<Option<State<Model, Private>>, Diagnostics> {
        let name = match request.source_type.as_str() {
            "kitchen_kettle" => request.state["name"].as_str(),
            "terraform_data" => request.state["output"]["value"].as_str(),
            _ => return Ok(None),
        };
        let Some(name) = name else {
            return Err(Diagnostic::error("Only what has a name can become a pot").into());
        };
        let value = Model {
            id: Attr::Known(format!("pot:{name}")),
            name: Attr::Known(name.to_owned()),
            size: Attr::Known(1),
            stamp: Attr::Known("moved".to_owned()),
            rule: Attr::Known(vec![]),
            ..Model::default()
        };
        Ok(Some(State { value, private: Private { owner: name.to_owned(), plans: 0 } }))
    }

    fn upgrade(&self, version: i64, mut state: serde_json::Value) -> Result<serde_json::Value, Diagnostics> {
        // Version 0 had `litres`, a text.
        let litres = state["litres"].as_str().and_then(|text| text.parse::<u32>().ok());
        match (version, litres) {
            (0, Some(litres)) => {
                state["size"] = litres.into();
                state["rule"] = serde_json::json!([]);
                Ok(state)
            }
            _ => Err(Diagnostic::error("This state is not of version 0").into()),
        }
    }

    fn upgrade_private(&self, stored: StoredPrivate) -> Option<Private> {
        // Version 0 had the owner only, and the SDK before this one had it under another name.
        let owner = match &stored {
            StoredPrivate::Version(0, data) => data.as_str().map(str::to_owned),
            StoredPrivate::Version(..) => None,
            StoredPrivate::Foreign(bytes) => {
                let found: serde_json::Value = serde_json::from_slice(bytes).ok()?;
                found["cook"].as_str().map(str::to_owned)
            }
        };
        Some(Private { owner: owner?, plans: 0 })
    }

    fn upgrade_identity(
        &self,
        _: i64,
        identity: serde_json::Value,
    ) -> Result<serde_json::Value, Diagnostics> {
        Ok(serde_json::json!({ "name": identity["title"] }))
    }
}

/// Lists pots.
pub(super) struct Pots;

#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    prefix: Attr<String>,
}

impl ListResource<Cook> for Pots {
    const TYPE: &'static str = "kitchen_pot";
    type Config = Filter;
    type Model = Model;

    fn schema(&self) -> Schema {
        let prefix = Attribute::string().optional().description("What their names begin with.");
        Schema::new(0).description("Pots.").attribute("prefix", prefix)
    }

    async fn list(
        &self,
        cx: &Cx<Cook>,
        request: ListRequest<Filter>,
        found: &Found<Model>,
    ) -> Result<(), Diagnostics> {
        let prefix = request.config.prefix.into_known().unwrap_or_default();
        let endless = prefix == "endless";
        let names: Vec<_> = cx.data.on_shelf(|shelf| shelf.pots.keys().cloned().collect());
        for name in names.into_iter().filter(|name| name.starts_with(&prefix)) {
            if name == "broken" {
                return Err(Diagnostic::error("One pot is broken").into());
            }
            let state =
                Model { name: Attr::Known(name.clone()), rule: Attr::Known(vec![]), ..Model::default() };
            if found.push(Listed::new(format!("the {name}"), state)).await.is_break() {
                cx.data.note("listed enough");
                break;
            }
        }
        if endless {
            cx.cancel.cancelled().await;
            cx.data.note("nobody listens");
        }
        cx.warn(Diagnostic::warning("There may be more"));
        Ok(())
    }
}

/// A kettle: a name and nothing else.
pub(super) struct Kettle;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct KettleModel {
    name: Attr<String>,
}

impl Resource<Cook> for Kettle {
    const TYPE: &'static str = "kitchen_kettle";
    type Model = KettleModel;
    type Private = ();

    fn schema(&self) -> Schema {
        let name = Attribute::string().required().description("What it is called.");
        Schema::new(0).description("A kettle.").attribute("name", name).deprecated("Use a pot.")
    }

    async fn read(
        &self,
        _: &Cx<Cook>,
        state: State<KettleModel>,
    ) -> Result<Option<State<KettleModel>>, Diagnostics> {
        Ok(Some(state))
    }

    async fn create(&self, cx: &Cx<Cook>, request: ApplyRequest<KettleModel>) -> Applied<KettleModel> {
        // What was a kettle is on the shelf as a pot, so that it can become one.
        let name = request.planned.name.known().cloned().unwrap_or_default();
        cx.data.on_shelf(|shelf| shelf.pots.insert(name, serde_json::json!({ "size": 1 })));
        Ok(request.planned.into())
    }

    async fn update(
        &self,
        _: &Cx<Cook>,
        _: State<KettleModel>,
        request: ApplyRequest<KettleModel>,
    ) -> Applied<KettleModel> {
        Ok(request.planned.into())
    }

    async fn delete(&self, _: &Cx<Cook>, _: State<KettleModel>) -> Result<(), Diagnostics> {
        Ok(())
    }
}
