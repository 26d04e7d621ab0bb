//! Applying a plan, as Terraform does it: what was planned is planned once more, and then carried out.

use crate::plan::check_applied;
use crate::protocol::proto;
use crate::{Diagnostics, Value};

use super::harness::Harness;
use super::outcome::{Action, Applied, Plan, Stored};
use super::wire::{answer, decode, encode, heard};
use crate::terraform;

impl Harness {
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
        let config = terraform::conform(schema, config).unwrap_or_else(|errors| panic!("{errors:#?}"));
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
        let broken = terraform::broken_promise(&plan.planned, &again.planned, &crate::Path::root());
        if let Some(path) = broken {
            panic!(
                "the second plan must keep what the first has promised, which `{path}` is not:\n{:#?}\n{:#?}",
                plan.planned, again.planned
            );
        }
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
        let hidden = terraform::write_only(schema, &value);
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
}
