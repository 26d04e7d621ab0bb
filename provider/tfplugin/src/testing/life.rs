//! The life of a resource, as Terraform leads it.

use crate::codec::json;
use crate::plan::{check_applied, check_known, check_planned};
use crate::server::proto;
use crate::{Diagnostics, Path, Schema, Step, Value};

use super::{Harness, answer, core, decode, decode_type, encode, encode_type, heard, path};

/// A resource in Terraform's state.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its type.
    pub type_name: String,
    /// The version of the schema it was written under.
    pub version: i64,
    /// Its attributes.
    pub value: Value,
    /// What the provider remembers beside them.
    pub private: Vec<u8>,
    /// What identifies it, where it has an identity.
    pub identity: Option<Value>,
    /// Whether the next plan replaces it, because creating it failed.
    pub tainted: bool,
    /// Whether the provider has put off looking at it. Something of it may be unknown then, and Terraform stores nothing of it.
    pub deferred: bool,
}

impl Stored {
    /// The attribute `name`.
    #[track_caller]
    pub fn get(&self, name: &str) -> &Value {
        self.value.get(name).unwrap_or_else(|| panic!("{} has no attribute {name}", self.type_name))
    }
}

/// What a plan does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    NoOp,
    /// Make it.
    Create,
    /// Change it in place.
    Update,
    /// Destroy it and make another.
    Replace,
    /// Destroy it.
    Delete,
}

/// A plan for one resource.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it does.
    pub action: Action,
    /// The state that is planned; null where it is to be destroyed.
    pub planned: Value,
    /// The attributes for which it is replaced.
    pub requires_replace: Vec<Path>,
    /// What the provider has to say.
    pub warnings: Diagnostics,
    /// Whether the provider puts it off.
    pub deferred: bool,
    type_name: String,
    config: Value,
    prior: Option<Stored>,
    private: Vec<u8>,
}

/// What an apply has left.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What is in Terraform's state now.
    pub state: Option<Stored>,
    /// What the provider has to say.
    pub diagnostics: Diagnostics,
}

impl Harness {
    /// Validates, plans, applies, refreshes and plans once more, which must find nothing to do.
    pub async fn create(&self, type_name: &str, config: &Value) -> Stored {
        let plan =
            self.plan(type_name, None, config).await.unwrap_or_else(|errors| panic!("plan: {errors:#?}"));
        assert_eq!(plan.action, Action::Create);
        self.settled(self.apply(plan).await, config).await
    }

    /// The same for a change of what there is.
    pub async fn update(&self, stored: &Stored, config: &Value) -> Stored {
        let plan = self.plan(&stored.type_name, Some(stored), config).await;
        let plan = plan.unwrap_or_else(|errors| panic!("plan: {errors:#?}"));
        assert!(matches!(plan.action, Action::Update | Action::Replace), "it does {:?}", plan.action);
        self.settled(self.apply(plan).await, config).await
    }

    /// Destroys what there is.
    pub async fn destroy(&self, stored: &Stored) {
        let plan = self.plan_destroy(stored).await.unwrap_or_else(|errors| panic!("plan: {errors:#?}"));
        let applied = self.apply(plan).await;
        assert!(!applied.diagnostics.has_errors(), "destroy: {:#?}", applied.diagnostics);
        assert!(applied.state.is_none(), "it is still there");
    }

    /// What an apply has left is what a refresh finds, and nothing is left to do.
    async fn settled(&self, applied: Applied, config: &Value) -> Stored {
        assert!(!applied.diagnostics.has_errors(), "apply: {:#?}", applied.diagnostics);
        let stored = applied.state.expect("what was applied is there");
        let read = self.refresh(&stored).await.unwrap_or_else(|errors| panic!("refresh: {errors:#?}"));
        let read = read.expect("what was applied is found");
        assert_eq!(read.value, stored.value, "a refresh finds what was applied");
        assert_eq!(read.identity, stored.identity, "a refresh finds the same identity");
        let again = self.plan(&read.type_name, Some(&read), config).await;
        let again = again.unwrap_or_else(|errors| panic!("second plan: {errors:#?}"));
        assert_eq!(again.action, Action::NoOp, "nothing is left to do, but {:#?} was planned", again.planned);
        read
    }

