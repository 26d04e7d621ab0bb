//! `kitchen_rogue` breaks the rule that its configuration names.

use serde::{Deserialize, Serialize};
use tfplugin::{
    Applied, ApplyRequest, Attr, Attribute, Cx, Diagnostic, Diagnostics, Failed, Path, PlanRequest,
    PlanResponse, Resource, Schema, State,
};

use super::Cook;

pub(super) struct Rogue;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Model {
    how: Attr<String>,
    text: Attr<String>,
    token: Attr<String>,
    secret: Attr<String>,
    out: Attr<String>,
}

impl Model {
    fn does(&self, what: &str) -> bool {
        self.how.known().is_some_and(|how| how == what)
    }
}

impl Resource<Cook> for Rogue {
    const TYPE: &'static str = "kitchen_rogue";
    type Model = Model;
    type Private = ();

    fn schema(&self) -> Schema {
        Schema::new(0)
            .description("Breaks rules.")
            .attribute("how", Attribute::string().required().description("Which rule."))
            .attribute("text", Attribute::string().optional().description("A text."))
            .attribute("token", Attribute::string().optional().sensitive().description("A secret text."))
            .attribute("secret", Attribute::string().optional().write_only().description("A text."))
            .attribute("out", Attribute::string().computed().description("A text."))
    }

    async fn plan(
        &self,
        cx: &Cx<Cook>,
        request: PlanRequest<Model>,
    ) -> Result<PlanResponse<Model>, Diagnostics> {
        let mut planned = request.proposed;
        let mut requires_replace = vec![];
        cx.warn(Diagnostic::warning("This is a rogue"));
        if planned.does("plan another text") {
            planned.text = Attr::Known("another".to_owned());
        }
        if planned.does("plan another token") {
            planned.token = Attr::Known("another".to_owned());
        }
        if planned.does("plan the secret") {
            planned.secret.clone_from(&request.config.secret);
        }
        if planned.does("plan what cannot be") {
            requires_replace.push(Path::root().attribute("nothing"));
        }
        if planned.does("plan silently") {
            return Err(Diagnostics::default());
        }
        assert!(!planned.does("panic in plan"), "a panic that was asked for");
        if planned.does("be defined later") {
            planned.out = Attr::Unknown;
        }
        Ok(PlanResponse { planned, private: (), requires_replace })
    }

    async fn read(&self, _: &Cx<Cook>, state: State<Model>) -> Result<Option<State<Model>>, Diagnostics> {
        let mut value = state.value;
        assert!(!value.does("panic in read"), "a panic that was asked for");
        if value.does("read something unknown") {
            value.out = Attr::Unknown;
        }
        Ok(Some(value.into()))
    }

    async fn create(&self, cx: &Cx<Cook>, request: ApplyRequest<Model>) -> Applied<Model> {
        self.apply(cx, request).await
    }

    async fn update(&self, cx: &Cx<Cook>, _: State<Model>, request: ApplyRequest<Model>) -> Applied<Model> {
        self.apply(cx, request).await
    }

    async fn delete(&self, _: &Cx<Cook>, state: State<Model>) -> Result<(), Diagnostics> {
        assert!(!state.value.does("panic in delete"), "a panic that was asked for");
        Ok(())
    }
}

impl Rogue {
    async fn apply(&self, cx: &Cx<Cook>, request: ApplyRequest<Model>) -> Applied<Model> {
        let mut value = request.planned;
        if value.out.is_unknown() {
            value.out = Attr::Known("done".to_owned());
        }
        assert!(!value.does("panic in apply"), "a panic that was asked for");
        if value.does("return another text") {
            value.text = Attr::Known("another".to_owned());
        }
        if value.does("return another token") {
            value.token = Attr::Known("another".to_owned());
        }
        if value.does("return something unknown") {
            value.out = Attr::Unknown;
        }
        if value.does("return the secret") {
            value.secret.clone_from(&request.config.secret);
        }
        if value.does("fail silently") {
            return Err(Diagnostics::default().into());
        }
        if value.does("fail half-way") {
            let diagnostics = Diagnostic::error("Half of it is done").into();
            let partial = Model { out: Attr::Unknown, ..value };
            return Err(Failed { diagnostics, partial: Some(partial.into()) });
        }
        if value.does("wait") {
            cx.data.note("waiting");
            cx.cancel.cancelled().await;
            cx.data.note("stopped");
            let partial = Model { out: Attr::Known("stopped".to_owned()), ..value };
            let diagnostics = Diagnostic::error("Stopped at a safe point").into();
            return Err(Failed { diagnostics, partial: Some(partial.into()) });
        }
        Ok(value.into())
    }
}
