//! `nixos_ec2_key_pair`: an SSH key that EC2 puts on new machines.
//!
//! The private half of a generated key exists in one file of mode 0600 and nowhere else: not in state, not in a plan.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path as FilePath;

use aws_sdk_ec2::Client;
use aws_sdk_ec2::primitives::Blob;
use aws_sdk_ec2::types::{Filter, KeyPairInfo, ResourceType, Tag, TagSpecification};
use nixos_activator::Secret;
use nixos_activator::ssh::{KeyPair, KeyType, normalized_public_key};
use serde::{Deserialize, Serialize};
use tfplugin::{
    ApplyRequest, Attr, Attribute, Cx, Diagnostic, Diagnostics, Failed, Nested, Path, PlanRequest,
    PlanResponse, Resource, Schema, State, Value, validators,
};
use tokio_util::sync::CancellationToken;

use crate::aws::{
    Aws, AwsError, Patience, SETTLING, TagModel, Tags, aws_unknown, difference, import_id, planned_region,
    region_attribute, regional_id, regional_identity, tags_all_attribute, tags_attribute,
};
use crate::context::Context;
use crate::settings::{computed, unique};

pub(crate) struct KeyPairResource;

/// Configuration and state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Model {
    key_name: Attr<String>,
    key_name_prefix: Attr<String>,
    region: Attr<String>,
    public_key: Attr<String>,
    generate: Attr<Generate>,
    private_key_file: Attr<String>,
    tags: Attr<BTreeMap<String, Attr<String>>>,
    tags_all: Attr<BTreeMap<String, Attr<String>>>,
    id: Attr<String>,
    key_pair_id: Attr<String>,
    key_type: Attr<String>,
    fingerprint: Attr<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Generate {
    #[serde(rename = "type")]
    kind: Attr<String>,
    bits: Attr<u16>,
}

/// What is remembered beside the state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Private {
    /// The public half of the key that was generated: the one that the private half belongs to, whatever EC2 has by now.
    generated: Option<String>,
}

/// What EC2 calls a key pair that is not there.
const NOT_FOUND: &[&str] = &["InvalidKeyPair.NotFound"];
/// And one that is there already.
const DUPLICATE: &[&str] = &["InvalidKeyPair.Duplicate"];

impl Resource<Context> for KeyPairResource {
    const TYPE: &'static str = "nixos_ec2_key_pair";
    type Model = Model;
    type Private = Private;

    fn schema(&self) -> Schema {
        let generate = Nested::new()
            .attribute(
                "type",
                Attribute::string()
                    .required()
                    .validate(validators::one_of(&["ed25519", "rsa"]))
                    .description("`ed25519` or `rsa`."),
            )
            .attribute(
                "bits",
                Attribute::number()
                    .optional()
                    .validate(validators::integer_between(2048, 4096))
                    .description("Length of an RSA key, 2048 to 4096. Default: 4096."),
            );
        Schema::new(0)
            .description(
                "An SSH key that EC2 puts on new machines: a public key that you have, or a new one whose private half is written to a \
                 file of mode 0600 and never to state.",
            )
            .attribute("key_name", Attribute::string().optional().computed().use_state_for_unknown().requires_replace().validate(validators::matches(is_key_name, "1 to 255 ASCII characters")).description("Its name in the region, 1 to 255 ASCII characters. Default: `key_name_prefix` and something unique."))
            .attribute("key_name_prefix", Attribute::string().optional().requires_replace().description("What a name made here begins with. Default: `terraform-`. Not together with `key_name`."))
            .attribute("region", region_attribute().use_state_for_unknown())
            .attribute("public_key", Attribute::string().optional().computed().use_state_for_unknown().validate(validators::matches(|text| normalized_public_key(text).is_some(), "a public key as in `authorized_keys`: `ssh-ed25519 AAAA…`")).description("The public key, as in `authorized_keys`; comment and white space do not matter. Exactly one of `public_key` and `generate` is set; with `generate`, this is the public half of the key that was made."))
            .attribute("generate", Attribute::nested_single(generate).optional().requires_replace().description("Makes a new key, instead of taking the one in `public_key`. Needs `private_key_file`. A change of it replaces the key pair."))
            .attribute("private_key_file", Attribute::string().optional().validate(validators::not_empty()).description("Where the private half of a key that `generate` makes is written (mode 0600; an existing file is never overwritten). It is moved when this changes and removed with the resource. It does not have to stay: only those who log in need it. Only with `generate`."))
            .attribute("tags", tags_attribute())
            .attribute("tags_all", tags_all_attribute())
            .attribute("id", computed("The same as `key_name`.").use_state_for_unknown())
            .attribute("key_pair_id", computed("EC2's id of the key pair: `key-…`.").use_state_for_unknown())
            .attribute("key_type", computed("`ed25519` or `rsa`.").use_state_for_unknown())
            .identity(regional_identity("key_name", "The name of the key pair."))
            .attribute("fingerprint", computed("The fingerprint as EC2 shows it: of an imported RSA key MD5 of the DER form, of an Ed25519 key SHA-256.").use_state_for_unknown())
    }

