//! How `ssh` is told about the key of a login.

use std::path::Path;

use super::agent::Agent;
use super::config::{Identity, KeyAgent};
use super::place::Place;
use super::{Key, SshError};

/// A key that is a value goes into an agent of its own, which is added to `agents`, and its public half into a file
/// of `place`.
pub(super) async fn identity(
    key: &Key,
    place: &Place,
    host: &str,
    agents: &mut Vec<Agent>,
) -> Result<Option<Identity>, SshError> {
    match key {
        Key::Ambient => Ok(None),
        Key::File(file) => {
            if is_missing(file) {
                return Err(SshError::Setting {
                    name: "private_key_file",
                    found: file.display().to_string(),
                    expected: "a file that is there",
                });
            }
            let agent = if is_usable_alone(file) { KeyAgent::None } else { KeyAgent::Users };
            Ok(Some(Identity { file: file.clone(), agent }))
        }
        Key::Text(text) => {
            let agent = Agent::with(text, &place.file("agent"), host).await?;
            let written = place.write("key.pub", &agent.public, host);
            let socket = agent.socket.clone();
            agents.push(agent);
            written?;
            Ok(Some(Identity { file: place.file("key.pub"), agent: KeyAgent::Own(socket) }))
        }
    }
}

/// Whether there is neither this private key nor its public half, by which an SSH agent finds it. What `ssh` expands
/// (`~`, `%d`, `${HOME}`) is for `ssh` to complain of.
fn is_missing(file: &Path) -> bool {
    let is_expanded = file.to_string_lossy().contains(['~', '%', '$']);
    !is_expanded && !file.exists() && !file.with_added_extension("pub").exists()
}

/// Whether a file is a private key without a passphrase. What cannot be read is for `ssh` to complain of.
fn is_usable_alone(file: &Path) -> bool {
    // "openssh-key-v1", and "none" for its cipher.
    const PLAIN: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU";
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let Some((_, body)) = text.split_once("-----BEGIN ") else { return false };
    match body.split_once(" KEY-----") {
        Some(("OPENSSH PRIVATE", body)) => body.trim_start().starts_with(PLAIN),
        Some(("RSA PRIVATE" | "EC PRIVATE" | "DSA PRIVATE", body)) => !body.contains("ENCRYPTED"),
        Some((kind, _)) => kind == "PRIVATE",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn keys_without_a_passphrase_need_no_agent() {
        let directory = tempfile::tempdir().unwrap();
        for (n, (format, passphrase)) in [
            ("RFC4716", ""),
            ("PEM", ""),
            ("PKCS8", ""),
            ("RFC4716", "words"),
            ("PEM", "words"),
            ("PKCS8", "words"),
        ]
        .into_iter()
        .enumerate()
        {
            let file = directory.path().join(n.to_string());
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "rsa", "-b", "2048", "-m", format, "-N", passphrase, "-f"]).arg(&file);
            assert!(command.status().unwrap().success());
            assert_eq!(is_usable_alone(&file), passphrase.is_empty(), "{format} {passphrase}");
            assert!(!is_usable_alone(&file.with_extension("pub")));
        }
    }
}
