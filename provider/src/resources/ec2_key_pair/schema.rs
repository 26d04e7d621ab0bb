//! What users can write in a `nixos_ec2_key_pair`, and what they get back.

use nixos_activator::ssh::normalized_public_key;
use tfplugin::{Attr, Attribute, Diagnostic, Diagnostics, Nested, Path, Schema, validators};

use super::model::Model;
use crate::aws::{region_attribute, regional_identity, tags_all_attribute, tags_attribute};
use crate::settings::computed;

pub(super) fn schema() -> Schema {
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
            "An SSH key that EC2 puts on new machines: a public key that you have, or a new one whose \
             private half is written to a file of mode 0600 and never to state.",
        )
        .attribute(
            "key_name",
            Attribute::string()
                .optional()
                .computed()
                .use_state_for_unknown()
                .requires_replace()
                .validate(validators::matches(is_key_name, "1 to 255 ASCII characters"))
                .description(
                    "Its name in the region, 1 to 255 ASCII characters. Default: `key_name_prefix` and \
                     something unique.",
                ),
        )
        .attribute(
            "key_name_prefix",
            Attribute::string().optional().requires_replace().description(
                "What a name made here begins with. Default: `terraform-`. \
                    Not together with `key_name`.",
            ),
        )
        .attribute("region", region_attribute().use_state_for_unknown())
        .attribute(
            "public_key",
            Attribute::string()
                .optional()
                .computed()
                .use_state_for_unknown()
                .validate(validators::matches(
                    |text| normalized_public_key(text).is_some(),
                    "a public key as in `authorized_keys`: `ssh-ed25519 AAAA…`",
                ))
                .description(
                    "The public key, as in `authorized_keys`; comment and white space do not matter. \
                     Exactly one of `public_key` and `generate` is set; with `generate`, this is the \
                     public half of the key that was made.",
                ),
        )
        .attribute(
            "generate",
            Attribute::nested_single(generate).optional().requires_replace().description(
                "Makes a new key, instead of taking the one in `public_key`. Needs `private_key_file`. A \
                 change of it replaces the key pair, which no machine that runs takes notice of: see [the \
                 guide](../guides/aws.md#another-key).",
            ),
        )
        .attribute(
            "private_key_file",
            Attribute::string().optional().validate(validators::not_empty()).description(
                "Where the private half of a key that `generate` makes is written (mode 0600; an existing \
                 file is never overwritten). It is moved when this changes. When the resource is \
                 replaced or destroyed, the file is kept as `FILE.old`, because machines may let in no other \
                 key; delete it when none is left. It does not have to stay: only those who log in need it. \
                 Only with `generate`.",
            ),
        )
        .attribute("tags", tags_attribute())
        .attribute("tags_all", tags_all_attribute())
        .attribute("id", computed("The same as `key_name`.").use_state_for_unknown())
        .attribute("key_pair_id", computed("EC2's id of the key pair: `key-…`.").use_state_for_unknown())
        .attribute("key_type", computed("`ed25519` or `rsa`.").use_state_for_unknown())
        .identity(regional_identity("key_name", "The name of the key pair."))
        .attribute(
            "fingerprint",
            computed(
                "The fingerprint as EC2 shows it: of an imported RSA key MD5 of the DER form, of an \
                 Ed25519 key SHA-256.",
            )
            .use_state_for_unknown(),
        )
        .at_most_one_of(&["key_name", "key_name_prefix"])
        .exactly_one_of(&["generate", "public_key"])
}

/// Checks that the schema cannot express.
pub(super) fn validate(config: &Model) -> Result<(), Diagnostics> {
    let mut problems = Diagnostics::default();
    let root = Path::root;
    let mut say = |name: &str, summary: &str, detail: &str| {
        problems.push(Diagnostic::error(summary).detail(detail).at(root().attribute(name)));
    };
    if let Attr::Known(generate) = &config.generate {
        if config.private_key_file.is_null() {
            say(
                "private_key_file",
                "Nowhere to put the private key",
                "`generate` makes a private key, which is never stored in state; expected \
                 `private_key_file`, the path of a file to write it to, e.g. private_key_file = \
                 \"${path.root}/admin.key\".",
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
            "Found `private_key_file` without `generate`: the private half of `public_key` is yours \
             already. Remove it.",
        );
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn is_key_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.is_ascii() && text.trim() == text
}
