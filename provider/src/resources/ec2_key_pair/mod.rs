//! `nixos_ec2_key_pair`: an SSH key that EC2 puts on new machines.
//!
//! The private half of a generated key exists in one file of mode 0600 and nowhere else: not in state, not in a plan.

mod calls;
mod file;
mod model;
mod schema;

use std::collections::BTreeMap;
use std::{fs, io};

use self::model::{Generate, Model, Private};
use aws_sdk_ec2::Client;
use nixos_activator::ssh::{KeyPair, KeyType, normalized_public_key};
use tfplugin::{
    ApplyRequest, Attr, Cx, Diagnostic, Diagnostics, Failed, Path, PlanRequest, PlanResponse, Resource,
    Schema, State, Value,
};

use self::calls::{find, launched_with};
use self::file::{Removal, move_private, put_aside, write_private};
use crate::aws::{
    Aws, AwsError, TagModel, Tags, aws_unknown, difference, import_id, moves_with_surroundings,
    planned_region, regional_id,
};
use crate::context::Context;
use crate::settings::unique;

pub(crate) struct KeyPairResource;

/// What EC2 calls a key pair that is not there.
const NOT_FOUND: &[&str] = &["InvalidKeyPair.NotFound"];

impl Resource<Context> for KeyPairResource {
    const TYPE: &'static str = "nixos_ec2_key_pair";
    type Model = Model;
    type Private = Private;

    fn schema(&self) -> Schema {
        schema::schema()
    }

    async fn validate(&self, config: Model) -> Result<(), Diagnostics> {
        schema::validate(&config)
    }

    async fn plan(
        &self,
        cx: &Cx<Context>,
        request: PlanRequest<Model, Private>,
    ) -> Result<PlanResponse<Model, Private>, Diagnostics> {
        let PlanRequest { prior, config, proposed, .. } = request;
        let aws = cx.data.aws.as_ref();
        let mut planned = proposed;
        planned.region = match &prior {
            Some(prior) if config.region.is_null() && aws.is_none() => prior.value.region.clone(),
            _ => planned_region(aws, &config.region, &Path::root().attribute("region")).await?,
        };
        planned.tags_all = TagModel::planned_all(&config.tags, aws.map(Aws::default_tags));
        let mut requires_replace = vec![];
        if let Some(prior) = &prior {
            let (pair, path) = (format!("Key pair \"{}\"", planned.name()), Path::root().attribute("region"));
            let (from, to) = (&prior.value.region, &planned.region);
            if let Some(warning) = moves_with_surroundings(&pair, from, &config.region, to, path) {
                cx.warn(warning);
            }
            let found = prior.value.public_key.known().and_then(|key| normalized_public_key(key));
            let wanted = match &config.public_key {
                Attr::Known(key) => normalized_public_key(key),
                Attr::Null => prior.private.generated.clone().or_else(|| found.clone()),
                Attr::Unknown => None,
            };
            if wanted.is_some() && wanted == found {
                planned.public_key = prior.value.public_key.clone();
            } else {
                planned.public_key = match &config.public_key {
                    Attr::Null => Attr::Unknown,
                    key => key.clone(),
                };
                requires_replace.push(Path::root().attribute("public_key"));
            }
            if prior.value.is_open() {
                // Nobody knows of one; if a refresh had found it, it would have an id.
                planned.key_pair_id = Attr::Unknown;
                requires_replace.push(Path::root().attribute("key_pair_id"));
            }
            let other_key = !requires_replace.is_empty() || prior.value.generate != planned.generate;
            if other_key && prior.value.key_name == planned.key_name && prior.value.region == planned.region {
                prior.value.warn_of_machines(cx).await;
            }
        } else {
            planned.id = planned.key_name.clone();
        }
        let private = prior.map(|prior| prior.private).unwrap_or_default();
        Ok(PlanResponse::new(planned, private).requires_replace(requires_replace))
    }

