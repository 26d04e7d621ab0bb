//! What AWS answered instead of doing it.

use std::error::Error;
use std::fmt;

use aws_sdk_ec2::config::http::HttpResponse;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId as _;
use tfplugin::{Diagnostic, Path};

/// A call that failed, after all retries.
#[derive(Clone, Debug)]
pub(crate) struct AwsError {
    /// The call as IAM names it, e.g. `ec2:RunInstances`.
    action: &'static str,
    /// What AWS calls the error, e.g. `InvalidKeyPair.Duplicate`; `None` where there was no answer, or none with a
    /// body.
    code: Option<String>,
    message: String,
    request_id: Option<String>,
    status: Option<u16>,
    bucket_region: Option<String>,
    open: bool,
}

/// In which region a bucket is: S3 says it also to those who ask in another region, or must not see the bucket.
const BUCKET_REGION: &str = "x-amz-bucket-region";

/// What EC2 says with the status of a failure of its own when it has looked at the call and done nothing. Then an
/// earlier try with the same client token has had no effect either; one that was throttled was not even looked at, so
/// that it says nothing.
const REFUSALS: &[&str] = &[
    "InsufficientCapacity",
    "InsufficientHostCapacity",
    "InsufficientInstanceCapacity",
    "InsufficientVolumeCapacity",
];

impl AwsError {
    /// For `map_err`: the error of a call that IAM names `action`.
    pub(crate) fn of<E>(action: &'static str) -> impl Fn(SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        move |error| {
            let message = error.message().map_or_else(|| chain(&error), str::to_owned);
            Self {
                action,
                code: error.code().map(str::to_owned),
                message,
                request_id: error.request_id().map(str::to_owned),
                status: error.raw_response().map(|response| response.status().as_u16()),
                bucket_region: error
                    .raw_response()
                    .and_then(|response| response.headers().get(BUCKET_REGION).map(str::to_owned)),
                open: may_have_happened(&error),
            }
        }
    }

    /// An answer that is not the one the call's documentation promises.
    pub(crate) fn unexpected(action: &'static str, message: &str) -> Self {
        Self {
            action,
            code: None,
            message: message.to_owned(),
            request_id: None,
            status: None,
            bucket_region: None,
            open: false,
        }
    }

    /// Whether AWS calls the error one of these.
    pub(crate) fn is(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    /// The HTTP status, for answers without a body.
    pub(crate) fn status(&self) -> Option<u16> {
        self.status
    }

    /// The region of the bucket that was asked about, where S3 says it.
    pub(crate) fn bucket_region(&self) -> Option<&str> {
        self.bucket_region.as_deref()
    }

    /// Whether the call may have done what it was to do all the same: there was no answer, or one that does not say.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the credentials are good but must not do this.
    pub(crate) fn is_denied(&self) -> bool {
        self.is(&["UnauthorizedOperation", "AccessDenied", "AccessDeniedException"])
            || self.status == Some(403)
    }

    /// For the user: what was to be done, what AWS said, what to do.
    pub(crate) fn diagnostic(&self, what: &str, path: Path) -> Diagnostic {
        Diagnostic::error(what.to_owned()).detail(format!("{self}\n\n{}", self.advice())).at(path)
    }

    fn advice(&self) -> String {
        let credentials = [
            "AuthFailure",
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ];
        if self.is(&credentials) {
            "AWS does not accept the credentials. Check that they are complete, not expired, and for this \
             account: `aws` block of the provider, AWS_PROFILE, AWS_ACCESS_KEY_ID, `aws sso login`."
                .to_owned()
        } else if self.is_denied() {
            format!(
                "The credentials are valid but lack a permission: allow `{}` in a policy of the user or \
                 role (a minimal policy is in the guide on AWS), or a policy of the resource or \
                 organisation denies it.",
                self.action
            )
        } else if self.is(&["RequestLimitExceeded", "Throttling", "ThrottlingException", "SlowDown"]) {
            "AWS throttles the account. Run again later, lower `terraform -parallelism`, or raise \
             `aws.max_attempts`."
                .to_owned()
        } else if self.code.is_none() && self.status.is_none() && self.message.contains("redentials") {
            "No usable credentials were found: set them in the `aws` block of the provider, or as for AWS' \
             own tools (AWS_PROFILE, AWS_ACCESS_KEY_ID, `aws sso login`, an instance role)."
                .to_owned()
        } else if self.code.is_none() && self.status.is_none() {
            "There was no answer. Check the network, the region's name, and `aws.endpoints` of the provider."
                .to_owned()
        } else {
            "The message above is from AWS.".to_owned()
        }
    }
}

fn may_have_happened<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => true,
        // Also missing credentials are a failure to dispatch, but of no kind.
        SdkError::DispatchFailure(failure) => {
            failure.is_io() || failure.is_timeout() || failure.as_other().is_some()
        }
        SdkError::ServiceError(answer) => {
            let refused = error.code().is_some_and(|code| REFUSALS.contains(&code));
            answer.raw().status().as_u16() >= 500 && !refused
        }
        _ => false,
    }
}

/// What went wrong, each cause behind the other. Never the request or the answer themselves: they may hold secrets.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.action)?;
        match (&self.code, self.status) {
            (Some(code), _) => write!(f, "{code}: ")?,
            (None, Some(status)) => write!(f, "HTTP status {status}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.message)?;
        match &self.request_id {
            Some(id) => write!(f, " (request id {id})"),
            None => Ok(()),
        }
    }
}

impl Error for AwsError {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    fn actions(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).expect("the sources are there") {
            let path = entry.expect("the sources are there").path();
            if path.is_dir() {
                actions(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("sources are text");
            for service in ["ec2:", "s3:"] {
                let quoted = format!("\"{service}");
                let named = text.split(&quoted).skip(1);
                let named = named.filter_map(|rest| rest.split('"').next());
                let named = named.filter(|name| !name.is_empty() && name.chars().all(char::is_alphabetic));
                found.extend(named.map(|name| format!("\"{service}{name}\"")));
            }
        }
    }

    #[test]
    fn the_guides_policy_allows_every_call() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let guide = std::fs::read_to_string(here.join("../docs/guides/aws.md")).expect("the guide is there");
        let mut found = BTreeSet::new();
        actions(&here.join("src"), &mut found);
        assert!(found.len() > 40, "{found:?}");
        // Examples in tests of bucket policies; the provider reads and writes no objects.
        let objects = ["\"s3:GetObject\"", "\"s3:PutObject\""];
        let called = found.iter().map(String::as_str).filter(|action| !objects.contains(action));
        let missing: Vec<_> = called.filter(|action| !guide.contains(action)).collect();
        assert!(
            missing.is_empty(),
            "calls that the policy in docs/guides/aws.md does not allow: {missing:?}"
        );
    }
}
