//! The schema of a bucket, and what is checked before anything else.

use tfplugin::{Attr, Attribute, Diagnostic, Diagnostics, Nested, Path, Schema, Type, validators};

use super::model::Model;
use super::parts::{Lifecycle, Part as _, Policy, is_date};
use super::policy::is_policy;
use crate::aws::{region_attribute, regional_identity, tags_all_attribute, tags_attribute};
use crate::settings::{computed, strings_attribute};

pub(super) fn schema() -> Schema {
    let flag =
        |description: &str| Attribute::bool().optional().computed().default(false).description(description);
    let choice = |values: &[&str]| Attribute::string().optional().validate(validators::one_of(values));
    Schema::new(0)
        .description(
            "An S3 bucket with its configuration. A part that is not set (`versioning`, `policy`, …) is \
             neither read nor written, so that another resource may look after it; a part that was set and \
             is removed goes back to what a new bucket has.",
        )
        .attribute(
            "bucket",
            Attribute::string()
                .optional()
                .computed()
                .use_state_for_unknown()
                .requires_replace()
                .validate(validators::matches(
                    is_bucket_name,
                    "3 to 63 lower case letters, digits, `.` and `-`, as S3 \
                    allows them",
                ))
                .description(
                    "Its name, unique in all of AWS. Default: `bucket_prefix` and \
                                                something unique.",
                ),
        )
        .attribute(
            "bucket_prefix",
            Attribute::string()
                .optional()
                .requires_replace()
                .validate(validators::matches(
                    |text| text.len() <= 37 && is_bucket_name(&format!("{text}0000")),
                    "at most 37 characters a bucket's name may begin with",
                ))
                .description(
                    "What a name made here begins with. Default: `terraform-`. \
                    Not together with `bucket`.",
                ),
        )
        .attribute("region", region_attribute().use_state_for_unknown())
        .attribute(
            "adopt_existing",
            flag(
                "Take over a bucket that this account has already, instead of \
                                           failing. Default: false.",
            ),
        )
        .attribute(
            "force_destroy",
            flag(
                "Destroying removes all objects, versions and unfinished uploads with the bucket. Without \
                 it a bucket that is not empty stays. It has to be applied before it counts. Default: \
                 false.",
            ),
        )
        .attribute(
            "persist_on_destroy",
            flag(
                "Destroying the resource leaves the bucket as it is. It has to be applied before it \
                 counts. Not together with `force_destroy`. Default: false.",
            ),
        )
        .attribute(
            "versioning",
            choice(&["Enabled", "Suspended"]).description(
                "`Enabled` or `Suspended`. What was enabled once can only be suspended, which is what \
                 removing this does.",
            ),
        )
        .attribute(
            "policy",
            Attribute::string()
                .optional()
                .validate(validators::matches(is_policy, "a policy document in JSON, e.g. from `jsonencode`"))
                .same_if(Policy::same)
                .description(
                    "The bucket policy in JSON. Order, white space and spellings that mean the same do not \
                     matter.",
                ),
        )
        .attribute(
            "object_ownership",
            choice(&["BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"]).description(
                "Who owns what others upload: `BucketOwnerEnforced` (no ACLs; AWS' default), \
                 `BucketOwnerPreferred` or `ObjectWriter`.",
            ),
        )
        .attribute("public_access_block", public_access_block())
        .attribute("server_side_encryption", encryption())
        .attribute("website", website())
        .attribute("cors_rules", cors_rules())
        .attribute("lifecycle_rules", lifecycle_rules().same_if(Lifecycle::same))
        .attribute("tags", tags_attribute())
        .attribute("tags_all", tags_all_attribute())
        .identity(regional_identity("bucket", "The name of the bucket."))
        .attribute("id", computed("The same as `bucket`.").use_state_for_unknown())
        .attribute("arn", computed("`arn:aws:s3:::NAME`.").use_state_for_unknown())
        .attribute("bucket_domain_name", computed("`NAME.s3.amazonaws.com`.").use_state_for_unknown())
        .attribute(
            "bucket_regional_domain_name",
            computed("`NAME.s3.REGION.amazonaws.com`.").use_state_for_unknown(),
        )
        .attribute("website_endpoint", computed("Host name of the web site; null without `website`."))
        .attribute(
            "website_domain",
            computed(
                "The part of `website_endpoint` behind the name; null \
                                               without `website`.",
            ),
        )
        .at_most_one_of(&["bucket", "bucket_prefix"])
}

