//! The life of a resource, as Terraform leads it: plans are made, applied and looked at until nothing is left to do.

use crate::codec::json;
use crate::plan::check_known;
use crate::protocol::proto;
use crate::{Diagnostics, Value};

use super::harness::Harness;
use super::outcome::{Action, Applied, Stored};
use super::wire::{answer, decode, encode, heard};

impl Harness {
    /// Validates, plans, applies, refreshes and plans once more, which must find nothing to do.
    pub async fn create(&self, type_name: &str, config: &Value) -> Stored {
        let plan =
            self.plan(type_name, None, config).await.unwrap_or_else(|errors| panic!("plan: {errors:#?}"));
        assert_eq!(plan.action, Action::Create);
        self.checked(self.apply(plan).await, config).await
    }

    /// The same for a change of what there is.
    pub async fn update(&self, stored: &Stored, config: &Value) -> Stored {
        let plan = self.plan(&stored.type_name, Some(stored), config).await;
        let plan = plan.unwrap_or_else(|errors| panic!("plan: {errors:#?}"));
        assert!(matches!(plan.action, Action::Update | Action::Replace), "it does {:?}", plan.action);
        self.checked(self.apply(plan).await, config).await
    }

    /// Destroys what there is.
    pub async fn destroy(&self, stored: &Stored) {
        let plan = self.plan_destroy(stored).await.unwrap_or_else(|errors| panic!("plan: {errors:#?}"));
        let applied = self.apply(plan).await;
        assert!(!applied.diagnostics.has_errors(), "destroy: {:#?}", applied.diagnostics);
        assert!(applied.state.is_none(), "it is still there");
    }

    /// What an apply has left is what a refresh finds, and nothing is left to do.
    async fn checked(&self, applied: Applied, config: &Value) -> Stored {
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

    /// Brings the state to the current schema and looks at what is really there.
    pub async fn refresh(&self, stored: &Stored) -> Result<Option<Stored>, Diagnostics> {
        let schema = self.schemas.resource(&stored.type_name);
        let state = json::encode(&stored.value, &schema.ty());
        let upgraded = self.upgrade_text(&stored.type_name, stored.version, state).await?;
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
}