    async fn read(
        &self,
        cx: &Cx<Context>,
        state: State<Model, Private>,
    ) -> Result<Option<State<Model, Private>>, Diagnostics> {
        let State { value: mut model, private } = state;
        let Some(aws) = cx.data.aws.as_ref() else {
            cx.warn(model.not_refreshed());
            return Ok(Some(State { value: model, private }));
        };
        let found = model.find(&model.client(aws).await?, &cx.cancel).await.map_err(model.problem("read"))?;
        // Where AWS did not say whether it made ours, one that is there may be somebody else's.
        match found.filter(|found| !model.is_open() || model.is(found)) {
            Some(found) => model.take(&found, aws),
            // Its private key is in a file all the same, and goes with what is left of it.
            None if model.is_open() && private.generated.is_some() => {}
            None => return Ok(None),
        }
        Ok(Some(State { value: model, private }))
    }

    async fn create(
        &self,
        cx: &Cx<Context>,
        request: ApplyRequest<Model, Private>,
    ) -> Result<State<Model, Private>, Failed<Model, Private>> {
        let mut model = request.planned;
        let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
        if model.region.is_unknown() {
            model.region = Attr::Known(aws.region(None, &Path::root().attribute("region")).await?);
        }
        if model.key_name.is_unknown() {
            let prefix = model.key_name_prefix.known().map_or("terraform-", String::as_str);
            model.key_name = Attr::Known(unique(prefix));
        }
        model.tags_all = TagModel::planned_all(&model.tags, Some(aws.default_tags()));
        let client = model.client(aws).await?;
        if find(&client, model.name()).await.map_err(model.problem("look for"))?.is_some() {
            return Err(model.duplicate().into());
        }
        let generated = match model.generate.known() {
            Some(generate) => {
                let pair = KeyPair::generate(generate.key_type()).await.map_err(|error| {
                    Diagnostic::error("No key could be generated")
                        .detail(error.to_string())
                        .at(Path::root().attribute("generate"))
                })?;
                write_private(model.file(), &pair.private)
                    .map_err(|error| model.file_problem("written", &error))?;
                Some(pair.public)
            }
            None => None,
        };
        let public = generated
            .clone()
            .or_else(|| normalized_public_key(model.public_key.known()?))
            .unwrap_or_default();
        let created = match model.import(&client, &public, &cx.cancel).await {
            Ok(created) => created,
            Err((diagnostic, true)) => {
                // Whether it is there, the next refresh sees. What is left is replaced, and the file goes with it.
                model.public_key = Attr::Known(public);
                let partial = State { value: model, private: Private { generated } };
                return Err(Failed { diagnostics: diagnostic.into(), partial: Some(partial) });
            }
            Err((diagnostic, false)) => {
                if generated.is_some() {
                    // A private key whose public half is nowhere is of no use, and in the way of the next try.
                    let _ = fs::remove_file(model.file());
                }
                return Err(diagnostic.into());
            }
        };
        if generated.is_some() {
            model.public_key = Attr::Known(public);
        }
        model.take(&created, aws);
        Ok(State { value: model, private: Private { generated } })
    }

    async fn update(
        &self,
        cx: &Cx<Context>,
        prior: State<Model, Private>,
        request: ApplyRequest<Model, Private>,
    ) -> Result<State<Model, Private>, Failed<Model, Private>> {
        let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
        let mut model = request.planned;
        model.tags_all = TagModel::planned_all(&model.tags, Some(aws.default_tags()));
        let client = model.client(aws).await?;
        let now = |model: &Model| State { value: model.clone(), private: prior.private.clone() };
        if model.private_key_file != prior.value.private_key_file {
            move_private(prior.value.file(), model.file())
                .map_err(|error| model.file_problem("moved", &error))?;
        }
        let id = model.key_pair_id.known().cloned().unwrap_or_default();
        let (set, gone) = difference(&prior.value.all_tags(), &model.all_tags());
        if let Err(error) = crate::aws::retag_ec2(&client, &[id], &set, &gone).await {
            let partial = Model {
                tags: prior.value.tags.clone(),
                tags_all: prior.value.tags_all.clone(),
                ..model.clone()
            };
            let diagnostics = model.problem("change the tags of")(error).into();
            return Err(Failed { diagnostics, partial: Some(now(&partial)) });
        }
        Ok(now(&model))
    }

