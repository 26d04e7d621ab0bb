//! Resources: things that are created, changed and destroyed.

mod dynamic;
mod erased;

use std::collections::BTreeMap;
use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::private::StoredPrivate;
use crate::{Cx, Diagnostic, Diagnostics, Path, Schema, Value};

pub use dynamic::DynResource;
pub(crate) use dynamic::RawState;
pub use erased::resource;

/// Something that Terraform manages. The order of methods is the order of a resource's life.
pub trait Resource<D: Send + Sync>: Send + Sync + 'static {
    /// Its name in configurations, e.g. `random_word`.
    const TYPE: &'static str;
    /// Configuration and state.
    type Model: Serialize + DeserializeOwned + Clone + Send + Sync;
    /// What is remembered beside the state and shown to nobody. No place for secrets.
    ///
    /// States live longer than versions of a provider: a new field gets `#[serde(default)]`, and another layout a new
    /// [`PRIVATE_VERSION`](Self::PRIVATE_VERSION). Fields that a newer version has added are ignored.
    type Private: Serialize + DeserializeOwned + Default + Clone + Send + Sync;
    /// The version of what [`Private`](Self::Private) is like.
    const PRIVATE_VERSION: u32 = 0;

    /// Its schema.
    fn schema(&self) -> Schema;

    /// Checks that the schema cannot express. Values may be unknown; the provider is not configured.
    fn validate(&self, config: Self::Model) -> impl Future<Output = Result<(), Diagnostics>> + Send {
        drop(config);
        async { Ok(()) }
    }

    /// Says what apply will do. What is known in the answer is binding.
    fn plan(
        &self,
        cx: &Cx<D>,
        request: PlanRequest<Self::Model, Self::Private>,
    ) -> impl Future<Output = Result<PlanResponse<Self::Model, Self::Private>, Diagnostics>> + Send {
        let _ = cx;
        async {
            let private = request.prior.map(|state| state.private).unwrap_or_default();
            Ok(PlanResponse::new(request.proposed, private))
        }
    }

    /// Looks at what is going to be destroyed: an error keeps it from being planned, a warning ([`Cx::warn`]) stands in the
    /// plan.
    fn plan_destroy(
        &self,
        cx: &Cx<D>,
        prior: State<Self::Model, Self::Private>,
    ) -> impl Future<Output = Result<(), Diagnostics>> + Send {
        let _ = (cx, prior);
        async { Ok(()) }
    }

    /// Looks at what is really there. `None` means that it is gone for good, never that it cannot be reached.
    fn read(
        &self,
        cx: &Cx<D>,
        state: State<Self::Model, Self::Private>,
    ) -> impl Future<Output = Result<Option<State<Self::Model, Self::Private>>, Diagnostics>> + Send;

    /// Makes it.
    fn create(
        &self,
        cx: &Cx<D>,
        request: ApplyRequest<Self::Model, Self::Private>,
    ) -> impl Future<Output = Applied<Self::Model, Self::Private>> + Send;

    /// Changes it in place.
    fn update(
        &self,
        cx: &Cx<D>,
        prior: State<Self::Model, Self::Private>,
        request: ApplyRequest<Self::Model, Self::Private>,
    ) -> impl Future<Output = Applied<Self::Model, Self::Private>> + Send;

    /// Removes it. After an error it is taken to exist still.
    ///
    /// Where a create has failed and left something, Terraform keeps no private data for its replacement: what deleting
    /// cannot do without has to be in the state.
    fn delete(
        &self,
        cx: &Cx<D>,
        state: State<Self::Model, Self::Private>,
    ) -> impl Future<Output = Result<(), Diagnostics>> + Send;

    /// Finds what exists already. Terraform reads it right afterwards.
    fn import(
        &self,
        cx: &Cx<D>,
        id: &str,
    ) -> impl Future<Output = Result<State<Self::Model, Self::Private>, Diagnostics>> + Send {
        let _ = (cx, id);
        async { Err(Diagnostic::error(format!("{} cannot be imported", Self::TYPE)).into()) }
    }

    /// The same by [identity](Schema::identity). Where that is one string, this is importing by it.
    fn import_identity(
        &self,
        cx: &Cx<D>,
        identity: BTreeMap<String, Value>,
    ) -> impl Future<Output = Result<State<Self::Model, Self::Private>, Diagnostics>> + Send {
        async move {
            match identity.values().collect::<Vec<_>>().as_slice() {
                [Value::String(id)] => self.import(cx, id).await,
                _ => Err(Diagnostic::error(format!("{} cannot be imported by identity", Self::TYPE))
                    .detail("Import it by `id` instead.")
                    .into()),
            }
        }
    }

    /// Takes over what was of another type: `moved { from = other_type.x, to = this_type.x }`. `None`: it cannot be taken over
    /// from there. The provider is not configured.
    fn move_state(
        &self,
        request: MoveRequest,
    ) -> impl Future<Output = Result<Option<State<Self::Model, Self::Private>>, Diagnostics>> + Send {
        drop(request);
        async { Ok(None) }
    }

    /// The configuration from which this state would come, for `terraform plan -generate-config-out` and `terraform query`
    /// (Terraform 1.14). What only the provider can set is taken out afterwards; here is the place to leave out what is as
    /// by default.
    fn generate_config(
        &self,
        state: Self::Model,
    ) -> impl Future<Output = Result<Self::Model, Diagnostics>> + Send {
        async { Ok(state) }
    }

    /// Brings the state of an older schema version into the shape of this one, as JSON.
    ///
    /// Numbers that are neither integers of 64 bits nor floats are rounded here, as everywhere in [`serde_json`]; a state that
    /// needs no upgrade keeps all digits.
    fn upgrade(&self, version: i64, state: serde_json::Value) -> Result<serde_json::Value, Diagnostics> {
        let _ = state;
        Err(Diagnostic::error(format!(
            "The state of {} was written by another version of the provider",
            Self::TYPE
        ))
        .detail(format!("It has schema version {version}, which this version cannot read."))
        .into())
    }

    /// Makes something of private data that are older than [`PRIVATE_VERSION`](Self::PRIVATE_VERSION), that do not fit
    /// [`Private`](Self::Private), or that were written with another SDK. `None`: of the resource's own they are read as they are,
    /// where they fit; else the resource goes on with the default, and the user gets a warning. It never makes the resource
    /// unusable.
    fn upgrade_private(&self, stored: StoredPrivate) -> Option<Self::Private> {
        drop(stored);
        None
    }

    /// Brings the identity of an older version of its schema into the shape of this one, as JSON.
    fn upgrade_identity(
        &self,
        version: i64,
        identity: serde_json::Value,
    ) -> Result<serde_json::Value, Diagnostics> {
        let _ = identity;
        Err(Diagnostic::error(format!(
            "The identity of {} was written by another version of the provider",
            Self::TYPE
        ))
        .detail(format!("It has schema version {version}, which this version cannot read."))
        .into())
    }
}