    /// Validates a configuration. Warnings, or errors.
    pub async fn validate(&self, type_name: &str, config: &Value) -> Result<Diagnostics, Diagnostics> {
        let schema = self.schemas.resource(type_name);
        let request = proto::validate_resource_config::Request {
            type_name: type_name.to_owned(),
            config: Some(encode(schema, &core::conform(schema, config)?)),
            client_capabilities: Some(self.capabilities()),
        };
        heard(answer(self.client.clone().validate_resource_config(request).await).diagnostics)
    }

    /// Plans what `config` makes of `prior`.
    pub async fn plan(
        &self,
        type_name: &str,
        prior: Option<&Stored>,
        config: &Value,
    ) -> Result<Plan, Diagnostics> {
        self.validate(type_name, config).await?;
        let schema = self.schemas.resource(type_name);
        let config = core::conform(schema, config)?;
        // What is tainted is planned as if there were nothing.
        let known = prior.filter(|prior| !prior.tainted);
        let first =
            self.ask(type_name, known, &config, known.map_or(&[][..], |prior| &prior.private), &[]).await?;
        let before = known.map_or(&Value::Null, |prior| &prior.value);
        let replace: Vec<Path> = first
            .requires_replace
            .iter()
            .filter(|path| {
                if before.is_null() {
                    return false;
                }
                let (before, after) = (at(path, before), at(path, &first.planned));
                assert!(before.is_some() || after.is_some(), "`{path}` is in neither state nor plan");
                before != after
            })
            .cloned()
            .collect();
        let (plan, action) = match (prior, known) {
            (None, _) => (first, Action::Create),
            (Some(_), None) => (first, Action::Replace),
            (_, Some(prior)) if first.planned == prior.value => (first, Action::NoOp),
            (_, Some(_)) if replace.is_empty() => (first, Action::Update),
            // A replacement is planned once more, without what there is, but with what the first plan has left.
            _ => (self.ask(type_name, None, &config, &first.private, &[]).await?, Action::Replace),
        };
        Ok(Plan { action, prior: prior.cloned(), requires_replace: replace, ..plan })
    }

    /// Plans to destroy what there is.
    pub async fn plan_destroy(&self, stored: &Stored) -> Result<Plan, Diagnostics> {
        let schema = self.schemas.resource(&stored.type_name);
        let request = proto::plan_resource_change::Request {
            type_name: stored.type_name.clone(),
            prior_state: Some(encode(schema, &stored.value)),
            proposed_new_state: Some(encode(schema, &Value::Null)),
            config: Some(encode(schema, &Value::Null)),
            prior_private: stored.private.clone(),
            client_capabilities: Some(self.capabilities()),
            ..Default::default()
        };
        let response = answer(self.client.clone().plan_resource_change(request).await);
        let warnings = heard(response.diagnostics)?;
        let planned = decode(schema, response.planned_state.as_ref());
        assert_eq!(planned, Value::Null, "what is to be destroyed is planned to be gone");
        Ok(Plan {
            action: Action::Delete,
            planned,
            requires_replace: vec![],
            warnings,
            deferred: self.is_put_off(response.deferred),
            type_name: stored.type_name.clone(),
            config: Value::Null,
            prior: Some(stored.clone()),
            private: response.planned_private,
        })
    }

    /// One call of `PlanResourceChange`, checked.
    async fn ask(
        &self,
        type_name: &str,
        prior: Option<&Stored>,
        config: &Value,
        private: &[u8],
        planned_private: &[u8],
    ) -> Result<Plan, Diagnostics> {
        let schema = self.schemas.resource(type_name);
        let before = prior.map_or(&Value::Null, |prior| &prior.value);
        let proposed = core::proposed_new(schema, before, config);
        let request = proto::plan_resource_change::Request {
            type_name: type_name.to_owned(),
            prior_state: Some(encode(schema, before)),
            proposed_new_state: Some(encode(schema, &proposed)),
            config: Some(encode(schema, config)),
            prior_private: private.to_vec(),
            client_capabilities: Some(self.capabilities()),
            prior_identity: prior.and_then(|prior| self.identity_to_wire(prior)),
            planned_private: planned_private.to_vec(),
            ..Default::default()
        };
        let response = answer(self.client.clone().plan_resource_change(request).await);
        let warnings = heard(response.diagnostics)?;
        let deferred = self.is_put_off(response.deferred);
        let planned = decode(schema, response.planned_state.as_ref());
        if !deferred {
            let broken = check_planned(type_name, schema, before, config, &planned);
            assert!(broken.is_empty(), "Terraform would refuse the plan: {broken:#?}");
        }
        Ok(Plan {
            action: Action::NoOp,
            planned,
            requires_replace: response.requires_replace.into_iter().map(path).collect(),
            warnings,
            deferred,
            type_name: type_name.to_owned(),
            config: config.clone(),
            prior: None,
            private: response.planned_private,
        })
    }

