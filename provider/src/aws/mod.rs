//! AWS: one configuration a process, a client a region, errors a person can act on.
//!
//! Nothing is contacted before it is needed: without an `aws` block and without a resource that lives there, the
//! provider never looks for credentials.

mod block;
mod consistency;
mod error;
mod fleet;
mod tags;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::config::Credentials;
use aws_smithy_http_client::tls;
use nixos_activator::Secret;
use tfplugin::{Attr, Diagnostic, IdentityAttribute, IdentitySchema, Path, Type, Value};
use tokio::sync::OnceCell;

pub(crate) use block::{AwsBlock, aws_attribute};
pub(crate) use consistency::{CONSISTENCY, eventually_found};
pub(crate) use error::AwsError;
pub(crate) use fleet::{Beside, Fleet, Seen};
pub(crate) use tags::{
    IgnoredTags, MACHINE, TagModel, TagRules, Tags, difference, ec2_tags, retag_ec2, tags_all_attribute,
    tags_attribute, to_ec2, whole_set,
};

/// How often a call is tried, the first time included. Terraform starts many at once, and EC2 throttles by the minute.
const ATTEMPTS: u32 = 10;
/// How long one try may take. A peer that accepts and never answers must not hold an apply.
const ATTEMPT: Duration = Duration::from_mins(1);
/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// The provider's `aws` block with its defaults filled in.
#[derive(Clone, Debug, Default)]
pub(crate) struct AwsSettings {
    pub(crate) region: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) keys: Option<StaticKeys>,
    pub(crate) assume_role: Option<AssumeRole>,
    pub(crate) endpoints: Endpoints,
    pub(crate) s3_use_path_style: bool,
    pub(crate) tags: TagRules,
    pub(crate) max_attempts: Option<u32>,
}

/// Credentials that are written down.
#[derive(Clone, Debug)]
pub(crate) struct StaticKeys {
    pub(crate) access_key: String,
    pub(crate) secret_key: Secret,
    pub(crate) token: Option<Secret>,
}

/// A role to take on with the credentials found.
#[derive(Clone, Debug)]
pub(crate) struct AssumeRole {
    pub(crate) role_arn: String,
    pub(crate) session_name: Option<String>,
    pub(crate) external_id: Option<String>,
    pub(crate) policy: Option<String>,
    pub(crate) duration: Option<Duration>,
}

/// Where services are, when not where AWS has them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoints {
    pub(crate) ec2: Option<String>,
    pub(crate) s3: Option<String>,
    pub(crate) sts: Option<String>,
}

/// AWS as it is configured.
#[derive(Debug)]
pub(crate) struct Aws {
    settings: AwsSettings,
    base: OnceCell<SdkConfig>,
    ec2: Mutex<HashMap<String, aws_sdk_ec2::Client>>,
    s3: Mutex<HashMap<String, aws_sdk_s3::Client>>,
    /// Instances and volumes, as the last refresh saw them.
    pub(crate) fleet: Fleet,
}

impl Aws {
    /// Nothing is looked for yet.
    pub(crate) fn new(settings: AwsSettings) -> Self {
        Self {
            settings,
            base: OnceCell::new(),
            ec2: Mutex::default(),
            s3: Mutex::default(),
            fleet: Fleet::default(),
        }
    }

    /// The tags that everything gets.
    pub(crate) fn default_tags(&self) -> &Tags {
        &self.settings.tags.defaults
    }

    /// What holds for all tags.
    pub(crate) fn tag_rules(&self) -> &TagRules {
        &self.settings.tags
    }

    /// The region of a resource that says `configured`.
    ///
    /// # Errors
    ///
    /// A diagnostic at `path` where no region is configured anywhere.
    pub(crate) async fn region(&self, configured: Option<&str>, path: &Path) -> Result<String, Diagnostic> {
        let given = configured.or(self.settings.region.as_deref());
        if let Some(region) = given {
            return Ok(region.to_owned());
        }
        let ambient = self.base().await.region().map(ToString::to_string);
        ambient.ok_or_else(|| {
            Diagnostic::error("No AWS region is configured")
                .detail(
                    "Found none; expected one of: this attribute, `aws.region` of the provider, \
                     AWS_REGION, or `region` of the profile in ~/.aws/config.",
                )
                .at(path.clone())
        })
    }

