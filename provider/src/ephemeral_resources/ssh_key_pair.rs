//! `ephemeral.nixos_ssh_key_pair`: an SSH key that no state, plan or file has.

use nixos_activator::ssh::{KeyPair, KeyType};
use serde::{Deserialize, Serialize};
use tfplugin::{
    Attr, Attribute, Cx, Diagnostic, Diagnostics, EphemeralResource, Opened, Path, Schema, validators,
};

use crate::context::Context;

pub(crate) struct SshKeyPair;

/// No `Debug`: it holds a private key.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Model {
    #[serde(rename = "type")]
    kind: Attr<String>,
    bits: Attr<u16>,
    private_key: Attr<String>,
    public_key: Attr<String>,
}

impl EphemeralResource<Context> for SshKeyPair {
    const TYPE: &'static str = "nixos_ssh_key_pair";
    type Model = Model;
    type Private = ();

    fn schema(&self) -> Schema {
        Schema::new(0)
            .description(
                "An SSH key that is drawn anew in each run and stored nowhere: for write-only attributes, \
                 which keep what they were given until their version changes. Needs `ssh-keygen` where \
                 Terraform runs.",
            )
            .attribute(
                "type",
                Attribute::string()
                    .optional()
                    .validate(validators::one_of(&["ed25519", "rsa"]))
                    .description("`ed25519` (the default) or `rsa`."),
            )
            .attribute(
                "bits",
                Attribute::number()
                    .optional()
                    .validate(validators::integer_between(2048, 16384))
                    .description("Length of an RSA key. Default: 4096."),
            )
            .attribute(
                "private_key",
                Attribute::string().computed().sensitive().description(
                    "The private half in OpenSSH's format, without a \
                    passphrase.",
                ),
            )
            .attribute(
                "public_key",
                Attribute::string().computed().description("The public half, as in `authorized_keys`."),
            )
    }

    async fn validate(&self, config: Model) -> Result<(), Diagnostics> {
        let rsa = config.kind.known().is_some_and(|kind| kind == "rsa") || config.kind.is_unknown();
        if let Some(bits) = config.bits.known()
            && !rsa
        {
            return Err(Diagnostic::error("Only RSA keys have a length to choose")
                .detail(format!("Found `bits = {bits}`. Remove it, or set `type = \"rsa\"`."))
                .at(Path::root().attribute("bits"))
                .into());
        }
        Ok(())
    }

    async fn open(&self, _cx: &Cx<Context>, config: Model) -> Result<Opened<Model, ()>, Diagnostics> {
        let kind = match config.kind.known().map(String::as_str) {
            Some("rsa") => KeyType::Rsa { bits: config.bits.known().copied().unwrap_or(4096) },
            _ => KeyType::Ed25519,
        };
        let pair = KeyPair::generate(kind)
            .await
            .map_err(|error| Diagnostic::error("No SSH key can be made").detail(error.to_string()))?;
        let private_key = Attr::Known(pair.private.expose().to_owned());
        let value = Model { private_key, public_key: Attr::Known(pair.public), ..config };
        Ok(Opened::new(value, ()))
    }
}
