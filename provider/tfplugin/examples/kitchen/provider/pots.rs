//! Finding pots: the list resource.

use serde::Deserialize;
use tfplugin::{
    Attr, Attribute, Cx, Diagnostic, Diagnostics, Found, ListRequest, ListResource, Listed, Schema,
};

use super::Cook;
use super::pot::Model;

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
            let state = Model::named(&name);
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
