//! One of each other kind.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tfplugin::{
    Action, Applied, ApplyRequest, Attr, Attribute, Cx, DataSource, Deferral, Diagnostic, Diagnostics,
    EphemeralResource, Function, FunctionError, Nested, Opened, Parameter, Path, Progress, Renewed, Resource,
    Schema, Signature, State, Type, Value, completed,
};

use super::Cook;

/// `data.kitchen_weather` says how it is.
pub(super) struct Weather;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WeatherModel {
    place: Attr<String>,
    sun: Attr<bool>,
}

impl DataSource<Cook> for Weather {
    const TYPE: &'static str = "kitchen_weather";
    type Model = WeatherModel;

    fn schema(&self) -> Schema {
        Schema::new(0)
            .description("How it is outside.")
            .attribute("place", Attribute::string().required().description("Where."))
            .attribute("sun", Attribute::bool().computed().description("Whether the sun shines."))
    }

    async fn validate(&self, config: WeatherModel) -> Result<(), Diagnostics> {
        if config.place.known().is_some_and(String::is_empty) {
            return Err(Diagnostic::error("Nowhere is no place").at(Path::root().attribute("place")).into());
        }
        Ok(())
    }

    async fn read(&self, cx: &Cx<Cook>, config: WeatherModel) -> Result<WeatherModel, Diagnostics> {
        cx.warn(Diagnostic::warning("Weather changes"));
        let sun = match config.place.known().map(String::as_str) {
            Some("fog") => Attr::Unknown,
            place => Attr::Known(place != Some("cellar")),
        };
        Ok(WeatherModel { sun, ..config })
    }
}

/// `echo(value)`: any value, as it is.
pub(super) struct Echo;

impl Function for Echo {
    const NAME: &'static str = "echo";
    type Arguments = (Value,);
    type Output = Value;

    fn signature(&self) -> Signature {
        Signature::returns(Type::Dynamic)
            .summary("Says what it hears")
            .description("Returns its argument as it is.")
            .parameter("value", Parameter::new(Type::Dynamic).allow_null().description("Anything."))
    }

    fn call(&self, (value,): (Value,)) -> Result<Value, FunctionError> {
        Ok(value)
    }
}

/// `join(separator, numbers…)`.
pub(super) struct Join;

impl Function for Join {
    const NAME: &'static str = "join";
    type Arguments = (String, Vec<u8>);
    type Output = String;

    fn signature(&self) -> Signature {
        Signature::returns(Type::String)
            .summary("Joins numbers")
            .description("Joins small numbers by a separator.")
            .parameter("separator", Parameter::new(Type::String).description("What is between them."))
            .variadic("numbers", Parameter::new(Type::Number).description("From 0 to 255."))
    }

    fn call(&self, (separator, numbers): (String, Vec<u8>)) -> Result<String, FunctionError> {
        Ok(numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(&separator))
    }
}

/// `burn(what)` never succeeds.
pub(super) struct Burn;

impl Function for Burn {
    const NAME: &'static str = "burn";
    type Arguments = (String,);
    type Output = String;

    fn signature(&self) -> Signature {
        Signature::returns(Type::String)
            .summary("Burns")
            .description("Fails, or panics when told to.")
            .parameter("what", Parameter::new(Type::String).description("What to burn."))
    }

    fn call(&self, (what,): (String,)) -> Result<String, FunctionError> {
        assert_ne!(what, "everything", "a panic that was asked for");
        Err(FunctionError::new(format!("{what} is burnt")).argument(0))
    }
}

/// `ephemeral.kitchen_fire` burns while a run lasts.
pub(super) struct Fire;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FireModel {
    fuel: Attr<String>,
    renew: Attr<bool>,
    heat: Attr<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Embers {
    fuel: String,
    renewed: u32,
}

impl EphemeralResource<Cook> for Fire {
    const TYPE: &'static str = "kitchen_fire";
    type Model = FireModel;
    type Private = Embers;

