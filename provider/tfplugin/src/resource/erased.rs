//! Resources without their types: values in, values out, as the server keeps them.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

use super::dynamic::{DynResource, RawApplied, RawPlan, RawState};
use super::{ApplyRequest, Failed, MoveRequest, PlanRequest, Resource, State};
use crate::model::{read_model, write_model};
use crate::private::{DecodedPrivate, decode_private, encode_private};
use crate::{Cx, Diagnostics, Schema, Value};

/// Puts a resource into a provider's list.
pub fn resource<D: Send + Sync + 'static, R: Resource<D>>(resource: R) -> Box<dyn DynResource<D>> {
    let schema = resource.schema();
    Box::new(Erased { resource, schema })
}

struct Erased<R> {
    resource: R,
    schema: Schema,
}

impl<D: Send + Sync + 'static, R: Resource<D>> DynResource<D> for Erased<R> {
    fn type_name(&self) -> &'static str {
        R::TYPE
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn validate(&self, config: Value) -> BoxFuture<'_, Result<(), Diagnostics>> {
        Box::pin(async move { self.resource.validate(read_model(R::TYPE, &config)?).await })
    }

    fn plan<'a>(
        &'a self,
        cx: &'a Cx<D>,
        prior: RawState,
        config: Value,
        proposed: Value,
        planned: &'a [u8],
    ) -> BoxFuture<'a, Result<RawPlan, Diagnostics>> {
        Box::pin(async move {
            let prior_private = prior.private.clone();
            let prior = if prior.value.is_null() { None } else { Some(self.state(cx, &prior)?) };
            // A replacement is planned twice, the second time without the prior state but with the private data of the
            // first plan. Those hold the private data of the old object, which deleting it needs.
            let prior_private = match &prior {
                Some(state) => Some(state.private.clone()),
                // When the leftover of a failed create is replaced, Terraform sends no private data; those of the plan
                // belong to the new object.
                None => Some(self.decoded(cx, &prior_private).prior.unwrap_or_default()),
            };
            let planned = if planned.is_empty() { None } else { Some(self.decoded(cx, planned).data) };
            let request = PlanRequest {
                prior,
                config: read_model(R::TYPE, &config)?,
                proposed: read_model(R::TYPE, &proposed)?,
                planned,
            };
            let response = self.resource.plan(cx, request).await?;
            Ok(RawPlan {
                planned: write_model(R::TYPE, &response.planned)?,
                private: encode_private(R::TYPE, R::PRIVATE_VERSION, response.private, prior_private)?,
                requires_replace: response.requires_replace,
            })
        })
    }

    fn plan_destroy<'a>(&'a self, cx: &'a Cx<D>, prior: RawState) -> BoxFuture<'a, Result<(), Diagnostics>> {
        Box::pin(async move { self.resource.plan_destroy(cx, self.state(cx, &prior)?).await })
    }

    fn read<'a>(
        &'a self,
        cx: &'a Cx<D>,
        state: RawState,
    ) -> BoxFuture<'a, Result<Option<RawState>, Diagnostics>> {
        Box::pin(async move {
            let state = self.resource.read(cx, self.state(cx, &state)?).await?;
            state.map(encode_state::<D, R>).transpose()
        })
    }

    fn apply<'a>(
        &'a self,
        cx: &'a Cx<D>,
        prior: Value,
        planned: RawState,
        config: Value,
    ) -> BoxFuture<'a, RawApplied> {
        Box::pin(async move {
            match self.try_apply(cx, &prior, &planned, &config).await {
                Ok(state) => RawApplied { state: Some(state), diagnostics: Diagnostics::default() },
                Err(Failed { diagnostics, partial }) => {
                    let state = partial.map(|state| RawState { value: state.value, private: state.private });
                    RawApplied { state, diagnostics }
                }
            }
        })
    }

    fn delete<'a>(&'a self, cx: &'a Cx<D>, state: RawState) -> BoxFuture<'a, Result<(), Diagnostics>> {
        Box::pin(async move {
            let private = self.decoded(cx, &state.private).existing();
            self.resource.delete(cx, State { value: read_model(R::TYPE, &state.value)?, private }).await
        })
    }

    fn prior_private(&self, planned: &[u8]) -> Vec<u8> {
        let existing = self.decode(planned).existing();
        encode_private(R::TYPE, R::PRIVATE_VERSION, existing, None).unwrap_or_else(|_| planned.to_vec())
    }

    fn import<'a>(&'a self, cx: &'a Cx<D>, id: &'a str) -> BoxFuture<'a, Result<RawState, Diagnostics>> {
        Box::pin(async move { encode_state::<D, R>(self.resource.import(cx, id).await?) })
    }

    fn import_identity<'a>(
        &'a self,
        cx: &'a Cx<D>,
        identity: BTreeMap<String, Value>,
    ) -> BoxFuture<'a, Result<RawState, Diagnostics>> {
        Box::pin(async move { encode_state::<D, R>(self.resource.import_identity(cx, identity).await?) })
    }

    fn move_state(&self, request: MoveRequest) -> BoxFuture<'_, Result<Option<RawState>, Diagnostics>> {
        Box::pin(async move {
            let moved = self.resource.move_state(request).await?;
            moved.map(encode_state::<D, R>).transpose()
        })
    }

    fn generate_config(&self, state: Value) -> BoxFuture<'_, Result<Value, Diagnostics>> {
        Box::pin(async move {
            let config = self.resource.generate_config(read_model(R::TYPE, &state)?).await?;
            write_model(R::TYPE, &config)
        })
    }

    fn upgrade(&self, version: i64, state: serde_json::Value) -> Result<serde_json::Value, Diagnostics> {
        self.resource.upgrade(version, state)
    }

    fn upgrade_identity(
        &self,
        version: i64,
        identity: serde_json::Value,
    ) -> Result<serde_json::Value, Diagnostics> {
        self.resource.upgrade_identity(version, identity)
    }
}