/// What Terraform stores about a resource.
#[derive(Clone, Debug)]
pub struct State<M, P = ()> {
    /// The state.
    pub value: M,
    /// What goes with it unseen.
    pub private: P,
}

impl<M, P: Default> From<M> for State<M, P> {
    fn from(value: M) -> Self {
        Self { value, private: P::default() }
    }
}

/// The result of an apply: what there is now, or what went wrong and what there is now.
pub type Applied<M, P = ()> = Result<State<M, P>, Failed<M, P>>;

/// What there is to plan from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlanRequest<M, P = ()> {
    /// The state so far; `None` when it is to be created.
    pub prior: Option<State<M, P>>,
    /// What the user wrote.
    pub config: M,
    /// The configuration with defaults, prior computed values, and unknown ones where something changes.
    pub proposed: M,
    /// What the first of two plans left for apply, when this is the second, which Terraform makes while it applies.
    /// Only Terraform 1.16 and later tell ([`Client::stores_planned_private`](crate::Client::stores_planned_private)).
    pub planned: Option<P>,
}

/// A plan.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlanResponse<M, P = ()> {
    /// The state after apply, as far as it is known.
    pub planned: M,
    /// For apply.
    pub private: P,
    /// Changes that mean another resource, beyond those the schema names.
    pub requires_replace: Vec<Path>,
}

impl<M, P> PlanResponse<M, P> {
    /// A plan that leads to `planned`, and hands `private` to apply.
    pub fn new(planned: M, private: P) -> Self {
        Self { planned, private, requires_replace: vec![] }
    }

    /// A plan that destroys the resource and makes another one, where the attributes at these paths differ from the state. Each
    /// path must lead to a value in the state or in the plan.
    #[must_use]
    pub fn requires_replace(self, paths: impl IntoIterator<Item = Path>) -> Self {
        Self { requires_replace: paths.into_iter().collect(), ..self }
    }
}

/// A plan to carry out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ApplyRequest<M, P = ()> {
    /// The planned state.
    pub planned: M,
    /// What the user wrote, with write-only values.
    pub config: M,
    /// What the plan left for apply.
    pub private: P,
}

/// An apply that did not succeed, and what there is now.
#[derive(Clone, Debug)]
pub struct Failed<M, P = ()> {
    /// What went wrong.
    pub diagnostics: Diagnostics,
    /// What exists now. `None`: nothing was changed.
    pub partial: Option<State<M, P>>,
}

impl<M, P> From<Diagnostics> for Failed<M, P> {
    fn from(diagnostics: Diagnostics) -> Self {
        Self { diagnostics, partial: None }
    }
}

impl<M, P> From<Diagnostic> for Failed<M, P> {
    fn from(diagnostic: Diagnostic) -> Self {
        Diagnostics::from(diagnostic).into()
    }
}

/// What is to be taken over from another type of resource.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MoveRequest {
    /// The provider it came from: `registry.terraform.io/hashicorp/null`.
    pub source_provider: String,
    /// Its type there.
    pub source_type: String,
    /// The version of its schema there.
    pub source_version: i64,
    /// Its state there.
    pub state: serde_json::Value,
    /// Its private data there, in a form only that provider knows.
    pub private: Vec<u8>,
}