    /// Applies a plan: plans once more, which must give the same, and carries it out.
    pub async fn apply(&self, plan: Plan) -> Applied {
        let config = plan.config.clone();
        self.apply_with(plan, &config).await
    }

    /// The same where what was unknown in the configuration is known now.
    pub async fn apply_with(&self, plan: Plan, config: &Value) -> Applied {
        assert!(!plan.deferred, "what is put off is not applied");
        let prior = plan.prior.clone();
        match plan.action {
            Action::NoOp => Applied { state: prior, diagnostics: Diagnostics::default() },
            Action::Delete => {
                let prior = prior.expect("what is destroyed was there");
                self.carry_out(&plan.type_name, Some(&prior), Value::Null, &Value::Null, plan.private).await
            }
            Action::Replace => {
                let prior = prior.expect("what is replaced was there");
                let private = plan.private.clone();
                let gone =
                    self.carry_out(&plan.type_name, Some(&prior), Value::Null, &Value::Null, private).await;
                if gone.diagnostics.has_errors() {
                    return gone;
                }
                self.make(None, plan, config).await
            }
            Action::Create | Action::Update => self.make(prior.as_ref(), plan, config).await,
        }
    }

    async fn make(&self, prior: Option<&Stored>, plan: Plan, config: &Value) -> Applied {
        let schema = self.schemas.resource(&plan.type_name);
        let config = core::conform(schema, config).unwrap_or_else(|errors| panic!("{errors:#?}"));
        assert!(!config.contains_unknown(), "what is applied is known");
        let private = match prior {
            Some(prior) => prior.private.clone(),
            None => vec![],
        };
        let stored = if self.says.stores_planned_private { plan.private.as_slice() } else { &[] };
        let again = self.ask(&plan.type_name, prior, &config, &private, stored).await;
        let again = match again {
            Ok(again) => again,
            Err(diagnostics) => return Applied { state: prior.cloned(), diagnostics },
        };
        assert!(
            core::keeps(&plan.planned, &again.planned),
            "the second plan must keep what the first has promised:\n{:#?}\n{:#?}",
            plan.planned,
            again.planned
        );
        self.carry_out(&plan.type_name, prior, again.planned, &config, again.private).await
    }

    /// One call of `ApplyResourceChange`, checked.
    async fn carry_out(
        &self,
        type_name: &str,
        prior: Option<&Stored>,
        planned: Value,
        config: &Value,
        private: Vec<u8>,
    ) -> Applied {
        let schema = self.schemas.resource(type_name);
        let before = prior.map_or(&Value::Null, |prior| &prior.value);
        let request = proto::apply_resource_change::Request {
            type_name: type_name.to_owned(),
            prior_state: Some(encode(schema, before)),
            planned_state: Some(encode(schema, &planned)),
            config: Some(encode(schema, config)),
            planned_private: private,
            ..Default::default()
        };
        let response = answer(self.client.clone().apply_resource_change(request).await);
        let value = decode(schema, response.new_state.as_ref());
        assert!(!value.contains_unknown(), "Terraform stores nothing unknown: {value:#?}");
        let diagnostics = heard(response.diagnostics).unwrap_or_else(|errors| errors);
        let failed = diagnostics.has_errors();
        if planned.is_null() {
            assert!(failed || value.is_null(), "what was destroyed without an error is gone");
        } else if !failed {
            assert!(!value.is_null(), "what was made without an error is there");
            let broken = check_applied(type_name, schema, &planned, &value);
            assert!(broken.is_empty(), "Terraform would refuse the result: {broken:#?}");
        }
        let hidden = core::write_only(schema, &value);
        assert!(hidden.is_empty(), "write-only values are stored: {hidden:?}");
        let state = (!value.is_null()).then(|| Stored {
            version: schema.version,
            identity: self.identity_from_wire(type_name, response.new_identity.as_ref()),
            // A failed create leaves something that nobody knows much of.
            tainted: prior.is_none() && failed,
            deferred: false,
            type_name: type_name.to_owned(),
            value,
            private: response.private,
        });
        Applied { state, diagnostics }
    }

