//! The provider block, and what the provider consists of.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use nixos_activator::Secret;
use nixos_activator::deploy::Tools;
use nixos_activator::evaluate::{CachePolicy, EvaluationSettings};
use nixos_activator::nix::NixSettings;
use nixos_activator::progress::Progress;
use nixos_activator::scheduler::Scheduler;
use nixos_activator::ssh::Pool;
use serde::Deserialize;
use tfplugin::{
    Attr, Attribute, ConfigureCx, Diagnostic, Diagnostics, DurationText, DynDataSource, DynEphemeralResource,
    DynFunction, DynResource, Nested, Path, Provider, Schema, Type, validators,
};

use crate::aws::{AwsBlock, AwsSettings, aws_attribute};
use crate::context::Context;
use crate::data_sources::ami::Ami;
use crate::data_sources::machine_status::MachineStatus;
use crate::data_sources::network::NetworkDataSource;
use crate::ephemeral_resources::ssh_key_pair::SshKeyPair;
use crate::functions::known_hosts::KnownHosts;
use crate::functions::to_nix::ToNix;
use crate::machines::{
    Bastion, CONNECT_TIMEOUT, Direction, ELEVATE, SshDefaults, bastion_attributes, effective_options,
    host_key_policy,
};
use crate::resources::deployment::DeploymentResource;
use crate::resources::ec2_key_pair::KeyPairResource;
use crate::resources::machine::MachineResource;
use crate::resources::s3_bucket::BucketResource;
use crate::settings::{List, strings_attribute, texts};

/// The provider: it owns what has to be put away at the end of the process.
#[derive(Clone, Debug)]
pub(crate) struct NixosProvider {
    pub(crate) tools: Arc<Tools>,
}

/// Serves until Terraform says goodbye, then closes the connections.
pub(crate) fn serve() -> ExitCode {
    nixos_activator::ssh::allow_many_files();
    let tools = Arc::new(Tools {
        pool: Pool::default(),
        scheduler: Scheduler::default(),
        progress: Progress::default(),
    });
    let provider = NixosProvider { tools: tools.clone() };
    tfplugin::serve(provider, async move { tools.pool.close().await })
}

