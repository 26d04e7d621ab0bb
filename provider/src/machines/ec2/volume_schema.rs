//! The schema of the volumes of a machine on EC2.

use tfplugin::{Attribute, Nested, validators};

use crate::settings::computed;

/// What the root volume and others have in common; where no type is asked for it is `kind`.
fn volume_attributes(nested: Nested, kind: &str) -> Nested {
    let kept = |attribute: Attribute| attribute.optional().computed().use_state_for_unknown();
    let number = |low, high| kept(Attribute::number()).validate(validators::integer_between(low, high));
    nested
        .attribute(
            "size",
            number(1, 65536)
                .description("Size in GiB. It can grow while the machine runs, and never shrink."),
        )
        .attribute(
            "type",
            kept(Attribute::string())
                .validate(validators::one_of(&["gp3", "gp2", "io2", "io1", "st1", "sc1", "standard"]))
                .description(format!(
                    "`gp3`, `gp2`, `io2`, `io1`, `st1`, `sc1` or `standard`. Default: {kind}."
                )),
        )
        .attribute(
            "iops",
            number(100, 256_000).description("I/O operations a second, of `gp3`, `io1` and `io2`."),
        )
        .attribute("throughput", number(125, 2000).description("Throughput in MiB/s, of `gp3`."))
        .attribute(
            "encrypted",
            kept(Attribute::bool()).description(
                "Whether EBS encrypts it. It cannot be changed later. Default: as image, snapshot and \
                 account say.",
            ),
        )
        .attribute(
            "kms_key_id",
            kept(Attribute::string()).description(
                "The KMS key of an encrypted volume: ARN or id. Default: the account's key for EBS.",
            ),
        )
        .attribute(
            "delete_on_termination",
            Attribute::bool()
                .optional()
                .computed()
                .default(true)
                .description("Whether it goes with the machine. Default: true."),
        )
        .attribute(
            "volume_id",
            Attribute::string().computed().use_state_for_unknown().description("Its id: `vol-…`."),
        )
}

pub(super) fn root_volume() -> Attribute {
    Attribute::nested_single(volume_attributes(Nested::new(), "as the image says"))
        .optional()
        .computed()
        .use_state_for_unknown()
        .description("The volume the machine boots from, where it is to differ from what the image says.")
}

pub(super) fn volumes() -> Attribute {
    let nested = volume_attributes(Nested::new(), "`gp3`")
        .attribute(
            "device",
            Attribute::string()
                .required()
                .validate(validators::matches(
                    is_device,
                    "`/dev/sdf` to `/dev/sdz` or `/dev/xvdf` to `/dev/xvdz`",
                ))
                .description(
                    "Where it is attached: `/dev/sdf` to `/dev/sdz`, or `/dev/xvdf` to `/dev/xvdz`. On \
                     machines with NVMe they appear as `/dev/nvme1n1` and so on, in the order of their \
                     devices; `/dev/disk/by-id` has the volume's id.",
                ),
        )
        .attribute(
            "snapshot_id",
            Attribute::string()
                .optional()
                .computed()
                .use_state_for_unknown()
                .description("The snapshot that it starts as."),
        )
        .attribute(
            "existing_volume_id",
            Attribute::string()
                .optional()
                .validate(validators::matches(|text| text.starts_with("vol-"), "the id of a volume: `vol-…`"))
                .description(
                    "A volume that exists already is attached, and never deleted: \
                     `aws_ebs_volume.data.id`. Beside it only `device` is set: what it is like is decided \
                     by whoever made it.",
                ),
        );
    let nested = nested.attribute(
        "client_token",
        computed(
            "The token of the call that made the volume, by which it is found where no answer came. Null \
             with `existing_volume_id`.",
        )
        .use_state_for_unknown(),
    );
    Attribute::nested_map(nested).optional().computed().use_state_for_unknown().description(
        "Further volumes by a name of your own (under another name at its device it is the same volume), \
         each with at least one of `size`, `snapshot_id` and `existing_volume_id`. They are created and \
         attached in the order of their devices. One that is taken out must not be mounted any more: \
         deploy without it first.",
    )
}

/// Whether a volume beside the root may be attached there.
pub(super) fn is_device(text: &str) -> bool {
    let letter = text.strip_prefix("/dev/sd").or_else(|| text.strip_prefix("/dev/xvd"));
    matches!(letter.map(str::as_bytes), Some([b'f'..=b'z']))
}