    async fn validate(&self, config: Model) -> Result<(), Diagnostics> {
        let mut problems = Diagnostics::default();
        let root = Path::root;
        let mut say = |name: &str, summary: &str, detail: &str| {
            problems.push(Diagnostic::error(summary).detail(detail).at(root().attribute(name)));
        };
        if config.key_name.is_known() && config.key_name_prefix.is_known() {
            say(
                "key_name_prefix",
                "Two names for one key pair",
                "Found `key_name` and `key_name_prefix`; expected at most one. Remove the prefix, or the name to have one made.",
            );
        }
        match (&config.public_key, &config.generate) {
            (Attr::Known(_), Attr::Known(_)) => say(
                "generate",
                "Two keys for one key pair",
                "Found `public_key` and `generate`; expected one of them. Remove `generate` to use the key you have.",
            ),
            (Attr::Null, Attr::Null) => say(
                "public_key",
                "A key pair without a key",
                "Found neither `public_key` nor `generate`; expected one of them: public_key = file(\"~/.ssh/id_ed25519.pub\"), or generate = { type = \"ed25519\" } with private_key_file.",
            ),
            _ => {}
        }
        if let Attr::Known(generate) = &config.generate {
            if config.private_key_file.is_null() {
                say(
                    "private_key_file",
                    "Nowhere to put the private key",
                    "`generate` makes a private key, which is never stored in state; expected `private_key_file`, the path of a file to write it to, e.g. private_key_file = \"${path.root}/admin.key\".",
                );
            }
            if generate.kind.known().is_some_and(|kind| kind == "ed25519") && generate.bits.is_known() {
                say(
                    "generate",
                    "Ed25519 keys have one length",
                    "Found `bits` with type \"ed25519\"; expected it only with \"rsa\". Remove it.",
                );
            }
        } else if config.generate.is_null() && config.private_key_file.is_known() {
            say(
                "private_key_file",
                "There is no private key to write",
                "Found `private_key_file` without `generate`: the private half of `public_key` is yours already. Remove it.",
            );
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
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
        } else {
            planned.id = planned.key_name.clone();
        }
        let private = prior.map(|prior| prior.private).unwrap_or_default();
        Ok(PlanResponse { planned, private, requires_replace })
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
        let Some(found) =
            find(&model.client(aws).await?, model.name()).await.map_err(model.problem("read"))?
        else {
            return Ok(None);
        };
        if model.key_pair_id.is_null() && !model.is(&found) {
            // AWS did not say whether it made ours, and it did not: this one is somebody else's.
            return Ok(None);
        }
        model.take(&found, aws);
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
                // Whether it is there, the next refresh sees.
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
        let found = find(&client, model.name()).await.map_err(model.problem("look for"))?;
        let ours = found.filter(|found| model.is(found));
        if ours.is_some() {
            let deleted = client.delete_key_pair().key_name(model.name()).send().await;
            match deleted.map_err(AwsError::of("ec2:DeleteKeyPair")) {
                Err(error) if !error.is(NOT_FOUND) => return Err(model.problem("delete")(error).into()),
                _ => {}
            }
        }
        if state.private.generated.is_some() && !model.file().is_empty() {
            match fs::remove_file(model.file()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    cx.warn(Diagnostic {
                        severity: tfplugin::Severity::Warning,
                        ..model.file_problem("removed", &error)
                    });
                }
                _ => {}
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
                "Found none in region {}; expected the name of a key pair, or REGION:NAME for another region.",
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

    fn all_tags(&self) -> Tags {
        TagModel { tags: Attr::Null, tags_all: self.tags_all.clone() }.all()
    }

    /// Whether this is what was made here: by its id, or by its key as long as the id is not known.
    fn is(&self, found: &KeyPairInfo) -> bool {
        match (&self.key_pair_id, &self.public_key) {
            (Attr::Known(id), _) => found.key_pair_id() == Some(id),
            (_, Attr::Known(key)) => {
                found.public_key().and_then(normalized_public_key) == normalized_public_key(key)
            }
            _ => false,
        }
    }

    /// Sends the public half to EC2. An error comes with whether the key pair may be there all the same.
    async fn import(
        &self,
        client: &Client,
        public: &str,
        cancel: &CancellationToken,
    ) -> Result<KeyPairInfo, (Diagnostic, bool)> {
        let tags =
            self.all_tags().into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build());
        let tags: Vec<Tag> = tags.collect();
        let specification = TagSpecification::builder()
            .resource_type(ResourceType::KeyPair)
            .set_tags(Some(tags.clone()))
            .build();
        let mut call = client.import_key_pair().key_name(self.name()).public_key_material(Blob::new(public));
        if !tags.is_empty() {
            call = call.tag_specifications(specification);
        }
        match call.send().await.map_err(AwsError::of("ec2:ImportKeyPair")) {
            Ok(_) => {}
            // It was not there a moment ago: this is what a try did whose answer got lost, if it is this very key.
            Err(error) if error.is(DUPLICATE) => {}
            Err(error) => return Err((self.problem("create")(error.clone()), error.is_open())),
        }
        // EC2 may not have heard yet of what it has just made.
        let patience = Patience::new(SETTLING, cancel);
        let look = || async {
            find(client, self.name()).await?.ok_or_else(|| {
                AwsError::unexpected("ec2:DescribeKeyPairs", "the key pair is not there after it was created")
            })
        };
        let found = patience.retry(|error| !error.is_denied(), look).await;
        let found = found.map_err(|error| (self.problem("read")(error), true))?;
        match found.public_key().and_then(normalized_public_key) {
            Some(there) if there != public => Err((self.duplicate(), false)),
            _ => Ok(found),
        }
    }

    /// Takes over what EC2 says.
    fn take(&mut self, found: &KeyPairInfo, aws: &Aws) {
        let there = found.public_key().and_then(normalized_public_key);
        let here = self.public_key.known().and_then(|key| normalized_public_key(key));
        let other_fingerprint =
            self.fingerprint.known().is_some_and(|known| Some(known.as_str()) != found.key_fingerprint());
        match there {
            Some(there) if Some(&there) != here.as_ref() => self.public_key = Attr::Known(there),
            None if other_fingerprint || here.is_none() => self.public_key = Attr::Null,
            _ => {}
        }
        self.id = self.key_name.clone();
        self.key_pair_id = Attr::from(found.key_pair_id().map(str::to_owned));
        self.key_type = Attr::from(found.key_type().map(|kind| kind.as_str().to_owned()));
        self.fingerprint = Attr::from(found.key_fingerprint().map(str::to_owned));
        let mut tags = TagModel { tags: self.tags.clone(), tags_all: Attr::Null };
        tags.read(&crate::aws::ec2_tags(found.tags()), aws.default_tags());
        (self.tags, self.tags_all) = (tags.tags, tags.tags_all);
    }

    fn problem(&self, verb: &str) -> impl Fn(AwsError) -> Diagnostic {
        let summary = format!("AWS did not {verb} key pair \"{}\"", self.name());
        move |error| error.diagnostic(&summary, Path::root().attribute("key_name"))
    }

    fn duplicate(&self) -> Diagnostic {
        let (name, region) = (self.name(), self.region.known().map_or("?", String::as_str));
        Diagnostic::error(format!("There is a key pair \"{name}\" already"))
            .detail(format!(
                "Region {region} has one of this name that this resource did not create; nothing was changed. Choose another \
                 `key_name`, delete that one, or take it over: terraform import ADDRESS {region}:{name}"
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

    fn not_refreshed(&self) -> Diagnostic {
        let why = aws_unknown();
        Diagnostic::warning(format!("Key pair \"{}\" was not refreshed", self.name()))
            .detail(format!("{} {}\n\nIts last known state is kept.", why.summary, why.detail))
    }
}

fn is_key_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.is_ascii() && text.trim() == text
}

/// The key pair of this name, if there is one.
async fn find(client: &Client, name: &str) -> Result<Option<KeyPairInfo>, AwsError> {
    let by_name = Filter::builder().name("key-name").values(name).build();
    let call = client.describe_key_pairs().filters(by_name).include_public_key(true);
    let answer = call.send().await.map_err(AwsError::of("ec2:DescribeKeyPairs"))?;
    // Filters know wildcards; names may contain them.
    Ok(answer.key_pairs().iter().find(|pair| pair.key_name() == Some(name)).cloned())
}

/// Writes a private key where nothing is yet.
fn write_private(path: &str, key: &Secret) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key.expose().as_bytes())?;
    file.sync_all()
}

/// Moves it, also to another file system. A file that is not there any more is nothing to move.
fn move_private(from: &str, to: &str) -> io::Result<()> {
    if from.is_empty() || to.is_empty() || !FilePath::new(from).exists() {
        return Ok(());
    }
    let key = Secret::new(fs::read_to_string(from)?);
    write_private(to, &key)?;
    fs::remove_file(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_private_key_never_overwrites_a_file_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        write_private(&path("a"), &Secret::new("key")).unwrap();
        assert_eq!(fs::metadata(path("a")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            write_private(&path("a"), &Secret::new("other")).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );

        fs::write(path("b"), "mine").unwrap();
        assert!(move_private(&path("a"), &path("b")).is_err());
        assert_eq!(fs::read_to_string(path("a")).unwrap(), "key");
        move_private(&path("a"), &path("c")).unwrap();
        assert_eq!(
            (fs::read_to_string(path("c")).unwrap().as_str(), FilePath::new(&path("a")).exists()),
            ("key", false)
        );
        move_private(&path("a"), &path("d")).unwrap();
    }
}