    async fn delete(&self, cx: &Cx<Context>, state: State<Model, Private>) -> Result<(), Diagnostics> {
        let model = state.value;
        let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
        let client = model.client(aws).await?;
        // What has its name by now may be somebody else's.
        let found = model.find(&client, &cx.cancel).await.map_err(model.problem("look for"))?;
        let ours = found.filter(|found| model.is(found));
        // Only for what is said below: the file is kept in any case.
        let needed = model.is_needed(&client).await.unwrap_or_default();
        if ours.is_some() {
            let deleted = client.delete_key_pair().key_name(model.name()).send().await;
            match deleted.map_err(AwsError::of("ec2:DeleteKeyPair")) {
                Err(error) if !error.is(NOT_FOUND) => return Err(model.problem("delete")(error).into()),
                _ => {}
            }
        }
        if let Some(public) = state.private.generated.or_else(|| model.generated())
            && !model.file().is_empty()
        {
            // Machines of other regions, whose key pairs have the same public key, cannot be found from here.
            match put_aside(model.file(), &public) {
                Ok(Removal::Gone) => {}
                Ok(Removal::Kept(name)) => cx.warn(model.file_kept(&name, needed.as_deref())),
                Ok(Removal::NotOurs) => cx.warn(model.file_stays()),
                Err(error) => cx.warn(model.file_problem("removed", &error).into_warning()),
            }
        }
        Ok(())
    }

    async fn import_identity(
        &self,
        cx: &Cx<Context>,
        identity: BTreeMap<String, Value>,
    ) -> Result<State<Model, Private>, Diagnostics> {
        self.import(cx, &regional_id(&identity, "key_name")).await
    }

    async fn import(&self, cx: &Cx<Context>, id: &str) -> Result<State<Model, Private>, Diagnostics> {
        let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
        let (region, name) = import_id(id);
        let region = aws.region(region, &Path::root()).await?;
        let mut model =
            Model { key_name: Attr::Known(name.to_owned()), region: Attr::Known(region), ..Model::default() };
        let found = find(&model.client(aws).await?, name).await.map_err(model.problem("read"))?;
        let found = found.ok_or_else(|| {
            Diagnostic::error(format!("There is no key pair \"{name}\"")).detail(format!(
                "Found none in region {}; expected the name of a key pair, or REGION:NAME for another \
                 region.",
                model.region.known().map_or("?", String::as_str)
            ))
        })?;
        model.take(&found, aws);
        Ok(State { value: model, private: Private::default() })
    }
}

impl Generate {
    fn key_type(&self) -> KeyType {
        match self.kind.known().map(String::as_str) {
            Some("rsa") => KeyType::Rsa { bits: self.bits.known().copied().unwrap_or(4096) },
            _ => KeyType::Ed25519,
        }
    }
}

impl Model {
    fn name(&self) -> &str {
        self.key_name.known().map_or("", String::as_str)
    }

    fn file(&self) -> &str {
        self.private_key_file.known().map_or("", String::as_str)
    }

    async fn client(&self, aws: &Aws) -> Result<Client, Diagnostic> {
        let region =
            aws.region(self.region.known().map(String::as_str), &Path::root().attribute("region")).await?;
        Ok(aws.ec2(&region).await)
    }

    /// Whether it is only known to have been asked for: no answer came, and no refresh has found it.
    fn is_open(&self) -> bool {
        self.key_pair_id.is_null()
    }

    /// The public half of the key that was generated, as far as the state alone tells: what a failed create has left
    /// is deleted without its private data.
    fn generated(&self) -> Option<String> {
        self.generate.known().and(self.public_key.known()).and_then(|key| normalized_public_key(key))
    }

    fn all_tags(&self) -> Tags {
        TagModel { tags: Attr::Null, tags_all: self.tags_all.clone() }.all()
    }

    fn problem(&self, verb: &str) -> impl Fn(AwsError) -> Diagnostic {
        let summary = format!("AWS did not {verb} key pair \"{}\"", self.name());
        move |error| error.diagnostic(&summary, Path::root().attribute("key_name"))
    }

