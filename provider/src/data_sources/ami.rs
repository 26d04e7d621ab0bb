//! `nixos_ami`: the newest image of a NixOS release for a region and an architecture.

use aws_sdk_ec2::types::{Filter, Image};
use serde::{Deserialize, Serialize};
use tfplugin::{Attr, Attribute, Cx, DataSource, Diagnostic, Diagnostics, Path, Schema, Type, validators};

use crate::aws::{AwsError, aws_unknown};
use crate::context::Context;
use crate::settings::{List, computed, known_elements};

pub(crate) struct Ami;

/// The account that publishes NixOS' images. Source: <https://nixos.github.io/amis/>.
const NIXOS: &str = "427812963091";

/// Configuration and result.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Model {
    release: Attr<String>,
    name: Attr<String>,
    architecture: Attr<String>,
    region: Attr<String>,
    owners: List<String>,
    id: Attr<String>,
    image_name: Attr<String>,
    system: Attr<String>,
    creation_date: Attr<String>,
    root_device_name: Attr<String>,
    root_volume_size: Attr<i32>,
}

impl DataSource<Context> for Ami {
    const TYPE: &'static str = "nixos_ami";
    type Model = Model;

    fn schema(&self) -> Schema {
        Schema::new(0)
            .description(
                "The newest image of a NixOS release, or with a name of your choice: `nixos_machine` takes \
                 its `id` as `ec2.ami`.",
            )
            .attribute(
                "release",
                Attribute::string()
                    .optional()
                    .validate(validators::matches(is_release, "a release such as `25.05`"))
                    .description(
                        "The NixOS release, e.g. `25.05`: the image's name begins with `nixos/25.05`. \
                         Exactly one of `release` and `name` is set.",
                    ),
            )
            .attribute(
                "name",
                Attribute::string().optional().validate(validators::not_empty()).description(
                    "The image's name, with `*` for anything, e.g. of images of your own (which need \
                     `owners` too). Exactly one of `release` and `name` is set.",
                ),
            )
            .attribute(
                "architecture",
                Attribute::string()
                    .optional()
                    .computed()
                    .validate(validators::one_of(&["x86_64", "arm64"]))
                    .description("`x86_64` (the default) or `arm64`."),
            )
            .attribute(
                "region",
                Attribute::string().optional().computed().validate(validators::not_empty()).description(
                    "The AWS region, e.g. `eu-west-1`. Default: the provider's `aws.region`, else as AWS' \
                     own tools find it.",
                ),
            )
            .attribute(
                "owners",
                Attribute::list(Type::String).optional().description(
                    "Accounts whose images are taken, by number; `self` for your own. Default: NixOS' own, \
                     `427812963091`.",
                ),
            )
            .attribute("id", computed("The image's id: `ami-…`."))
            .attribute("image_name", computed("The image's whole name."))
            .attribute("system", computed("Nix' name of the image's platform, e.g. `x86_64-linux`."))
            .attribute("creation_date", computed("When the image was made."))
            .attribute("root_device_name", computed("The device that machines boot from."))
            .attribute(
                "root_volume_size",
                Attribute::number().computed().description(
                    "Size of the root volume in GiB: the least that `root_volume.size` of a machine can \
                     be.",
                ),
            )
            .exactly_one_of(&["release", "name"])
    }

    async fn read(&self, cx: &Cx<Context>, mut config: Model) -> Result<Model, Diagnostics> {
        let root = Path::root;
        let release = config.release.known().map(|release| format!("nixos/{release}*"));
        let pattern = release.or_else(|| config.name.known().cloned()).unwrap_or_default();
        let aws = cx.data.aws.as_ref().ok_or_else(aws_unknown)?;
        let region =
            aws.region(config.region.known().map(String::as_str), &root().attribute("region")).await?;
        let architecture = config.architecture.known().map_or("x86_64", String::as_str).to_owned();
        let mut owners: Vec<String> = known_elements(&config.owners).cloned().collect();
        if owners.is_empty() {
            owners.push(NIXOS.to_owned());
        }
        let filter = |name: &str, value: &str| Filter::builder().name(name).values(value).build();
        let call = aws
            .ec2(&region)
            .await
            .describe_images()
            .set_owners(Some(owners.clone()))
            .filters(filter("name", &pattern))
            .filters(filter("architecture", &architecture))
            .filters(filter("root-device-type", "ebs"))
            .filters(filter("virtualization-type", "hvm"))
            .filters(filter("state", "available"));
        let found = call
            .send()
            .await
            .map_err(AwsError::of("ec2:DescribeImages"))
            .map_err(|error| error.diagnostic("AWS did not list images", root()))?;
        let newest = found.images().iter().max_by(|a, b| a.creation_date().cmp(&b.creation_date()));
        let image = newest.ok_or_else(|| {
            Diagnostic::error("There is no such image").detail(format!(
                "Region {region} has no image \"{pattern}\" for {architecture} of {}. Releases are \
                 published a while after they come out and removed when they are old; see \
                 https://nixos.github.io/amis/.",
                owners.join(", ")
            ))
        })?;
        config.take(image);
        config.region = Attr::Known(region);
        config.architecture = Attr::Known(architecture);
        Ok(config)
    }
}

impl Model {
    fn take(&mut self, image: &Image) {
        let text = |value: Option<&str>| Attr::from(value.map(str::to_owned));
        self.id = text(image.image_id());
        self.image_name = text(image.name());
        self.system = text(image.architecture().map(|architecture| match architecture.as_str() {
            "arm64" => "aarch64-linux",
            "i386" => "i686-linux",
            _ => "x86_64-linux",
        }));
        self.creation_date = text(image.creation_date());
        self.root_device_name = text(image.root_device_name());
        let mut mappings = image.block_device_mappings().iter();
        let root = mappings.find(|mapping| mapping.device_name() == image.root_device_name());
        self.root_volume_size = Attr::from(root.and_then(|mapping| mapping.ebs()?.volume_size()));
    }
}

/// `YY.MM`, as NixOS counts.
fn is_release(text: &str) -> bool {
    let digits = |part: &str| part.len() == 2 && part.bytes().all(|c| c.is_ascii_digit());
    text.split_once('.').is_some_and(|(year, month)| digits(year) && digits(month))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_written_as_nixos_writes_them() {
        assert!(is_release("25.05"));
        for bad in ["25", "25.5", "unstable", "25.05.1", ""] {
            assert!(!is_release(bad), "{bad}");
        }
    }
}