    fn schema(&self) -> Schema {
        Schema::new(0)
            .description("A fire.")
            .attribute("fuel", Attribute::string().required().description("What burns."))
            .attribute(
                "renew",
                Attribute::bool().optional().description("Whether it has to be looked after."),
            )
            .attribute("heat", Attribute::string().computed().sensitive().description("What comes of it."))
    }

    async fn validate(&self, config: FireModel) -> Result<(), Diagnostics> {
        if config.fuel.known().is_some_and(|fuel| fuel == "water") {
            return Err(Diagnostic::error("Water does not burn").at(Path::root().attribute("fuel")).into());
        }
        Ok(())
    }

    async fn open(&self, cx: &Cx<Cook>, config: FireModel) -> Result<Opened<FireModel, Embers>, Diagnostics> {
        let fuel = config.fuel.known().cloned().unwrap_or_default();
        cx.data.note(format!("open {fuel}"));
        let renew = config.renew.known().copied().unwrap_or_default();
        let value = FireModel { heat: Attr::Known(format!("heat of {fuel}")), ..config };
        let opened = Opened::new(value, Embers { fuel, renewed: 0 });
        Ok(if renew { opened.renew_at(SystemTime::now() + Duration::from_millis(200)) } else { opened })
    }

    async fn renew(&self, cx: &Cx<Cook>, embers: Embers) -> Result<Renewed<Embers>, Diagnostics> {
        cx.data.note(format!("renew {}", embers.fuel));
        let private = Embers { renewed: embers.renewed + 1, ..embers };
        Ok(Renewed::new(private).renew_at(SystemTime::now() + Duration::from_millis(200)))
    }

    async fn close(&self, cx: &Cx<Cook>, embers: Embers) -> Result<(), Diagnostics> {
        if cx.cancel.is_cancelled() {
            return Err(Diagnostic::error("There is no time to put the fire out").into());
        }
        let times = if embers.renewed > 0 { ", renewed" } else { "" };
        cx.data.note(format!("close {}{times}", embers.fuel));
        Ok(())
    }
}

/// The action `kitchen_boil`.
pub(super) struct Boil;

#[derive(Debug, Deserialize)]
pub(super) struct BoilConfig {
    pot: Attr<String>,
}

impl Action<Cook> for Boil {
    const TYPE: &'static str = "kitchen_boil";
    type Config = BoilConfig;

    fn schema(&self) -> Schema {
        let pot = Attribute::string().required().description("Which pot.");
        Schema::new(0).description("Boils water.").attribute("pot", pot)
    }

    async fn plan(&self, cx: &Cx<Cook>, config: BoilConfig) -> Result<(), Diagnostics> {
        if cx.data.open {
            cx.defer(Deferral::ProviderConfigUnknown);
            return Ok(());
        }
        let there = |pot: &str| cx.data.on_shelf(|shelf| shelf.pots.contains_key(pot));
        match config.pot.known().map(String::as_str) {
            Some("pot of tomorrow") => cx.defer(Deferral::AbsentPrerequisite),
            Some(pot) if !there(pot) => {
                return Err(Diagnostic::error(format!("There is no pot {pot}"))
                    .at(Path::root().attribute("pot"))
                    .into());
            }
            _ => {}
        }
        Ok(())
    }