impl<R> Erased<R> {
    /// Reads private data of any origin.
    fn decode<D: Send + Sync>(&self, bytes: &[u8]) -> DecodedPrivate<R::Private>
    where
        R: Resource<D>,
    {
        decode_private(R::TYPE, R::PRIVATE_VERSION, bytes, |stored| self.resource.upgrade_private(stored))
    }

    /// The same, with a warning to the user where they could not be read.
    fn decoded<D: Send + Sync>(&self, cx: &Cx<D>, bytes: &[u8]) -> DecodedPrivate<R::Private>
    where
        R: Resource<D>,
    {
        let mut decoded = self.decode(bytes);
        if let Some(warning) = decoded.left_out.take() {
            cx.warn(warning);
        }
        decoded
    }

    fn state<D: Send + Sync>(
        &self,
        cx: &Cx<D>,
        state: &RawState,
    ) -> Result<State<R::Model, R::Private>, Diagnostics>
    where
        R: Resource<D>,
    {
        Ok(State {
            value: read_model(R::TYPE, &state.value)?,
            private: self.decoded(cx, &state.private).data,
        })
    }

    /// Creates or updates. After a failed update without a state the prior state stays, with its own private data
    /// instead of those of the plan.
    async fn try_apply<D: Send + Sync + 'static>(
        &self,
        cx: &Cx<D>,
        prior: &Value,
        planned: &RawState,
        config: &Value,
    ) -> Result<RawState, Failed<Value, Vec<u8>>>
    where
        R: Resource<D>,
    {
        let decoded: DecodedPrivate<R::Private> = self.decoded(cx, &planned.private);
        let own = decoded.data.clone();
        let request = ApplyRequest {
            planned: read_model(R::TYPE, &planned.value)?,
            config: read_model(R::TYPE, config)?,
            private: decoded.data,
        };
        let outcome = if prior.is_null() {
            self.resource.create(cx, request).await
        } else {
            let private = decoded.prior.unwrap_or_default();
            let state = State { value: read_model(R::TYPE, prior)?, private: private.clone() };
            self.resource.update(cx, state, request).await.map_err(|failed| {
                let unchanged = || read_model(R::TYPE, prior).ok().map(|value| State { value, private });
                Failed { partial: failed.partial.or_else(unchanged), ..failed }
            })
        };
        match outcome {
            // The object was made, but its state cannot be written. It is stored as planned, with the planned private
            // data alone, because those of the prior object are not its own.
            Ok(state) => encode_state::<D, R>(state).map_err(|diagnostics| {
                let value = crate::plan::known_only(planned.value.clone());
                let private = encode_private(R::TYPE, R::PRIVATE_VERSION, own, None).unwrap_or_default();
                Failed { diagnostics, partial: Some(State { value, private }) }
            }),
            Err(Failed { mut diagnostics, partial }) => {
                let partial = partial.and_then(|state| match encode_state::<D, R>(state) {
                    Ok(state) => Some(State { value: state.value, private: state.private }),
                    Err(more) => {
                        diagnostics.extend(more);
                        None
                    }
                });
                Err(Failed { diagnostics, partial })
            }
        }
    }
}

