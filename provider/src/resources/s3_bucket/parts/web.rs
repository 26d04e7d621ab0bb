//! A bucket on the web: as a site, and for pages of other sites.

use aws_sdk_s3::types as s3;
use serde::{Deserialize, Serialize};
use tfplugin::Attr;

use super::{Bucket, Part, built, null_if, or_none, strings, text, vector};
use crate::aws::AwsError;
use crate::settings::List;

/// The bucket as a web site.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Website {
    index_document: Attr<String>,
    error_document: Attr<String>,
    redirect_all_requests_to: Attr<Redirect>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Redirect {
    host_name: Attr<String>,
    protocol: Attr<String>,
}

impl Website {
    /// Whether it says what to serve, and only one thing.
    pub(crate) fn is_complete(&self) -> bool {
        match (&self.index_document, &self.redirect_all_requests_to) {
            (Attr::Null, Attr::Null) | (Attr::Known(_), Attr::Known(_)) => false,
            (Attr::Null, Attr::Known(_)) => !self.error_document.is_known(),
            _ => true,
        }
    }
}

impl Part for Website {
    const ATTRIBUTE: &'static str = "website";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let call = bucket.client.get_bucket_website().bucket(&bucket.name);
        let found = call.send().await.map_err(AwsError::of("s3:GetBucketWebsite"));
        let Some(found) = or_none(found, "NoSuchWebsiteConfiguration")? else { return Ok(None) };
        Ok(Some(Self {
            index_document: text(found.index_document().map(s3::IndexDocument::suffix)),
            error_document: text(found.error_document().map(s3::ErrorDocument::key)),
            redirect_all_requests_to: Attr::from(found.redirect_all_requests_to().map(|redirect| Redirect {
                host_name: text(Some(redirect.host_name())),
                protocol: text(redirect.protocol().map(s3::Protocol::as_str)),
            })),
        }))
    }

    async fn write(&self, bucket: &Bucket) -> Result<(), AwsError> {
        const ACTION: &str = "s3:PutBucketWebsite";
        let mut configuration = s3::WebsiteConfiguration::builder();
        // S3 takes only whole configurations. Routing rules, which this resource does not manage, stay as they are.
        let call = bucket.client.get_bucket_website().bucket(&bucket.name);
        let there = call.send().await.map_err(AwsError::of("s3:GetBucketWebsite"));
        if let Some(there) = or_none(there, "NoSuchWebsiteConfiguration")?
            && self.redirect_all_requests_to.is_null()
        {
            let rules = there.routing_rules().to_vec();
            configuration = configuration.set_routing_rules(Some(rules).filter(|rules| !rules.is_empty()));
        }
        if let Attr::Known(suffix) = &self.index_document {
            let document = s3::IndexDocument::builder().suffix(suffix).build();
            configuration = configuration.index_document(built(ACTION)(document)?);
        }
        if let Attr::Known(key) = &self.error_document {
            let document = s3::ErrorDocument::builder().key(key).build();
            configuration = configuration.error_document(built(ACTION)(document)?);
        }
        if let Attr::Known(redirect) = &self.redirect_all_requests_to {
            let target = s3::RedirectAllRequestsTo::builder()
                .host_name(redirect.host_name.known().map_or("", String::as_str))
                .set_protocol(redirect.protocol.known().map(|protocol| protocol.as_str().into()))
                .build();
            configuration = configuration.redirect_all_requests_to(built(ACTION)(target)?);
        }
        let call = bucket.client.put_bucket_website().bucket(&bucket.name);
        let sent = call.website_configuration(configuration.build()).send().await;
        sent.map(drop).map_err(AwsError::of(ACTION))
    }

    async fn remove(bucket: &Bucket) -> Result<(), AwsError> {
        let call = bucket.client.delete_bucket_website().bucket(&bucket.name);
        call.send().await.map(drop).map_err(AwsError::of("s3:DeleteBucketWebsite"))
    }
}

/// Which pages of other sites may read from the bucket.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Cors(Vec<Attr<CorsRule>>);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct CorsRule {
    id: Attr<String>,
    allowed_headers: List<String>,
    allowed_methods: List<String>,
    allowed_origins: List<String>,
    expose_headers: List<String>,
    max_age_seconds: Attr<i32>,
}

impl Part for Cors {
    const ATTRIBUTE: &'static str = "cors_rules";

    async fn read(bucket: &Bucket) -> Result<Option<Self>, AwsError> {
        let call = bucket.client.get_bucket_cors().bucket(&bucket.name);
        let found = call.send().await.map_err(AwsError::of("s3:GetBucketCORS"));
        let Some(found) = or_none(found, "NoSuchCORSConfiguration")? else { return Ok(None) };
        let rule = |rule: &s3::CorsRule| {
            Attr::Known(CorsRule {
                id: text(rule.id()),
                allowed_headers: strings(rule.allowed_headers()),
                allowed_methods: strings(rule.allowed_methods()),
                allowed_origins: strings(rule.allowed_origins()),
                expose_headers: strings(rule.expose_headers()),
                max_age_seconds: Attr::from(rule.max_age_seconds()),
            })
        };
        Ok(Some(Self(found.cors_rules().iter().map(rule).collect())))
    }

    async fn write(&self, bucket: &Bucket) -> Result<(), AwsError> {
        const ACTION: &str = "s3:PutBucketCORS";
        let mut configuration = s3::CorsConfiguration::builder();
        for rule in self.0.iter().filter_map(Attr::known) {
            let rule = s3::CorsRule::builder()
                .set_id(rule.id.known().cloned())
                .set_allowed_headers(vector(&rule.allowed_headers))
                .set_allowed_methods(vector(&rule.allowed_methods))
                .set_allowed_origins(vector(&rule.allowed_origins))
                .set_expose_headers(vector(&rule.expose_headers))
                .set_max_age_seconds(rule.max_age_seconds.known().copied())
                .build();
            configuration = configuration.cors_rules(built(ACTION)(rule)?);
        }
        let call = bucket.client.put_bucket_cors().bucket(&bucket.name);
        let sent = call.cors_configuration(built(ACTION)(configuration.build())?).send().await;
        sent.map(drop).map_err(AwsError::of(ACTION))
    }

    async fn remove(bucket: &Bucket) -> Result<(), AwsError> {
        let call = bucket.client.delete_bucket_cors().bucket(&bucket.name);
        call.send().await.map(drop).map_err(AwsError::of("s3:PutBucketCORS"))
    }

    /// S3 gives an empty list back as none.
    fn same(&self, other: &Self) -> bool {
        let plain = |rule: &Attr<CorsRule>| {
            rule.clone().map(|mut plain| {
                null_if(&mut plain.allowed_headers, Vec::is_empty);
                null_if(&mut plain.expose_headers, Vec::is_empty);
                plain
            })
        };
        self.0.iter().map(plain).eq(other.0.iter().map(plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_web_site_serves_pages_or_redirects() {
        let index = Website { index_document: Attr::Known("index.html".into()), ..Website::default() };
        let redirect = Redirect { host_name: Attr::Known("example.org".into()), protocol: Attr::Null };
        assert!(index.is_complete());
        assert!(!Website::default().is_complete());
        assert!(!Website { redirect_all_requests_to: Attr::Known(redirect), ..index }.is_complete());
    }
}
