//! Planning, as Terraform does it: from the state that it proposes, and once more from nothing where that means a replacement.

use crate::plan::check_planned;
use crate::protocol::proto;
use crate::{Diagnostics, Path, Value};

use super::harness::Harness;
use super::offers::Offer;
use super::outcome::{Action, Plan, Stored};
use super::wire::{answer, decode, encode, heard, path};
use crate::terraform::{self, at};

impl Harness {
    /// Validates a configuration. Warnings, or errors.
    pub async fn validate(&self, type_name: &str, config: &Value) -> Result<Diagnostics, Diagnostics> {
        self.validate_as(Offer::Resource(type_name), config).await
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
        let config = terraform::conform(schema, config)?;
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
    pub(super) async fn ask(
        &self,
        type_name: &str,
        prior: Option<&Stored>,
        config: &Value,
        private: &[u8],
        planned_private: &[u8],
    ) -> Result<Plan, Diagnostics> {
        let schema = self.schemas.resource(type_name);
        let before = prior.map_or(&Value::Null, |prior| &prior.value);
        let proposed = terraform::proposed_new(schema, before, config);
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
            let hidden = terraform::write_only(schema, &planned);
            assert!(hidden.is_empty(), "write-only values are planned: {hidden:?}");
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
}
