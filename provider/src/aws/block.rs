//! The provider's `aws` block.

use std::collections::BTreeMap;

use nixos_activator::Secret;
use serde::Deserialize;
use tfplugin::{Attr, Attribute, Diagnostic, Diagnostics, DurationText, Nested, Path, Type, validators};

use super::{AssumeRole, AwsSettings, Endpoints, IgnoredTags, StaticKeys, TagRules};
use crate::settings::{List, texts};

/// The block as it is configured.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct AwsBlock {
    region: Attr<String>,
    profile: Attr<String>,
    access_key: Attr<Secret>,
    secret_key: Attr<Secret>,
    token: Attr<Secret>,
    assume_role: Attr<AssumeRoleBlock>,
    endpoints: Attr<EndpointsBlock>,
    s3_use_path_style: Attr<bool>,
    default_tags: Attr<BTreeMap<String, Attr<String>>>,
    ignore_tags: Attr<IgnoreTagsBlock>,
    max_attempts: Attr<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct AssumeRoleBlock {
    role_arn: Attr<String>,
    session_name: Attr<String>,
    external_id: Attr<String>,
    policy: Attr<String>,
    duration: Attr<DurationText>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct IgnoreTagsBlock {
    keys: List<String>,
    key_prefixes: List<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct EndpointsBlock {
    ec2: Attr<String>,
    s3: Attr<String>,
    sts: Attr<String>,
}

/// The schema of the block.
pub(crate) fn aws_attribute() -> Attribute {
    let text = |description: &str| {
        Attribute::string().optional().validate(validators::not_empty()).description(description)
    };
    let url = |service: &str| {
        Attribute::string()
            .optional()
            .validate(validators::matches(is_url, "a URL such as `https://ec2.example.com`"))
            .description(format!("URL of {service}."))
    };
    let role = Nested::new()
        .attribute(
            "role_arn",
            Attribute::string()
                .required()
                .validate(validators::matches(
                    |text| text.starts_with("arn:"),
                    "an ARN: `arn:aws:iam::ACCOUNT:role/NAME`",
                ))
                .description("ARN of the role."),
        )
        .attribute(
            "session_name",
            text("How the session is called in CloudTrail. Default: `terraform-provider-nixos`."),
        )
        .attribute("external_id", text("What the role's trust policy asks for."))
        .attribute("policy", text("A policy in JSON that restricts the role further."))
        .attribute(
            "duration",
            Attribute::duration()
                .optional()
                .description("How long credentials live before they are renewed, e.g. `1h`. Default: `1h`."),
        );
    let endpoints = Nested::new()
        .attribute("ec2", url("EC2"))
        .attribute("s3", url("S3, or of a server that speaks its protocol"))
        .attribute("sts", url("STS"));
    let keys = |description: &str| Attribute::set(Type::String).optional().description(description);
    let ignored = Nested::new()
        .attribute("keys", keys("Keys of such tags."))
        .attribute("key_prefixes", keys("What the keys of such tags begin with."));
    let nested = Nested::new()
        .attribute("region", text("The region of everything that names none, e.g. `eu-west-1`."))
        .attribute("profile", text("The profile in `~/.aws/config` to use, SSO profiles included."))
        .attribute(
            "access_key",
            Attribute::string().optional().sensitive().description(
                "Access key id, together with `secret_key`. Better leave \
                    both to the environment.",
            ),
        )
        .attribute("secret_key", Attribute::string().optional().sensitive().description("Secret access key."))
        .attribute(
            "token",
            Attribute::string()
                .optional()
                .sensitive()
                .description("Session token, where the keys are temporary ones."),
        )
        .attribute(
            "assume_role",
            Attribute::nested_single(role)
                .optional()
                .description("A role to take on with the credentials found."),
        )
        .attribute(
            "endpoints",
            Attribute::nested_single(endpoints)
                .optional()
                .description("Where services are, when not where AWS has them."),
        )
        .attribute(
            "s3_use_path_style",
            Attribute::bool().optional().description(
                "Address buckets as `https://HOST/BUCKET` instead of `https://BUCKET.HOST`: what most \
                 servers other than AWS want.",
            ),
        )
        .attribute(
            "default_tags",
            Attribute::map(Type::String)
                .optional()
                .description("Tags for everything made in AWS; tags of a resource win."),
        )
        .attribute(
            "ignore_tags",
            Attribute::nested_single(ignored).optional().description(
                "Tags that other tools set on what is made here, such as those of a backup or of cost \
                 allocation: they are neither shown nor removed. What a resource or `default_tags` sets is \
                 managed all the same.",
            ),
        )
        .attribute(
            "max_attempts",
            Attribute::number().optional().validate(validators::integer_between(1, 100)).description(
                "How often a call is tried when AWS throttles or fails. \
                    Default: 10.",
            ),
        );
    Attribute::nested_single(nested).optional().description(
        "How to reach AWS. Default: as AWS' own tools do: environment, shared configuration and SSO, web \
         identity, container and instance roles.",
    )
}

impl AwsBlock {
    /// What the schema cannot say.
    pub(crate) fn validate(&self) -> Result<(), Diagnostics> {
        let aws = Path::root().attribute("aws");
        let one_key = match (&self.access_key, &self.secret_key) {
            (Attr::Null, Attr::Known(_)) => Some(("secret_key", "access_key")),
            (Attr::Known(_), Attr::Null) => Some(("access_key", "secret_key")),
            (Attr::Null, Attr::Null) if self.token.is_known() => Some(("token", "access_key")),
            _ => None,
        };
        if let Some((found, missing)) = one_key {
            return Err(Diagnostic::error("Half a set of credentials")
                .detail(format!(
                    "Found `{found}` without `{missing}`; expected both, or none to use the environment's."
                ))
                .at(aws.attribute(found))
                .into());
        }
        Ok(())
    }

    /// `None` while something is not known.
    pub(crate) fn settings(&self) -> Option<AwsSettings> {
        self.known_settings().ok()
    }

    fn known_settings(&self) -> Result<AwsSettings, NotKnown> {
        let keys = match (known_or_null(&self.access_key)?, known_or_null(&self.secret_key)?) {
            (Some(access), Some(secret)) => Some(StaticKeys {
                access_key: access.expose().to_owned(),
                secret_key: secret,
                token: known_or_null(&self.token)?,
            }),
            _ => None,
        };
        let assume_role = match known_or_null(&self.assume_role)? {
            Some(role) => Some(AssumeRole {
                role_arn: known_or_null(&role.role_arn)?.unwrap_or_default(),
                session_name: known_or_null(&role.session_name)?,
                external_id: known_or_null(&role.external_id)?,
                policy: known_or_null(&role.policy)?,
                duration: known_or_null(&role.duration)?.map(|duration| duration.get()),
            }),
            None => None,
        };
        let endpoints = match known_or_null(&self.endpoints)? {
            Some(urls) => Endpoints {
                ec2: known_or_null(&urls.ec2)?,
                s3: known_or_null(&urls.s3)?,
                sts: known_or_null(&urls.sts)?,
            },
            None => Endpoints::default(),
        };
        let default_tags = known_or_null(&self.default_tags)?.unwrap_or_default();
        let default_tags =
            default_tags.into_iter().map(|(key, value)| Ok((key, value.into_known().ok_or(NotKnown)?)));
        let ignored = known_or_null(&self.ignore_tags)?.unwrap_or_default();
        let ignored = IgnoredTags {
            keys: texts(&ignored.keys).ok_or(NotKnown)?,
            key_prefixes: texts(&ignored.key_prefixes).ok_or(NotKnown)?,
        };
        Ok(AwsSettings {
            region: known_or_null(&self.region)?,
            profile: known_or_null(&self.profile)?,
            keys,
            assume_role,
            endpoints,
            s3_use_path_style: known_or_null(&self.s3_use_path_style)?.unwrap_or(false),
            tags: TagRules { defaults: default_tags.collect::<Result<_, NotKnown>>()?, ignored },
            max_attempts: known_or_null(&self.max_attempts)?,
        })
    }
}

/// Something will be known only after apply.
struct NotKnown;

/// The value or none.
fn known_or_null<T: Clone>(value: &Attr<T>) -> Result<Option<T>, NotKnown> {
    match value {
        Attr::Known(value) => Ok(Some(value.clone())),
        Attr::Null => Ok(None),
        Attr::Unknown => Err(NotKnown),
    }
}

fn is_url(text: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}