    /// EC2 in a region.
    pub(crate) async fn ec2(&self, region: &str) -> aws_sdk_ec2::Client {
        let base = self.base().await;
        let mut clients = self.ec2.lock().unwrap_or_else(PoisonError::into_inner);
        clients
            .entry(region.to_owned())
            .or_insert_with(|| {
                let mut config =
                    aws_sdk_ec2::config::Builder::from(base).region(Region::new(region.to_owned()));
                if let Some(url) = &self.settings.endpoints.ec2 {
                    config = config.endpoint_url(url);
                }
                aws_sdk_ec2::Client::from_conf(config.build())
            })
            .clone()
    }

    /// S3 in a region.
    pub(crate) async fn s3(&self, region: &str) -> aws_sdk_s3::Client {
        let base = self.base().await;
        let mut clients = self.s3.lock().unwrap_or_else(PoisonError::into_inner);
        clients
            .entry(region.to_owned())
            .or_insert_with(|| {
                let mut config = aws_sdk_s3::config::Builder::from(base)
                    .region(Region::new(region.to_owned()))
                    .force_path_style(self.settings.s3_use_path_style);
                if let Some(url) = &self.settings.endpoints.s3 {
                    config = config.endpoint_url(url);
                }
                aws_sdk_s3::Client::from_conf(config.build())
            })
            .clone()
    }

    /// What all clients have in common: credentials, HTTP, retries.
    async fn base(&self) -> &SdkConfig {
        self.base.get_or_init(|| self.load()).await
    }

    async fn load(&self) -> SdkConfig {
        let settings = &self.settings;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
            .build_https();
        let retry = RetryConfig::standard()
            .with_max_attempts(settings.max_attempts.unwrap_or(ATTEMPTS))
            .with_max_backoff(Duration::from_secs(20));
        let timeout =
            TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(retry)
            .timeout_config(timeout);
        if let Some(region) = &settings.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &settings.profile {
            loader = loader.profile_name(profile);
        }
        if let Some(keys) = &settings.keys {
            loader = loader.credentials_provider(Credentials::new(
                &keys.access_key,
                keys.secret_key.expose(),
                keys.token.as_ref().map(|token| token.expose().to_owned()),
                None,
                "provider block",
            ));
        }
        let own = loader.load().await;
        let Some(role) = &settings.assume_role else {
            return own;
        };
        let sts = match &settings.endpoints.sts {
            Some(url) => own.to_builder().endpoint_url(url).build(),
            None => own.clone(),
        };
        let mut provider = AssumeRoleProvider::builder(&role.role_arn)
            .session_name(role.session_name.as_deref().unwrap_or("terraform-provider-nixos"))
            .configure(&sts);
        if let Some(id) = &role.external_id {
            provider = provider.external_id(id);
        }
        if let Some(policy) = &role.policy {
            provider = provider.policy(policy);
        }
        if let Some(duration) = role.duration {
            provider = provider.session_length(duration);
        }
        let provider = provider.build().await;
        own.to_builder()
            .credentials_provider(aws_sdk_ec2::config::SharedCredentialsProvider::new(provider))
            .build()
    }
}

/// The provider's `aws` block depends on something that does not exist yet.
pub(crate) fn aws_unknown() -> Diagnostic {
    Diagnostic::error("The provider's `aws` block is not known yet.")
        .detail("It takes a value from something that does not exist before apply, so AWS cannot be asked.")
}

/// The attribute `region`, the same for everything that lives in one.
pub(crate) fn region_attribute() -> tfplugin::Attribute {
    tfplugin::Attribute::string()
        .optional()
        .computed()
        .requires_replace()
        .validate(tfplugin::validators::not_empty())
        .description(
            "The AWS region, e.g. `eu-west-1`. Default: the provider's `aws.region`, else as AWS' own \
             tools find it.",
        )
}