    /// Brings the state to the current schema and looks at what is really there.
    pub async fn refresh(&self, stored: &Stored) -> Result<Option<Stored>, Diagnostics> {
        let schema = self.schemas.resource(&stored.type_name);
        let state = json::encode(&stored.value, &schema.ty());
        let upgraded = self.upgrade(&stored.type_name, stored.version, &state).await?;
        let request = proto::read_resource::Request {
            type_name: stored.type_name.clone(),
            current_state: Some(encode(schema, &upgraded)),
            private: stored.private.clone(),
            client_capabilities: Some(self.capabilities()),
            current_identity: self.identity_to_wire(stored),
            ..Default::default()
        };
        let response = answer(self.client.clone().read_resource(request).await);
        heard(response.diagnostics)?;
        let deferred = self.is_put_off(response.deferred);
        let value = decode(schema, response.new_state.as_ref());
        if !deferred {
            let broken = check_known(&stored.type_name, schema, &value);
            assert!(broken.is_empty(), "Terraform stores nothing unknown: {broken:#?}");
        }
        if value.is_null() {
            return Ok(None);
        }
        let identity = self.identity_from_wire(&stored.type_name, response.new_identity.as_ref());
        Ok(Some(Stored {
            value,
            private: response.private,
            identity,
            version: schema.version,
            deferred,
            ..stored.clone()
        }))
    }

    /// Brings a state that was written under an older schema to the current one.
    pub async fn upgrade(
        &self,
        type_name: &str,
        version: i64,
        state: &serde_json::Value,
    ) -> Result<Value, Diagnostics> {
        let schema = self.schemas.resource(type_name);
        let request = proto::upgrade_resource_state::Request {
            type_name: type_name.to_owned(),
            version,
            raw_state: Some(proto::RawState { json: state.to_string().into_bytes(), ..Default::default() }),
        };
        let response = answer(self.client.clone().upgrade_resource_state(request).await);
        heard(response.diagnostics)?;
        let value = decode(schema, response.upgraded_state.as_ref());
        assert!(!value.contains_unknown(), "an upgraded state is known");
        Ok(value)
    }

    /// Imports by id and reads.
    pub async fn import(&self, type_name: &str, id: &str) -> Result<Stored, Diagnostics> {
        self.take_in(type_name, id.to_owned(), None).await
    }

    /// Imports by identity (Terraform 1.12) and reads.
    pub async fn import_identity(&self, type_name: &str, identity: &Value) -> Result<Stored, Diagnostics> {
        self.take_in(type_name, String::new(), Some(identity)).await
    }

    async fn take_in(
        &self,
        type_name: &str,
        id: String,
        identity: Option<&Value>,
    ) -> Result<Stored, Diagnostics> {
        let schema = self.schemas.resource(type_name);
        let request = proto::import_resource_state::Request {
            type_name: type_name.to_owned(),
            id,
            client_capabilities: Some(self.capabilities()),
            identity: identity.map(|identity| wire_identity(schema, identity)),
        };
        let response = answer(self.client.clone().import_resource_state(request).await);
        heard(response.diagnostics)?;
        let [imported] = response.imported_resources.as_slice() else {
            panic!("one resource is imported, not {}", response.imported_resources.len());
        };
        let stub = Stored {
            type_name: imported.type_name.clone(),
            version: schema.version,
            value: decode(schema, imported.state.as_ref()),
            private: imported.private.clone(),
            identity: self.identity_from_wire(type_name, imported.identity.as_ref()),
            tainted: false,
            deferred: self.is_put_off(response.deferred),
        };
        if stub.deferred {
            return Ok(stub);
        }
        let read = self.refresh(&stub).await?;
        Ok(read.expect("what is imported exists"))
    }

