//! `kitchen_rogue` breaks the rule that its configuration names.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tfplugin::{
    Applied, ApplyRequest, Attr, Attribute, Cx, Deferral, Diagnostic, Diagnostics, Failed, IdentityAttribute,
    IdentitySchema, Path, PlanRequest, PlanResponse, Resource, Schema, State, Type,
};

use super::Cook;

pub(super) struct Rogue;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Model {
    how: Attr<String>,
    text: Attr<String>,
    token: Attr<String>,
    secret: Attr<String>,
    out: Attr<Out>,
}

/// What comes of it: a text by the schema.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Out {
    Text(String),
    Number(f64),
}

impl Out {
    fn text(text: &str) -> Attr<Self> {
        Attr::Known(Self::Text(text.to_owned()))
    }
}

impl Model {
    fn does(&self, what: &str) -> bool {
        self.how.known().is_some_and(|how| how == what)
    }

    /// What exists turns out to be somebody.
    fn shows_who_it_is(&mut self) {
        if self.does("become somebody") {
            self.out = Out::text("somebody");
        }
        if self.does("become another") {
            self.out = Out::text("another");
        }
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
            .identity(
                IdentitySchema::new(0)
                    .attribute("out", IdentityAttribute::new(Type::String).optional_for_import()),
            )
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
        if planned.does("put it off") {
            cx.defer(Deferral::AbsentPrerequisite);
            planned.text = Attr::Known("another".to_owned());
        }
        if request.prior.is_some() {
            planned.shows_who_it_is();
        }
        Ok(PlanResponse::new(planned, ()).requires_replace(requires_replace))
    }

    async fn read(&self, cx: &Cx<Cook>, state: State<Model>) -> Result<Option<State<Model>>, Diagnostics> {
        let mut value = state.value;
        assert!(!value.does("panic in read"), "a panic that was asked for");
        if value.does("put it off") {
            cx.defer(Deferral::AbsentPrerequisite);
            value.out = Attr::Unknown;
        }
        if value.does("read something unknown") {
            value.out = Attr::Unknown;
        }
        value.shows_who_it_is();
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

    async fn import(&self, cx: &Cx<Cook>, id: &str) -> Result<State<Model>, Diagnostics> {
        if id == "put it off" {
            cx.defer(Deferral::AbsentPrerequisite);
        }
        Ok(Model { how: Attr::Known(id.to_owned()), out: Attr::Unknown, ..Model::default() }.into())
    }
}

impl Rogue {
    async fn apply(&self, cx: &Cx<Cook>, request: ApplyRequest<Model>) -> Applied<Model> {
        let mut value = request.planned;
        if value.out.is_unknown() {
            value.out = if value.does("become somebody") { Attr::Null } else { Out::text("done") };
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
        if value.does("return a number for a text") {
            value.out = Attr::Known(Out::Number(7.0));
        }
        if value.does("return far more than there was") {
            value.out = Out::text(&value.text.known().map(|text| text.repeat(3)).unwrap_or_default());
        }
        if value.does("return what cannot be told") {
            value.out = Attr::Known(Out::Number(f64::NAN));
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
            let partial = Model { out: Out::text("stopped"), ..value };
            let diagnostics = Diagnostic::error("Stopped at a safe point").into();
            return Err(Failed { diagnostics, partial: Some(partial.into()) });
        }
        if value.does("need half a second to stop") {
            cx.data.note("waiting");
            cx.cancel.cancelled().await;
            cx.data.note("told to stop");
            tokio::time::sleep(Duration::from_millis(500)).await;
            cx.data.note("at a safe point");
        }
        if value.does("never stop") {
            cx.data.note("waiting");
            std::future::pending::<()>().await;
        }
        Ok(value.into())
    }
}