fn encode_state<D: Send + Sync, R: Resource<D>>(
    state: State<R::Model, R::Private>,
) -> Result<RawState, Diagnostics> {
    Ok(RawState {
        value: write_model(R::TYPE, &state.value)?,
        private: encode_private(R::TYPE, R::PRIVATE_VERSION, state.private, None)?,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;

    use super::super::PlanResponse;
    use super::*;
    use crate::{Attribute, Diagnostic};
    use serde::{Deserialize, Serialize};

    /// Remembers its name in private data, and only deletes what it remembers rightly.
    struct Thing;

    #[derive(Clone, Serialize, Deserialize)]
    struct Model {
        name: String,
        #[serde(default)]
        weight: f64,
    }

    impl Resource<()> for Thing {
        const TYPE: &'static str = "test_thing";
        type Model = Model;
        type Private = String;

        fn schema(&self) -> Schema {
            Schema::new(0).attribute("name", Attribute::string().required().requires_replace())
        }

        async fn plan(
            &self,
            _cx: &Cx<()>,
            request: PlanRequest<Model, String>,
        ) -> Result<PlanResponse<Model, String>, Diagnostics> {
            let private = request.proposed.name.clone();
            Ok(PlanResponse { planned: request.proposed, private, requires_replace: vec![] })
        }

        async fn read(
            &self,
            _cx: &Cx<()>,
            state: State<Model, String>,
        ) -> Result<Option<State<Model, String>>, Diagnostics> {
            Ok(Some(state))
        }

        async fn create(
            &self,
            _cx: &Cx<()>,
            request: ApplyRequest<Model, String>,
        ) -> Result<State<Model, String>, Failed<Model, String>> {
            let weight = if request.planned.name == "huge" { f64::INFINITY } else { 1.0 };
            Ok(State { value: Model { weight, ..request.planned }, private: request.private })
        }

        async fn update(
            &self,
            _cx: &Cx<()>,
            _prior: State<Model, String>,
            _request: ApplyRequest<Model, String>,
        ) -> Result<State<Model, String>, Failed<Model, String>> {
            Err(Diagnostic::error("no luck").into())
        }

        async fn delete(&self, _cx: &Cx<()>, state: State<Model, String>) -> Result<(), Diagnostics> {
            assert_eq!(state.private, state.value.name, "delete gets what belongs to the old object");
            Ok(())
        }
    }

    fn named(name: &str) -> Value {
        Value::Map([("name".to_owned(), name.into())].into())
    }

    #[tokio::test]
    async fn a_replacement_deletes_with_the_old_private_data() {
        let (thing, cx) = (resource(Thing), Cx::new(Arc::new(()), CancellationToken::new()));
        let old = RawState {
            value: named("old"),
            private: encode_private("t", 0, "old".to_owned(), None).unwrap(),
        };
        // As Terraform plans a replacement: once with the old state, once without it but with the first plan's private
        // data.
        let first = thing.plan(&cx, old, named("new"), named("new"), &[]).await.unwrap();
        let none = RawState { value: Value::Null, private: first.private };
        let second = thing.plan(&cx, none, named("new"), named("new"), &[]).await.unwrap();
        let doomed = RawState { value: named("old"), private: second.private.clone() };
        thing.delete(&cx, doomed).await.unwrap();
        let planned = RawState { value: named("new"), private: second.private };
        let created = thing.apply(&cx, Value::Null, planned, named("new")).await.state.unwrap();
        assert_eq!(decode_private::<String>("t", 0, &created.private, |_| None).existing(), "new");
    }

    #[tokio::test]
    async fn what_a_failed_create_has_left_is_not_deleted_with_the_data_of_what_replaces_it() {
        let (thing, cx) = (resource(Thing), Cx::new(Arc::new(()), CancellationToken::new()));
        // As Terraform plans to replace what is tainted: without its state and without its private data.
        let nothing = RawState { value: Value::Null, private: vec![] };
        let plan = thing.plan(&cx, nothing, named("new"), named("new"), &[]).await.unwrap();
        thing.delete(&cx, RawState { value: named(""), private: plan.private }).await.unwrap();
    }

    #[tokio::test]
    async fn what_replaces_another_and_cannot_be_told_has_its_own_private_data() {
        let (thing, cx) = (resource(Thing), Cx::new(Arc::new(()), CancellationToken::new()));
        let old = RawState {
            value: named("old"),
            private: encode_private("t", 0, "old".to_owned(), None).unwrap(),
        };
        let first = thing.plan(&cx, old, named("huge"), named("huge"), &[]).await.unwrap();
        let none = RawState { value: Value::Null, private: first.private };
        let second = thing.plan(&cx, none, named("huge"), named("huge"), &[]).await.unwrap();
        let planned = RawState { value: named("huge"), private: second.private };
        let applied = thing.apply(&cx, Value::Null, planned, named("huge")).await;
        assert!(applied.diagnostics.has_errors(), "nothing weighs so much");
        thing.delete(&cx, applied.state.unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_failed_update_keeps_state_and_private_data_together() {
        let (thing, cx) = (resource(Thing), Cx::new(Arc::new(()), CancellationToken::new()));
        let old = RawState {
            value: named("old"),
            private: encode_private("t", 0, "old".to_owned(), None).unwrap(),
        };
        let plan = thing.plan(&cx, old, named("new"), named("new"), &[]).await.unwrap();
        let planned = RawState { value: plan.planned, private: plan.private };
        let applied = thing.apply(&cx, named("old"), planned, named("new")).await;
        assert!(applied.diagnostics.has_errors());
        let state = applied.state.unwrap();
        assert_eq!(state.value.get("name"), Some(&"old".into()));
        assert_eq!(decode_private::<String>("t", 0, &state.private, |_| None).existing(), "old");
    }
}
