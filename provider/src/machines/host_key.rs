//! The machine's SSH host key, so that already the first login is to the right machine.
//!
//! A key is made here and handed over in user data. Whoever is on the machine can read user data, so the machine
//! makes itself another one at the first login, and that is the one that is pinned.

use nixos_activator::ssh::{Connection, KeyPair, SshError, normalized_public_key};

/// How user data begin that hand over a host key: for NixOS' images, and for cloud-init.
const FOR_NIXOS: &str = "SSH_HOST_ED25519_KEY_PUB:";
const FOR_CLOUD_INIT: &str = "#cloud-config\nssh_deletekeys: true\nssh_keys:\n  ed25519_private: |\n";

/// User data that give the machine this host key, as the image reads them.
///
/// NixOS' images look for the two lines of `ec2-data.nix`, in which `|` stands for the end of a line; cloud-init
/// reads `ssh_keys`.
pub(crate) fn user_data(image: &str, pair: &KeyPair) -> String {
    let private = pair.private.expose().trim_end();
    match image {
        "cloud_init" => {
            let private: String = private.lines().map(|line| format!("    {line}\n")).collect();
            format!("{FOR_CLOUD_INIT}{private}  ed25519_public: {}\n", pair.public)
        }
        _ => {
            format!("{FOR_NIXOS}{}\nSSH_HOST_ED25519_KEY:{}\n", pair.public, private.replace('\n', "|") + "|")
        }
    }
}

/// As what these user data hand over a host key, if they do.
pub(crate) fn hands_over(user_data: &str) -> Option<&'static str> {
    let known = [(FOR_NIXOS, "nixos"), (FOR_CLOUD_INIT, "cloud_init")];
    known.into_iter().find(|(beginning, _)| user_data.starts_with(beginning)).map(|(_, how)| how)
}

/// Makes a new host key beside the old one, puts it in its place and tells sshd. The old one comes back when sshd
/// does not take the new one.
const ROTATE: &str = r#"
set -eu
PATH="$PATH:/run/current-system/sw/bin:/usr/sbin:/usr/bin:/sbin:/bin"
key=/etc/ssh/ssh_host_ed25519_key
new="$key.new"
rm -f "$new" "$new.pub"
ssh-keygen -q -t ed25519 -N '' -C "$(uname -n)" -f "$new" >&2
cp -p "$key" "$key.old"; cp -p "$key.pub" "$key.pub.old"
mv -f "$new" "$key"; mv -f "$new.pub" "$key.pub"
unit=sshd; systemctl cat sshd.service >/dev/null 2>&1 || unit=ssh
# Not a reload, which ends before the server has read the new key: the next login would be answered with the old one.
if systemctl restart "$unit.service" >&2; then
  rm -f "$key.old" "$key.pub.old"
else
  mv -f "$key.old" "$key"; mv -f "$key.pub.old" "$key.pub"
  systemctl restart "$unit.service" >&2 || true
  exit 1
fi
cat "$key.pub"
"#;

/// Why a machine keeps the key it was created with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RotateError {
    /// The connection.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The machine did not make one.
    #[error("the machine could not make itself a new host key (exit {code:?}): {stderr}")]
    Failed {
        /// Exit code.
        code: Option<i32>,
        /// What it said.
        stderr: String,
    },
}

/// Has the machine make itself a new host key; its public half.
pub(crate) async fn rotate(connection: &Connection) -> Result<String, RotateError> {
    let answer = connection.run_as_root(&["sh", "-s"], ROTATE.as_bytes()).await?;
    let public = String::from_utf8_lossy(&answer.stdout).lines().last().and_then(normalized_public_key);
    match (answer.code, public) {
        (Some(0), Some(public)) => Ok(public),
        (code, _) => Err(RotateError::Failed { code, stderr: answer.stderr.trim().to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nixos_activator::Secret;

    fn pair() -> KeyPair {
        KeyPair {
            public: "ssh-ed25519 AAAA".into(),
            private: Secret::new(
                "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n",
            ),
        }
    }

    #[test]
    fn what_was_handed_over_is_recognised() {
        for how in ["nixos", "cloud_init"] {
            assert_eq!(hands_over(&user_data(how, &pair())), Some(how));
        }
        assert_eq!(hands_over("#cloud-config\nusers: []\n"), None);
    }

    #[test]
    fn nixos_gets_a_line_for_each_half() {
        assert_eq!(
            user_data("nixos", &pair()),
            "SSH_HOST_ED25519_KEY_PUB:ssh-ed25519 AAAA\nSSH_HOST_ED25519_KEY:-----BEGIN OPENSSH PRIVATE \
             KEY-----|b3Bl|-----END OPENSSH PRIVATE KEY-----|\n"
        );
    }

    #[test]
    fn cloud_init_gets_a_document() {
        assert_eq!(
            user_data("cloud_init", &pair()),
            "#cloud-config\nssh_deletekeys: true\nssh_keys:\n  ed25519_private: |\n    -----BEGIN OPENSSH \
             PRIVATE KEY-----\n    b3Bl\n    -----END OPENSSH PRIVATE KEY-----\n  ed25519_public: \
             ssh-ed25519 AAAA\n"
        );
    }
}