/// The planned region: what is configured, else what the provider and its surroundings say.
pub(crate) async fn planned_region(
    aws: Option<&Aws>,
    configured: &Attr<String>,
    path: &Path,
) -> Result<Attr<String>, Diagnostic> {
    match (configured, aws) {
        (Attr::Null, Some(aws)) => aws.region(None, path).await.map(Attr::Known),
        (Attr::Null, None) => Ok(Attr::Unknown),
        (configured, _) => Ok(configured.clone()),
    }
}

/// What to say where a resource is to move to another region although its configuration names none: the surroundings
/// of this run differ from those of the last one.
pub(crate) fn moves_with_surroundings(
    what: &str,
    prior: &Attr<String>,
    configured: &Attr<String>,
    planned: &Attr<String>,
    path: Path,
) -> Option<Diagnostic> {
    let (Attr::Known(from), Attr::Null, Attr::Known(to)) = (prior, configured, planned) else { return None };
    (from != to).then(|| {
        Diagnostic::warning(format!("{what} would be made anew in another region"))
            .detail(format!(
                "It is in {from}, and its configuration names no region. The region of the provider's \
                 `aws` block, of AWS_REGION or of the profile is {to} by now. To leave it where it is, set \
                 `region = \"{from}\"`, or run with that region."
            ))
            .at(path)
    })
}

/// Splits `REGION:ID` of an import; the region may be left out.
pub(crate) fn import_id(id: &str) -> (Option<&str>, &str) {
    match id.split_once(':') {
        Some((region, rest)) if is_region(region) => (Some(region), rest),
        _ => (None, id),
    }
}

/// What tells a named thing of a region from all others.
pub(crate) fn regional_identity(name: &str, description: &str) -> IdentitySchema {
    let region = IdentityAttribute::new(Type::String).optional_for_import();
    IdentitySchema::new(0)
        .attribute(name, IdentityAttribute::new(Type::String).description(description))
        .attribute("region", region.description("Its region. Default: the provider's."))
}

/// The id by which what has this identity is imported.
pub(crate) fn regional_id(identity: &BTreeMap<String, Value>, name: &str) -> String {
    let text = |name: &str| identity.get(name).and_then(Value::as_str);
    match (text("region"), text(name).unwrap_or_default()) {
        (Some(region), name) => format!("{region}:{name}"),
        (None, name) => name.to_owned(),
    }
}

/// Whether a text looks like `eu-west-1` or `us-gov-east-1`.
fn is_region(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let letters = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase());
    match parts.split_last() {
        Some((number, words)) => {
            words.len() >= 2
                && words.iter().all(letters)
                && number.chars().all(|c| c.is_ascii_digit())
                && !number.is_empty()
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_region_of_the_surroundings_is_warned_of() {
        let known = |text: &str| Attr::Known(text.to_owned());
        let warned = |configured, planned| {
            let prior = known("eu-west-1");
            moves_with_surroundings("Bucket \"b\"", &prior, &configured, &planned, Path::root()).is_some()
        };
        assert!(warned(Attr::Null, known("us-east-1")));
        assert!(!warned(Attr::Null, known("eu-west-1")));
        assert!(!warned(known("us-east-1"), known("us-east-1")), "the user has said so");
        assert!(!warned(Attr::Null, Attr::Unknown));
    }

    #[test]
    fn an_import_may_name_the_region() {
        assert_eq!(import_id("eu-west-1:i-0abc"), (Some("eu-west-1"), "i-0abc"));
        assert_eq!(import_id("us-gov-east-1:admin"), (Some("us-gov-east-1"), "admin"));
        assert_eq!(import_id("i-0abc"), (None, "i-0abc"));
        assert_eq!(import_id("team:admin"), (None, "team:admin"));
    }
}