    fn duplicate(&self) -> Diagnostic {
        let (name, region) = (self.name(), self.region.known().map_or("?", String::as_str));
        Diagnostic::error(format!("There is a key pair \"{name}\" already"))
            .detail(format!(
                "Region {region} has one of this name that this resource did not create; nothing was \
                 changed. Choose another `key_name`, delete that one, or take it over: terraform import \
                 ADDRESS {region}:{name}"
            ))
            .at(Path::root().attribute("key_name"))
    }

    fn file_problem(&self, verb: &str, error: &io::Error) -> Diagnostic {
        let advice = match error.kind() {
            io::ErrorKind::AlreadyExists => {
                "There is a file already, which is never overwritten. Move it away or name another."
            }
            _ => "Expected a path in a directory that can be written to.",
        };
        Diagnostic::error(format!("The private key cannot be {verb}"))
            .detail(format!("{}: {error}. {advice}", self.file()))
            .at(Path::root().attribute("private_key_file"))
    }

    /// Who still lets the key in that goes: as a text where there are such machines, or may be.
    async fn is_needed(&self, client: &Client) -> Result<Option<String>, Diagnostic> {
        if self.is_open() {
            return Ok(None);
        }
        match launched_with(client, self.name()).await {
            Ok(machines) if machines.is_empty() => Ok(None),
            Ok(machines) => Ok(Some(machines.join(", "))),
            // Whose permissions end at key pairs cannot say that nobody needs it.
            Err(error) if error.is_denied() => Ok(Some(format!("perhaps some ({error})"))),
            Err(error) => Err(self.problem("look for the machines of")(error)),
        }
    }

    /// Says in a plan that replaces the key under its name which machines do not follow.
    async fn warn_of_machines(&self, cx: &Cx<Context>) {
        let Some(aws) = cx.data.aws.as_ref() else { return };
        let Ok(client) = self.client(aws).await else { return };
        let needed = match self.is_needed(&client).await {
            Ok(None) => return,
            Ok(Some(machines)) => machines,
            Err(error) => format!("perhaps some ({})", error.detail),
        };
        let kept = match self.file() {
            "" => String::new(),
            file => format!(" {file} becomes {file}.old, so that they can be reached until then."),
        };
        cx.warn(
            Diagnostic::warning(format!("Machines keep the public key of key pair \"{}\"", self.name())).detail(format!(
                "EC2 gives a machine its key when it is launched, and a new key under the same name never \
                 reaches it. Launched with the one that is replaced: {needed}. Deploy the new public key \
                 to them before the old private key is given up.{kept}"
            )),
        );
    }

    fn file_kept(&self, name: &str, machines: Option<&str>) -> Diagnostic {
        let region = self.region.known().map_or("its region", String::as_str);
        let machines = match machines {
            Some(machines) => format!("Launched in {region} with a key of this name: {machines}."),
            None => format!("No machine in {region} was launched with it."),
        };
        Diagnostic::warning(format!("The private key of key pair \"{}\" is kept as {name}", self.name()))
            .detail(format!(
                "{machines} Machines of other regions may have the same public key. One that was launched \
                 with it lets no other key in: log in with `private_key_file = \"{name}\"` until a \
                 deployment has put another public key there. When no machine is left that needs it, \
                 delete the file."
            ))
            .at(Path::root().attribute("private_key_file"))
    }

    fn file_stays(&self) -> Diagnostic {
        Diagnostic::warning("A file is not removed")
            .detail(format!(
                "{} no longer holds the private key of key pair \"{}\" that was written to it; what is in \
                 it is somebody else's.",
                self.file(),
                self.name()
            ))
            .at(Path::root().attribute("private_key_file"))
    }

    fn not_refreshed(&self) -> Diagnostic {
        let why = aws_unknown();
        Diagnostic::warning(format!("Key pair \"{}\" was not refreshed", self.name()))
            .detail(format!("{} {}\n\nIts last known state is kept.", why.summary, why.detail))
    }
}