    async fn invoke(
        &self,
        cx: &Cx<Cook>,
        config: BoilConfig,
        progress: &Progress,
    ) -> Result<(), Diagnostics> {
        progress.say("filling");
        progress.say("heating");
        cx.data.note("boiled");
        cx.warn(Diagnostic::warning("It is hot"));
        assert!(config.pot.known().is_none_or(|pot| pot != "bomb"), "a panic that was asked for");
        if config.pot.known().is_some_and(|pot| pot == "samovar") {
            // Somebody always has more to say.
            std::mem::forget(progress.clone());
        }
        progress.say("boiling");
        Ok(())
    }
}

/// `kitchen_brigade`: a map of any size, shaped like a deployment onto machines. The benchmark's.
pub(super) struct Brigade;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct BrigadeModel {
    order: Attr<String>,
    machines: Attr<BTreeMap<String, Attr<Machine>>>,
    systems: Attr<BTreeMap<String, Attr<System>>>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Machine {
    host: Attr<String>,
    port: Attr<u16>,
    user: Attr<String>,
    host_public_key: Attr<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct System {
    toplevel: Attr<String>,
    generation: Attr<u64>,
    changes: Attr<Vec<Attr<String>>>,
}

impl Resource<Cook> for Brigade {
    const TYPE: &'static str = "kitchen_brigade";
    type Model = BrigadeModel;
    type Private = ();

    fn schema(&self) -> Schema {
        let machine = Nested::new()
            .attribute("host", Attribute::string().required().description("Address."))
            .attribute("port", Attribute::number().optional().description("Port."))
            .attribute("user", Attribute::string().optional().description("User."))
            .attribute("host_public_key", Attribute::string().optional().description("Key."));
        let system = Nested::new()
            .attribute("toplevel", Attribute::string().computed().description("Path."))
            .attribute("generation", Attribute::number().computed().description("Number."))
            .attribute("changes", Attribute::list(Type::String).computed().description("Lines."));
        Schema::new(0)
            .description("Many machines.")
            .attribute("order", Attribute::string().required().description("What they run."))
            .attribute("machines", Attribute::nested_map(machine).required().description("By name."))
            .attribute("systems", Attribute::nested_map(system).computed().description("By name."))
    }

    async fn plan(
        &self,
        _: &Cx<Cook>,
        request: tfplugin::PlanRequest<BrigadeModel>,
    ) -> Result<tfplugin::PlanResponse<BrigadeModel>, Diagnostics> {
        let mut planned = request.proposed;
        if let (Attr::Unknown, Attr::Known(machines), Attr::Known(order)) =
            (&planned.systems, &planned.machines, &planned.order)
        {
            let system = |name: &String| {
                let toplevel = Attr::Known(format!("/nix/store/{order}-{name}"));
                let changes =
                    (0..4).map(|n| Attr::Known(format!("package {n} 1.0 -> 1.1 on {name}"))).collect();
                Attr::Known(System { toplevel, generation: Attr::Unknown, changes: Attr::Known(changes) })
            };
            planned.systems = Attr::Known(machines.keys().map(|name| (name.clone(), system(name))).collect());
        }
        Ok(tfplugin::PlanResponse::new(planned, ()))
    }

    async fn read(
        &self,
        _: &Cx<Cook>,
        state: State<BrigadeModel>,
    ) -> Result<Option<State<BrigadeModel>>, Diagnostics> {
        Ok(Some(state))
    }

    async fn create(&self, _: &Cx<Cook>, request: ApplyRequest<BrigadeModel>) -> Applied<BrigadeModel> {
        let names = request.planned.machines.known().into_iter().flat_map(BTreeMap::keys);
        let system = System { generation: Attr::Known(7), ..System::default() };
        let systems = names.map(|name| (name.clone(), Attr::Known(system.clone()))).collect();
        let actual = BrigadeModel { systems: Attr::Known(systems), ..BrigadeModel::default() };
        let value = completed(&request.planned, &actual)
            .map_err(|error| Diagnostic::error("The result cannot be written").detail(error.to_string()))?;
        Ok(value.into())
    }

    async fn update(
        &self,
        cx: &Cx<Cook>,
        _: State<BrigadeModel>,
        request: ApplyRequest<BrigadeModel>,
    ) -> Applied<BrigadeModel> {
        self.create(cx, request).await
    }

    async fn delete(&self, _: &Cx<Cook>, _: State<BrigadeModel>) -> Result<(), Diagnostics> {
        Ok(())
    }
}