/// The provider block.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Config {
    ssh: Attr<SshConfig>,
    nix: Attr<NixConfig>,
    aws: Attr<AwsBlock>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SshConfig {
    user: Attr<String>,
    port: Attr<u16>,
    private_keys: Attr<BTreeMap<String, Attr<Secret>>>,
    private_key_file: Attr<String>,
    bastion: Attr<Bastion>,
    host_key_policy: Attr<String>,
    connect_timeout: Attr<DurationText>,
    options: List<String>,
    elevate: List<String>,
    elevate_password: Attr<Secret>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct NixConfig {
    options: Attr<BTreeMap<String, Attr<String>>>,
    nix_path: List<String>,
    builders: List<String>,
    max_jobs: Attr<String>,
    cores: Attr<u32>,
    evaluation: Attr<EvaluationConfig>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct EvaluationConfig {
    workers: Attr<usize>,
    memory: Attr<String>,
    cache: Attr<String>,
}

impl EvaluationConfig {
    fn settings(&self) -> EvaluationSettings {
        EvaluationSettings {
            workers: self.workers.known().copied(),
            memory_mib: self.memory.known().and_then(|text| mebibytes(text)),
            cache: match self.cache.known().map(String::as_str) {
                Some("off") => CachePolicy::Off,
                Some("read_set") => CachePolicy::ReadSet,
                _ => CachePolicy::Pure,
            },
        }
    }
}

impl Provider for NixosProvider {
    type Config = Config;
    type Data = Context;

    const NAME: &'static str = "nixos";
    const SOURCE: &'static str = "terraform-provider-nixos/nixos";
    const QUIET_TARGETS: &'static [&'static str] = &["aws_"];

    fn schema(&self) -> Schema {
        Schema::new(0)
            .description(
                "Plans and deploys NixOS machines. Everything is optional: without a setting the SSH, Nix \
                 and AWS configuration of the user who runs Terraform applies.",
            )
            .attribute("ssh", ssh_attribute())
            .attribute("nix", nix_attribute())
            .attribute("aws", aws_attribute())
    }

    async fn validate(&self, config: Config) -> Result<(), Diagnostics> {
        config.aws.known().map_or(Ok(()), AwsBlock::validate)?;
        config.nix.known().map_or(Ok(()), NixConfig::validate)
    }

    async fn configure(&self, _cx: &ConfigureCx, config: Config) -> Result<Context, Diagnostics> {
        let ssh = match &config.ssh {
            Attr::Known(ssh) => ssh.defaults(),
            Attr::Null => Some(SshDefaults::default()),
            Attr::Unknown => None,
        };
        let nix = config.nix.known().cloned().unwrap_or_default();
        let evaluation = nix.evaluation.known().map(EvaluationConfig::settings).unwrap_or_default();
        let settings = if config.nix.is_unknown() { None } else { nix.settings() };
        let aws = match &config.aws {
            Attr::Known(aws) => aws.settings(),
            Attr::Null => Some(AwsSettings::default()),
            Attr::Unknown => None,
        };
        Ok(Context::new(ssh, aws, settings, &evaluation, self.tools.clone()))
    }

    fn resources(&self) -> Vec<Box<dyn DynResource<Context>>> {
        vec![
            tfplugin::resource(MachineResource),
            tfplugin::resource(DeploymentResource),
            tfplugin::resource(KeyPairResource),
            tfplugin::resource(BucketResource),
        ]
    }

    fn data_sources(&self) -> Vec<Box<dyn DynDataSource<Context>>> {
        vec![
            tfplugin::data_source(NetworkDataSource),
            tfplugin::data_source(MachineStatus),
            tfplugin::data_source(Ami),
        ]
    }

    fn functions(&self) -> Vec<Box<dyn DynFunction>> {
        vec![tfplugin::function(ToNix), tfplugin::function(KnownHosts)]
    }

    fn ephemeral_resources(&self) -> Vec<Box<dyn DynEphemeralResource<Context>>> {
        vec![tfplugin::ephemeral_resource(SshKeyPair)]
    }
}

impl SshConfig {
    /// `None` while something that every connection needs is not known.
    fn defaults(&self) -> Option<SshDefaults> {
        let is_known = !self.user.is_unknown()
            && !self.port.is_unknown()
            && !self.private_key_file.is_unknown()
            && !self.bastion.is_unknown()
            && !self.private_keys.is_unknown()
            && !self.elevate_password.is_unknown();
        if !is_known {
            return None;
        }
        let keys = self.private_keys.known().cloned().unwrap_or_default();
        Some(SshDefaults {
            user: self.user.known().cloned().unwrap_or_else(|| "root".to_owned()),
            port: self.port.known().copied(),
            private_keys: keys.into_iter().map(|(name, key)| (name, key.into_known())).collect(),
            private_key_file: self.private_key_file.known().cloned(),
            bastion: self.bastion.known().cloned(),
            host_key_policy: self
                .host_key_policy
                .known()
                .map(|text| host_key_policy(text))
                .unwrap_or_default(),
            connect_timeout: self.connect_timeout.or(CONNECT_TIMEOUT),
            options: texts(&self.options)?,
            elevate: texts(&self.elevate)?,
            elevate_password: self.elevate_password.known().cloned(),
        })
    }
}

/// A setting of Nix that every deployment decides for itself: that a plan builds nothing is a promise.
const BUILDS: &str = "allow-import-from-derivation";

impl NixConfig {
    fn validate(&self) -> Result<(), Diagnostics> {
        let place = || Path::root().attribute("nix").attribute("options");
        let mut errors = Diagnostics::default();
        for (name, value) in self.options.known().into_iter().flatten() {
            if name == BUILDS {
                errors.push(
                    Diagnostic::error(format!("`{BUILDS}` cannot be set here"))
                        .detail(format!(
                            "Found `{BUILDS}` in `nix.options`. Remove it, and set `import_from_derivation \
                             = true` in each `nixos_deployment` whose evaluation may build something."
                        ))
                        .at(place().key(name)),
                );
            }
            if let Some(mistake) =
                nixos_activator::nix::mistake(name, value.known().map_or("", String::as_str))
            {
                errors.push(
                    Diagnostic::error(format!("`{name}` of `nix.options` cannot be given to Nix"))
                        .detail(format!("Nix gets it as a line of `nix.conf`; {mistake}."))
                        .at(place().key(name)),
                );
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// `None` while something that an evaluation may depend on is not known.
    fn settings(&self) -> Option<NixSettings> {
        let options = match &self.options {
            Attr::Unknown => return None,
            options => options.known().cloned().unwrap_or_default(),
        };
        let known = |(name, value): (String, Attr<String>)| Some((name, value.into_known()?));
        Some(NixSettings {
            options: options.into_iter().map(known).collect::<Option<_>>()?,
            nix_path: texts(&self.nix_path)?,
            builders: texts(&self.builders)?,
            max_jobs: self.max_jobs.known().cloned(),
            cores: self.cores.known().copied(),
        })
    }
}

fn ssh_attribute() -> Attribute {
    let policy = validators::one_of(&["strict", "accept_new", "off"]);
    let nested = Nested::new()
        .attribute(
            "user",
            Attribute::string().optional().description("The user who logs in. Default: `root`."),
        )
        .attribute(
            "port",
            Attribute::number().optional().validate(validators::integer_between(1, 65535)).description(
                "Port of the SSH servers. Default: as `ssh_config` says, \
                    else 22.",
            ),
        )
        .attribute(
            "private_keys",
            Attribute::map(Type::String).optional().sensitive().description(
                "Private keys by name, without a passphrase; machines name the one to use. They may come \
                 from an ephemeral resource and never reach state or a disk.",
            ),
        )
        .attribute(
            "private_key_file",
            Attribute::string().optional().description(
                "A private key file on the machine where Terraform runs. \
                    Default: agent and `ssh_config`.",
            ),
        )
        .attribute(
            "bastion",
            Attribute::nested_single(bastion_attributes(Direction::Input)).optional().description(
                "A host to jump over to every machine that names none itself. All machines behind it share \
                 one connection to it.",
            ),
        )
        .attribute(
            "host_key_policy",
            Attribute::string().optional().validate(policy).description(
                "What to do with a host key that is not known: `strict` (refuse, the default), \
                 `accept_new` (accept the first one that is seen, and only that one from then on) or `off` \
                 (never check).",
            ),
        )
        .attribute(
            "connect_timeout",
            Attribute::duration()
                .optional()
                .description("How long one attempt to connect may take. Default: `10s`."),
        )
        .attribute(
            "options",
            strings_attribute(
                "Further lines for `ssh_config`, each as `Keyword=value`. One that cannot change what \
                 every connection has is an error.",
            )
            .validate(effective_options()),
        )
        .attribute("elevate", strings_attribute(ELEVATE))
        .attribute(
            "elevate_password",
            Attribute::string().optional().sensitive().description(
                "What to type where that command asks for a password, and to no other question; it must \
                 have no option such as `-n` that forbids to ask. It may come from an ephemeral resource \
                 and never reaches state, nor the machine's disk or the arguments of a program.",
            ),
        );
    Attribute::nested_single(nested).optional().description("Defaults for every SSH connection.")
}

/// Reads `4GiB` or `1500MiB`.
fn mebibytes(text: &str) -> Option<u64> {
    let (number, factor) = match text.strip_suffix("GiB") {
        Some(number) => (number, 1024),
        None => (text.strip_suffix("MiB")?, 1),
    };
    number.trim().parse::<u64>().ok()?.checked_mul(factor).filter(|size| *size > 0)
}

fn nix_attribute() -> Attribute {
    let evaluation = Nested::new()
        .attribute(
            "workers",
            Attribute::number().optional().validate(validators::integer_between(1, 64)).description(
                "How many evaluations run at once. Default: one a core, as far as `memory` goes.",
            ),
        )
        .attribute(
            "memory",
            Attribute::string()
                .optional()
                .validate(validators::matches(
                    |text| mebibytes(text).is_some(),
                    "a size such as `4GiB` or `1500MiB`",
                ))
                .description(
                    "How much memory evaluations may take together, e.g. `4GiB`. Default: half of what is \
                     free.",
                ),
        )
        .attribute(
            "cache",
            Attribute::string()
                .optional()
                .validate(validators::one_of(&["off", "pure", "read_set"]))
                .description(
                    "What is not evaluated again while nothing has changed: `pure` (locked flakes; the \
                     default), `read_set` (also network files and configurations, and flakes machine by \
                     machine, as long as every file that their evaluation read is the same; Linux on \
                     x86-64; see the guide on evaluation for what that cannot see), or `off`.",
                ),
        );
    let nested = Nested::new()
        .attribute(
            "options",
            Attribute::map(Type::String).optional().sensitive().description(
                "Settings as in `nix.conf`, e.g. `{ substituters = \"https://cache.nixos.org\" }`. They \
                 may hold tokens (`access-tokens`): Nix gets them in its environment (`NIX_CONFIG`, behind \
                 what is in it already), which other users cannot read. A value has no `#`, with which \
                 `nix.conf` begins a comment. Not `allow-import-from-derivation`: `import_from_derivation` \
                 of a deployment decides that.",
            ),
        )
        .attribute("nix_path", strings_attribute("Replaces `NIX_PATH`, e.g. `[\"nixpkgs=/srv/nixpkgs\"]`."))
        .attribute("builders", strings_attribute("Remote builders, each as in `builders` of `nix.conf`."))
        .attribute(
            "max_jobs",
            Attribute::string()
                .optional()
                .description("How many derivations are built at once: a number or `auto`."),
        )
        .attribute(
            "cores",
            Attribute::number()
                .optional()
                .validate(validators::integer_between(0, 1024))
                .description("How many cores a build may use; 0: all."),
        )
        .attribute(
            "evaluation",
            Attribute::nested_single(evaluation).optional().description("Limits for evaluation."),
        );
    Attribute::nested_single(nested)
        .optional()
        .description("How Nix runs on the machine where Terraform runs.")
}

#[cfg(test)]
pub(crate) mod tests {
    use tfplugin::testing::{Action, Harness, model_problems, object};
    use tfplugin::{DataSource, Resource, Value};

    use super::*;

    #[test]
    fn all_schemas_keep_terraforms_rules_and_describe_everything() {
        let tools =
            Tools { pool: Pool::default(), scheduler: Scheduler::default(), progress: Progress::default() };
        let provider = NixosProvider { tools: Arc::new(tools) };
        assert_eq!(tfplugin::problems(&provider), Vec::<String>::new());
    }

    #[test]
    fn models_take_whatever_terraform_may_send() {
        fn of<R: Resource<Context>>(resource: &R) -> Vec<String> {
            named(R::TYPE, &model_problems::<R::Model>(&resource.schema()))
        }
        fn of_source<S: DataSource<Context>>(source: &S) -> Vec<String> {
            named(S::TYPE, &model_problems::<S::Model>(&source.schema()))
        }
        fn named(name: &str, problems: &[String]) -> Vec<String> {
            problems.iter().map(|problem| format!("{name}: {problem}")).collect()
        }
        let problems = [
            of(&MachineResource),
            of(&DeploymentResource),
            of(&KeyPairResource),
            of(&BucketResource),
            of_source(&NetworkDataSource),
            of_source(&MachineStatus),
            of_source(&Ami),
        ];
        assert_eq!(problems.concat(), Vec::<String>::new());
    }

    #[test]
    fn whether_a_plan_builds_is_not_a_setting_of_nix() {
        let with = |name: &str| {
            let value: Attr<String> = Attr::Known("true".to_owned());
            NixConfig {
                options: Attr::Known(BTreeMap::from([(name.to_owned(), value)])),
                ..NixConfig::default()
            }
        };
        let error = with(BUILDS).validate().unwrap_err();
        assert!(error.iter().all(|one| one.detail.contains("import_from_derivation = true")), "{error:?}");
        assert!(with("pure-eval").validate().is_ok() && NixConfig::default().validate().is_ok());
        let error = with("!include").validate().unwrap_err();
        assert!(error.iter().all(|one| one.detail.contains("the name of a setting")), "{error:?}");
    }

    async fn harness() -> Harness {
        configured(&object([])).await
    }

    /// The provider with this provider block.
    pub(crate) async fn configured(block: &Value) -> Harness {
        let tools =
            Tools { pool: Pool::default(), scheduler: Scheduler::default(), progress: Progress::default() };
        let harness = Harness::of(NixosProvider { tools: Arc::new(tools) }).await.unwrap();
        harness.configure(block).await.unwrap();
        harness
    }

    #[tokio::test]
    async fn a_machine_whose_address_is_not_known_yet_is_planned() {
        let ssh = object([("host", Value::Unknown)]);
        let config = object([("name", "web".into()), ("ssh", ssh)]);
        let plan = harness().await.plan("nixos_machine", None, &config).await.unwrap();
        assert_eq!(plan.action, Action::Create);
        assert_eq!(plan.planned.get("name"), Some(&"web".into()));
        assert!(plan.planned.get("target").is_some_and(Value::contains_unknown));
    }

    #[tokio::test]
    async fn a_deployment_of_what_is_not_known_yet_is_planned() {
        let machines = object([("web", Value::Unknown)]);
        let config = object([("network", Value::Unknown), ("machines", machines)]);
        let plan = harness().await.plan("nixos_deployment", None, &config).await.unwrap();
        assert!(plan.planned.get("systems").is_some_and(Value::contains_unknown));
    }

    #[tokio::test]
    async fn mistakes_are_told_with_their_place() {
        let terraform = harness().await;
        let found = async |config: Value| -> String {
            let errors = terraform.validate("nixos_deployment", &config).await.unwrap_err();
            errors
                .iter()
                .map(|one| format!("{} @{}\n", one.summary, one.path.clone().unwrap_or_default()))
                .collect()
        };
        let machines = || object([("web server", Value::Unknown)]);
        let text = found(object([("network", "n.nix".into()), ("machines", machines())])).await;
        assert!(text.contains(r#"The key is not a machine name @machines["web server"]"#), "{text}");
        let text = found(object([("machines", object([]))])).await;
        assert!(text.contains("is missing"), "{text}");
        let text =
            found(object([("flake", ".".into()), ("network", "x".into()), ("machines", object([]))])).await;
        assert!(text.contains("can be set"), "{text}");
    }

    #[tokio::test]
    async fn an_ephemeral_key_pair_is_another_one_each_time() {
        let terraform = harness().await;
        let mut halves = vec![];
        for _ in 0..2 {
            let open = terraform.open("nixos_ssh_key_pair", &object([])).await.unwrap();
            let text = |name: &str| open.value.get(name).and_then(Value::as_str).unwrap().to_owned();
            assert!(text("public_key").starts_with("ssh-ed25519 "));
            halves.push(text("private_key"));
            terraform.close(open).await.unwrap();
        }
        assert_ne!(halves[0], halves[1]);
        let bits = object([("bits", 2048i64.into())]);
        assert!(terraform.open("nixos_ssh_key_pair", &bits).await.is_err(), "only RSA keys have a length");
    }
}
