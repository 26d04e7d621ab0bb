//! The kitchen: pots that last, a rogue that breaks every rule, and one of each other kind.

mod mimic;
mod others;
mod pot;
mod pots;
mod rogue;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tfplugin::{
    Attr, Attribute, ConfigureCx, Diagnostics, DynAction, DynDataSource, DynEphemeralResource, DynFunction,
    DynListResource, DynResource, Provider, Schema, Value,
};

/// The provider. What it manages is in the file that its configuration names, or in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kitchen {
    shelf: Arc<Mutex<Shelf>>,
}

/// What is really there, as JSON: the pots by name, and what was done in which order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Shelf {
    /// Pots by name.
    pub(crate) pots: BTreeMap<String, serde_json::Value>,
    /// What was done.
    pub(crate) done: Vec<String>,
}

/// The configured provider.
#[derive(Debug)]
pub(crate) struct Cook {
    shelf: Arc<Mutex<Shelf>>,
    file: Option<String>,
    /// The configuration is not known yet.
    open: bool,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    shelf: Attr<String>,
}

/// What modules say about themselves.
#[derive(Debug, Deserialize)]
pub(crate) struct Meta {
    recipe: Attr<String>,
}

impl Kitchen {
    /// What is really there; to look at, and to change behind Terraform's back.
    #[allow(dead_code, reason = "the program has nobody to look")]
    pub(crate) fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cook {
    /// Works on the shelf.
    fn on_shelf<T>(&self, work: impl FnOnce(&mut Shelf) -> T) -> T {
        let mut items = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &self.file else {
            return work(&mut items);
        };
        // Several processes of one run follow one another; the file is what they have in common.
        if let Ok(text) = std::fs::read(file) {
            *items = serde_json::from_slice(&text).unwrap_or_default();
        }
        let result = work(&mut items);
        let _ = serde_json::to_vec(&*items).map(|text| std::fs::write(file, text));
        result
    }

    fn note(&self, what: impl Into<String>) {
        self.on_shelf(|shelf| shelf.done.push(what.into()));
    }
}

impl Provider for Kitchen {
    type Config = Config;
    type Data = Cook;

    const NAME: &'static str = "kitchen";
    const SOURCE: &'static str = "example/kitchen";

    fn schema(&self) -> Schema {
        Schema::new(0).description("A kitchen.").attribute(
            "shelf",
            Attribute::string().optional().description("The file that says what is there. Default: memory."),
        )
    }

    fn meta_schema(&self) -> Option<Schema> {
        let recipe = Attribute::string().optional().description("What the module cooks.");
        Some(Schema::new(0).description("What modules say.").attribute("recipe", recipe))
    }

    async fn configure(&self, _: &ConfigureCx, config: Config) -> Result<Cook, Diagnostics> {
        let open = config.shelf.is_unknown();
        Ok(Cook { shelf: self.shelf.clone(), file: config.shelf.into_known(), open })
    }

    fn resources(&self) -> Vec<Box<dyn DynResource<Cook>>> {
        vec![
            tfplugin::resource(pot::Pot),
            tfplugin::resource(pot::Kettle),
            tfplugin::resource(rogue::Rogue),
            tfplugin::resource(mimic::Mimic),
            tfplugin::resource(others::Brigade),
        ]
    }

    fn data_sources(&self) -> Vec<Box<dyn DynDataSource<Cook>>> {
        vec![tfplugin::data_source(others::Weather)]
    }

    fn functions(&self) -> Vec<Box<dyn DynFunction>> {
        vec![
            tfplugin::function(others::Echo),
            tfplugin::function(others::Join),
            tfplugin::function(others::Burn),
        ]
    }

    fn ephemeral_resources(&self) -> Vec<Box<dyn DynEphemeralResource<Cook>>> {
        vec![tfplugin::ephemeral_resource(others::Fire)]
    }

    fn list_resources(&self) -> Vec<Box<dyn DynListResource<Cook>>> {
        vec![tfplugin::list_resource(pots::Pots)]
    }

    fn actions(&self) -> Vec<Box<dyn DynAction<Cook>>> {
        vec![tfplugin::action(others::Boil)]
    }
}

/// A value as JSON, for the shelf.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(bool) => (*bool).into(),
        Value::Number(number) => serde_json::from_str(&number.to_string()).unwrap_or_default(),
        Value::String(text) => text.as_str().into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => entries.iter().map(|(name, value)| (name.clone(), json(value))).collect(),
        Value::Dynamic(typed) => json(&typed.1),
        Value::Null | Value::Unknown => serde_json::Value::Null,
    }
}