    /// Makes something of another type one of this (`moved` across types).
    pub async fn move_state(&self, from: &MovedFrom<'_>, type_name: &str) -> Result<Stored, Diagnostics> {
        let schema = self.schemas.resource(type_name);
        let request = proto::move_resource_state::Request {
            source_provider_address: from.provider.to_owned(),
            source_type_name: from.type_name.to_owned(),
            source_schema_version: from.version,
            source_state: Some(proto::RawState {
                json: from.state.to_string().into_bytes(),
                ..Default::default()
            }),
            target_type_name: type_name.to_owned(),
            ..Default::default()
        };
        let response = answer(self.client.clone().move_resource_state(request).await);
        heard(response.diagnostics)?;
        Ok(Stored {
            type_name: type_name.to_owned(),
            version: schema.version,
            value: decode(schema, response.target_state.as_ref()),
            private: response.target_private,
            identity: self.identity_from_wire(type_name, response.target_identity.as_ref()),
            tainted: false,
            deferred: false,
        })
    }

    /// The configuration that the provider makes of a state; it must be one that Terraform accepts.
    pub async fn generate_config(&self, stored: &Stored) -> Result<Value, Diagnostics> {
        let schema = self.schemas.resource(&stored.type_name);
        let request = proto::generate_resource_config::Request {
            type_name: stored.type_name.clone(),
            state: Some(encode(schema, &stored.value)),
        };
        let response = answer(self.client.clone().generate_resource_config(request).await);
        heard(response.diagnostics)?;
        let config = decode(schema, response.config.as_ref());
        core::conform(schema, &config)?;
        Ok(config)
    }

    /// Brings an identity that was written under an older schema to the current one.
    pub async fn upgrade_identity(
        &self,
        type_name: &str,
        version: i64,
        identity: &serde_json::Value,
    ) -> Result<Value, Diagnostics> {
        let request = proto::upgrade_resource_identity::Request {
            type_name: type_name.to_owned(),
            version,
            raw_identity: Some(proto::RawState {
                json: identity.to_string().into_bytes(),
                ..Default::default()
            }),
        };
        let response = answer(self.client.clone().upgrade_resource_identity(request).await);
        heard(response.diagnostics)?;
        Ok(self.identity_from_wire(type_name, response.upgraded_identity.as_ref()).expect("there is one"))
    }

    fn identity_to_wire(&self, stored: &Stored) -> Option<proto::ResourceIdentityData> {
        let identity = stored.identity.as_ref()?;
        Some(wire_identity(self.schemas.resource(&stored.type_name), identity))
    }

    fn identity_from_wire(
        &self,
        type_name: &str,
        wire: Option<&proto::ResourceIdentityData>,
    ) -> Option<Value> {
        let identity = self.schemas.resource(type_name).identity.as_ref()?;
        let value = decode_type(&identity.ty(), wire?.identity_data.as_ref());
        assert!(!value.contains_unknown(), "an identity is known");
        Some(value).filter(|value| !value.is_null())
    }
}

/// Where something is moved from.
#[derive(Clone, Copy, Debug)]
pub struct MovedFrom<'a> {
    /// The provider's address, with its host.
    pub provider: &'a str,
    /// The type there.
    pub type_name: &'a str,
    /// The version of its schema there.
    pub version: i64,
    /// Its state there.
    pub state: &'a serde_json::Value,
}

fn wire_identity(schema: &Schema, identity: &Value) -> proto::ResourceIdentityData {
    let ty = schema.identity.as_ref().expect("the resource has an identity").ty();
    proto::ResourceIdentityData { identity_data: Some(encode_type(&ty, identity)) }
}

/// What a path leads to.
fn at<'v>(path: &Path, value: &'v Value) -> Option<&'v Value> {
    path.steps().iter().try_fold(value, |here, step| match (step, here) {
        (Step::Attribute(name) | Step::Key(name), here) => here.get(name),
        (Step::Index(index), Value::List(items)) => items.get(*index),
        _ => None,
    })
}
