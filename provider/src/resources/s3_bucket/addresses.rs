//! Where a bucket is found: everything that follows from its name and region.

use tfplugin::Attr;

use super::model::Model;

impl Model {
    /// Everything that follows from name and region.
    pub(super) fn name_addresses(&mut self) {
        let (Attr::Known(name), Attr::Known(region)) = (&self.bucket, &self.region) else { return };
        let (partition, domain) = partition(region);
        self.id = self.bucket.clone();
        self.arn = Attr::Known(format!("arn:{partition}:s3:::{name}"));
        self.bucket_domain_name = Attr::Known(format!("{name}.s3.{domain}"));
        self.bucket_regional_domain_name = Attr::Known(format!("{name}.s3.{region}.{domain}"));
        let site = match &self.website {
            Attr::Known(_) => Attr::Known(website_domain(region)),
            Attr::Null => Attr::Null,
            Attr::Unknown => Attr::Unknown,
        };
        self.website_endpoint = site.clone().map(|site| format!("{name}.{site}"));
        self.website_domain = site;
    }
}

/// The partitions of AWS beside the first: what the names of their regions begin with, the partition in ARNs, and its
/// domain. Source: `partitions.json` of the AWS SDKs.
const PARTITIONS: &[(&str, &str, &str)] = &[
    ("cn-", "aws-cn", "amazonaws.com.cn"),
    ("eusc-", "aws-eusc", "amazonaws.eu"),
    ("us-gov-", "aws-us-gov", "amazonaws.com"),
    ("us-iso-", "aws-iso", "c2s.ic.gov"),
    ("us-isob-", "aws-iso-b", "sc2s.sgov.gov"),
    ("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"),
    ("us-isof-", "aws-iso-f", "csp.hci.ic.gov"),
    ("eu-isof-", "aws-iso-f", "csp.hci.ic.gov"),
];

/// The partition of a region and its domain.
fn partition(region: &str) -> (&'static str, &'static str) {
    let other = PARTITIONS.iter().find(|(prefix, _, _)| region.starts_with(prefix));
    other.map_or(("aws", "amazonaws.com"), |(_, partition, domain)| (*partition, *domain))
}

/// Where web sites of a region are. The oldest regions have a dash before their name.
/// Source: "Amazon S3 endpoints and quotas" of the AWS General Reference.
fn website_domain(region: &str) -> String {
    const DASHED: &[&str] = &[
        "ap-northeast-1",
        "ap-southeast-1",
        "ap-southeast-2",
        "eu-west-1",
        "sa-east-1",
        "us-east-1",
        "us-gov-west-1",
        "us-west-1",
        "us-west-2",
    ];
    let separator = if DASHED.contains(&region) { '-' } else { '.' };
    format!("s3-website{separator}{region}.{}", partition(region).1)
}

#[cfg(test)]
mod tests {
    use super::super::parts::Website;
    use super::*;

    #[test]
    fn a_bucket_has_its_addresses_once_name_and_region_are_known() {
        let known = |text: &str| Attr::Known(text.to_owned());
        let mut model = Model { bucket: known("b"), region: known("eu-central-1"), ..Model::default() };
        model.website = Attr::Known(Website::default());
        model.name_addresses();
        assert_eq!(model.arn, known("arn:aws:s3:::b"));
        assert_eq!(model.bucket_regional_domain_name, known("b.s3.eu-central-1.amazonaws.com"));
        assert_eq!(model.website_endpoint, known("b.s3-website.eu-central-1.amazonaws.com"));
        assert_eq!(website_domain("eu-west-1"), "s3-website-eu-west-1.amazonaws.com");
        assert_eq!(website_domain("cn-north-1"), "s3-website.cn-north-1.amazonaws.com.cn");
        assert_eq!(partition("eusc-de-east-1"), ("aws-eusc", "amazonaws.eu"));
        assert_eq!(partition("us-isob-east-1"), ("aws-iso-b", "sc2s.sgov.gov"));
        assert_eq!(partition("us-east-1"), ("aws", "amazonaws.com"));
    }
}