fn public_access_block() -> Attribute {
    let flag =
        |description: &str| Attribute::bool().optional().computed().default(true).description(description);
    let nested = Nested::new()
        .attribute("block_public_acls", flag("Refuse ACLs that make something public. Default: true."))
        .attribute("block_public_policy", flag("Refuse policies that make something public. Default: true."))
        .attribute(
            "ignore_public_acls",
            flag("Act as if ACLs that make something public were not there. Default: true."),
        )
        .attribute(
            "restrict_public_buckets",
            flag("Only AWS and the account get in where a policy is public. Default: true."),
        );
    Attribute::nested_single(nested).optional().description(
        "What may be public. AWS blocks everything for new buckets; a public web site needs exceptions.",
    )
}

fn encryption() -> Attribute {
    let algorithms = validators::one_of(&["AES256", "aws:kms", "aws:kms:dsse"]);
    let nested = Nested::new()
        .attribute(
            "sse_algorithm",
            Attribute::string().required().validate(algorithms).description(
                "`AES256` (keys of S3), `aws:kms` (keys of KMS) or `aws:kms:dsse` (KMS, two layers).",
            ),
        )
        .attribute(
            "kms_master_key_id",
            Attribute::string()
                .optional()
                .description("KMS key: id or ARN. Default: the account's key for S3."),
        )
        .attribute(
            "bucket_key_enabled",
            Attribute::bool().optional().computed().default(false).description(
                "One data key a bucket instead of one an object: fewer calls of KMS. Default: false.",
            ),
        );
    Attribute::nested_single(nested)
        .optional()
        .description("How objects are encrypted that say nothing about it. AWS' default is `AES256`.")
}

fn website() -> Attribute {
    let redirect = Nested::new()
        .attribute("host_name", Attribute::string().required().description("The host name of that site."))
        .attribute(
            "protocol",
            Attribute::string()
                .optional()
                .validate(validators::one_of(&["http", "https"]))
                .description("`http` or `https`. Default: that of the request."),
        );
    let nested = Nested::new()
        .attribute(
            "index_document",
            Attribute::string().optional().validate(validators::not_empty()).description(
                "The object that a directory shows, e.g. `index.html`. Exactly one of this and \
                 `redirect_all_requests_to` is set.",
            ),
        )
        .attribute(
            "error_document",
            Attribute::string()
                .optional()
                .validate(validators::not_empty())
                .description("The object shown for an error, beside `index_document`."),
        )
        .attribute(
            "redirect_all_requests_to",
            Attribute::nested_single(redirect)
                .optional()
                .description("Send everybody to another site, instead of `index_document`."),
        );
    Attribute::nested_single(nested).optional().description("Serve the bucket as a web site.")
}

fn cors_rules() -> Attribute {
    let list = |description: &str| Attribute::list(Type::String).required().description(description);
    let rule = Nested::new()
        .attribute("id", Attribute::string().optional().description("A name for it."))
        .attribute("allowed_headers", strings_attribute("Request headers that are allowed."))
        .attribute(
            "allowed_methods",
            list("Methods that are allowed: `GET`, `PUT`, `POST`, `DELETE`, `HEAD`."),
        )
        .attribute("allowed_origins", list("Origins that may ask, e.g. `https://example.org` or `*`."))
        .attribute("expose_headers", strings_attribute("Response headers that pages may read."))
        .attribute(
            "max_age_seconds",
            Attribute::number()
                .optional()
                .validate(validators::integer_between(0, i64::from(i32::MAX)))
                .description("How long browsers keep the answer, in seconds."),
        );
    Attribute::nested_list(rule)
        .optional()
        .description("Which pages of other sites may use the bucket (CORS).")
}

