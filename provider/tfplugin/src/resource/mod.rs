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

/// Something that Terraform manages. The methods are in the order of a resource's life.
///
/// `D` is [`Provider::Data`](crate::Provider::Data), what configuring the provider gave. Wherever a method returns
/// [`Diagnostics`] as an error, the user sees them all; warnings that come with a success go through [`Cx::warn`].
pub trait Resource<D: Send + Sync>: Send + Sync + 'static {
    /// Its name in configurations, e.g. `random_word`.
    const TYPE: &'static str;
    /// Configuration and state: a struct with a field for each attribute of the schema, by its name.
    ///
    /// A field is [`Attr<T>`](crate::Attr) where the attribute may be null or unknown; elements of collections may be
    /// unknown, too: `Attr<Vec<Attr<String>>>`. `testing::model_problems` finds fields that do not take what Terraform
    /// sends.
    type Model: Serialize + DeserializeOwned + Clone + Send + Sync;
    /// What the resource remembers beside its state. Terraform stores it and shows it to nobody; it is no place for
    /// secrets.
    ///
    /// States live longer than versions of a provider: a new field gets `#[serde(default)]`, and another layout a new
    /// [`PRIVATE_VERSION`](Self::PRIVATE_VERSION). Fields that a newer version has added are ignored.
    type Private: Serialize + DeserializeOwned + Default + Clone + Send + Sync;
    /// The version of the layout of [`Private`](Self::Private).
    const PRIVATE_VERSION: u32 = 0;

    /// Its schema.
    fn schema(&self) -> Schema;

    /// Checks a configuration for what the schema cannot express. Values may be unknown, and the provider is not
    /// configured.
    ///
    /// `Err` with warnings alone lets the configuration pass and shows the warnings.
    fn validate(&self, config: Self::Model) -> impl Future<Output = Result<(), Diagnostics>> + Send {
        drop(config);
        async { Ok(()) }
    }

    /// Plans what apply will do. A known value in the plan is a promise: apply has to bring about just that. An unknown
    /// value may become anything.
    ///
    /// Terraform plans twice: once to show the plan, and once more, in another process, when it applies. The second
    /// plan has to agree with the first one wherever that is known. By default the plan is [`PlanRequest::proposed`].
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

    /// Looks at a resource that is going to be destroyed. An error keeps Terraform from planning it; a warning
    /// ([`Cx::warn`]) is shown with the plan.
    fn plan_destroy(
        &self,
        cx: &Cx<D>,
        prior: State<Self::Model, Self::Private>,
    ) -> impl Future<Output = Result<(), Diagnostics>> + Send {
        let _ = (cx, prior);
        async { Ok(()) }
    }

    /// Finds out how the resource really is. `None` means that it no longer exists: Terraform forgets it and plans to
    /// create it anew. For a resource that cannot be reached the answer is an error, or the prior state with a warning,
    /// but never `None`.
    fn read(
        &self,
        cx: &Cx<D>,
        state: State<Self::Model, Self::Private>,
    ) -> impl Future<Output = Result<Option<State<Self::Model, Self::Private>>, Diagnostics>> + Send;

    /// Creates the resource. The result has every value that was planned, and nothing in it is unknown.
    ///
    /// After an error without [`Failed::partial`] Terraform takes it that nothing exists. With one it stores that
    /// state, marks the resource as tainted, and replaces it in the next apply.
    fn create(
        &self,
        cx: &Cx<D>,
        request: ApplyRequest<Self::Model, Self::Private>,
    ) -> impl Future<Output = Applied<Self::Model, Self::Private>> + Send;

    /// Changes the resource in place, from `prior` to [`ApplyRequest::planned`].
    ///
    /// After an error without [`Failed::partial`] Terraform takes it that nothing was changed. With one it stores that
    /// state, and the next plan shows what is left to do.
    fn update(
        &self,
        cx: &Cx<D>,
        prior: State<Self::Model, Self::Private>,
        request: ApplyRequest<Self::Model, Self::Private>,
    ) -> impl Future<Output = Applied<Self::Model, Self::Private>> + Send;

    /// Destroys the resource. After an error Terraform takes it that the resource still exists, as it was.
    ///
    /// When Terraform replaces what a failed create has left, it does not hand over the private data of that create. So
    /// whatever deleting needs has to be in the state.
    fn delete(
        &self,
        cx: &Cx<D>,
        state: State<Self::Model, Self::Private>,
    ) -> impl Future<Output = Result<(), Diagnostics>> + Send;

    /// Finds a resource that exists already by the id that the user gives. Terraform reads it right afterwards, so only
    /// what [`read`](Self::read) needs has to be known. By default importing is an error.
    fn import(
        &self,
        cx: &Cx<D>,
        id: &str,
    ) -> impl Future<Output = Result<State<Self::Model, Self::Private>, Diagnostics>> + Send {
        let _ = (cx, id);
        async { Err(Diagnostic::error(format!("{} cannot be imported", Self::TYPE)).into()) }
    }

    /// Finds a resource that exists already by its [identity](Schema::identity), whose attributes `identity` has by
    /// name. By default an identity that is one string is taken for the id.
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

    /// Makes a state of this type of one of another type: `moved { from = other_type.x, to = this_type.x }`. `None`
    /// means that it does not know how to take over that type. The provider is not configured.
    fn move_state(
        &self,
        request: MoveRequest,
    ) -> impl Future<Output = Result<Option<State<Self::Model, Self::Private>>, Diagnostics>> + Send {
        drop(request);
        async { Ok(None) }
    }

    /// The configuration from which this state would come, for `terraform plan -generate-config-out` and `terraform
    /// query` (Terraform 1.14). The server removes what only the provider can set; this method can leave out more, such
    /// as values that are the default of the service.
    fn generate_config(
        &self,
        state: Self::Model,
    ) -> impl Future<Output = Result<Self::Model, Diagnostics>> + Send {
        async { Ok(state) }
    }

    /// Brings a state that was written under schema version `version` into the shape of the present schema, as JSON. It
    /// is not called for a state of the present version, which may lack attributes that were added since.
    ///
    /// Numbers that are neither integers of 64 bits nor floats are rounded here, as everywhere in [`serde_json`]; a
    /// state that needs no upgrade keeps all digits.
    ///
    /// # Errors
    ///
    /// For a version that it does not know. By default it knows none.
    fn upgrade(&self, version: i64, state: serde_json::Value) -> Result<serde_json::Value, Diagnostics> {
        let _ = state;
        Err(Diagnostic::error(format!(
            "The state of {} was written by another version of the provider",
            Self::TYPE
        ))
        .detail(format!("It has schema version {version}, which this version cannot read."))
        .into())
    }

    /// Reads private data that are older than [`PRIVATE_VERSION`](Self::PRIVATE_VERSION), that do not fit
    /// [`Private`](Self::Private), or that another SDK has written.
    ///
    /// After `None` the server reads the resource's own data as they are, where they fit. Where they do not, and for
    /// data of another SDK, the resource goes on with the default, and the user gets a warning.
    fn upgrade_private(&self, stored: StoredPrivate) -> Option<Self::Private> {
        drop(stored);
        None
    }

    /// Brings an identity that was written under version `version` of its schema into the shape of the present one, as
    /// JSON.
    ///
    /// # Errors
    ///
    /// For a version that it does not know. By default it knows none.
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
    /// What the resource remembers beside it.
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
    /// The plan that the schema alone leads to: the configuration with its defaults, prior values where nothing
    /// changes, and unknown computed values where something does.
    pub proposed: M,
    /// The private data of the first plan, when this is the second one, which Terraform makes while it applies. Only
    /// Terraform 1.16 and later hand them over
    /// ([`Client::stores_planned_private`](crate::Client::stores_planned_private)).
    pub planned: Option<P>,
}

/// A plan.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlanResponse<M, P = ()> {
    /// The state after apply, as far as it is known.
    pub planned: M,
    /// Handed to apply, and stored with the state that it makes.
    pub private: P,
    /// Attributes whose change replaces the resource, beyond those that the schema names.
    pub requires_replace: Vec<Path>,
}

impl<M, P> PlanResponse<M, P> {
    /// A plan that leads to `planned`, and hands `private` to apply.
    pub fn new(planned: M, private: P) -> Self {
        Self { planned, private, requires_replace: vec![] }
    }

    /// A plan that destroys the resource and makes another one, where the attributes at these paths differ from the
    /// state. Each path must lead to a value in the state or in the plan.
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

/// A resource of another type, whose state is to become one of this type.
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