fn lifecycle_rules() -> Attribute {
    let number = |description: &str| {
        Attribute::number()
            .optional()
            .validate(validators::integer_between(0, i64::from(i32::MAX)))
            .description(description)
    };
    let size = |description: &str| {
        Attribute::number()
            .optional()
            .validate(validators::integer_between(0, 5 << 40))
            .description(description)
    };
    let date = |description: &str| {
        Attribute::string()
            .optional()
            .validate(validators::matches(
                |text| is_date(text) && text.ends_with("T00:00:00Z"),
                "midnight UTC as `2030-01-01T00:00:00Z`",
            ))
            .description(description)
    };
    let class = || {
        Attribute::string().required().description(
            "The storage class they move to, e.g. `STANDARD_IA`, `GLACIER_IR` or `DEEP_ARCHIVE`.",
        )
    };
    let filter = Nested::new()
        .attribute(
            "prefix",
            Attribute::string()
                .optional()
                .validate(validators::not_empty())
                .description("Objects whose keys begin with this."),
        )
        .attribute(
            "tags",
            Attribute::map(Type::String).optional().description("Objects with all of these tags."),
        )
        .attribute("object_size_greater_than", size("Objects larger than this, in bytes."))
        .attribute("object_size_less_than", size("Objects smaller than this, in bytes."));
    let expiration = Nested::new()
        .attribute("days", number("So many days after an object was created. Either this or `date`."))
        .attribute(
            "date",
            date("At this time: midnight UTC, e.g. `2030-01-01T00:00:00Z`. Either this or `days`."),
        )
        .attribute(
            "expired_object_delete_marker",
            Attribute::bool().optional().description(
                "Whether delete markers go that hide no version any more. Not together with `days` or \
                 `date`.",
            ),
        );
    let transition = Nested::new()
        .attribute("days", number("So many days after an object was created. Either this or `date`."))
        .attribute(
            "date",
            date("At this time: midnight UTC, e.g. `2030-01-01T00:00:00Z`. Either this or `days`."),
        )
        .attribute("storage_class", class());
    let noncurrent = || {
        Nested::new()
            .attribute(
                "noncurrent_days",
                number("So many days after a version stopped being the current one."),
            )
            .attribute(
                "newer_noncurrent_versions",
                number(
                    "How many of the newest old versions stay as they are, whatever their age: 1 to 100. \
                     Default: none.",
                ),
            )
    };
    let rule = Nested::new()
        .attribute(
            "id",
            Attribute::string()
                .required()
                .validate(validators::matches(|text| (1..=255).contains(&text.len()), "1 to 255 characters"))
                .description("A name for it."),
        )
        .attribute(
            "enabled",
            Attribute::bool()
                .optional()
                .computed()
                .default(true)
                .description("Whether it is in force. Default: true."),
        )
        .attribute(
            "filter",
            Attribute::nested_single(filter)
                .optional()
                .description("Which objects the rule is for: those that meet all of this. Default: all."),
        )
        .attribute(
            "expiration",
            Attribute::nested_single(expiration).optional().description("When objects are removed."),
        )
        .attribute(
            "transitions",
            Attribute::nested_list(transition)
                .optional()
                .description("When objects move to another storage class."),
        )
        .attribute(
            "noncurrent_version_expiration",
            Attribute::nested_single(noncurrent())
                .optional()
                .description("When versions are removed that are not the current one any more."),
        )
        .attribute(
            "noncurrent_version_transitions",
            Attribute::nested_list(noncurrent().attribute("storage_class", class())).optional().description(
                "When versions move to another storage class that are not the current one any more.",
            ),
        )
        .attribute(
            "abort_incomplete_multipart_upload_days",
            number("Days after which an unfinished upload is removed."),
        );
    Attribute::nested_list(rule)
        .optional()
        .description("When objects move to cheaper storage and when they go.")
}

/// Checks that the schema cannot express.
pub(super) fn validate(config: &Model) -> Result<(), Diagnostics> {
    let mut problems = Diagnostics::default();
    let mut say = |name: &str, summary: &str, detail: &str| {
        problems.push(Diagnostic::error(summary).detail(detail).at(Path::root().attribute(name)));
    };
    if config.force_destroy == Attr::Known(true) && config.persist_on_destroy == Attr::Known(true) {
        say(
            "persist_on_destroy",
            "Destroying cannot both keep and empty the bucket",
            "Found `force_destroy` and `persist_on_destroy`; expected at most one of them to be true.",
        );
    }
    if config.website.known().is_some_and(|website| !website.is_complete()) {
        say(
            "website",
            "The web site serves nothing, or two things",
            "Expected either `index_document` (and perhaps `error_document`), or \
             `redirect_all_requests_to` alone.",
        );
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Whether S3 takes this as the name of a bucket. Source: "General purpose bucket naming rules" of the S3 user guide.
fn is_bucket_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    (3..=63).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-'))
        && edge(name.chars().next())
        && edge(name.chars().last())
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
        && !["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|prefix| name.starts_with(prefix))
        && !["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"]
            .iter()
            .any(|suffix| name.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_s3_takes() {
        for good in ["abc", "my.bucket-1", "0a0", &"a".repeat(63)] {
            assert!(is_bucket_name(good), "{good}");
        }
        for bad in [
            "ab",
            "Abc",
            "a_b",
            "-abc",
            "abc-",
            "a..b",
            "192.168.5.4",
            "xn--abc",
            "abc-s3alias",
            &"a".repeat(64),
            "aßc",
        ] {
            assert!(!is_bucket_name(bad), "{bad}");
        }
    }
}
