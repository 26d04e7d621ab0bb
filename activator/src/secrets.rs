//! Secrets: where their contents come from, what stands for them in a plan, and what a machine has of them.
//!
//! A content is fetched when it is needed, kept in memory that is wiped, and written to one stream to the machine.
//! Everything else handles fingerprints, which tell nothing about a content to those who do not have the key.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Stdio;

use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use nixos_agent::{DeploymentId, NoRandomness, SecretEntry, SecretFile, Secrets};
use sha2::Sha256;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::children::{self, interrupt};
use crate::ssh::{Connection, SshError};
use crate::text::complaint;

/// The most a secret may be: what systemd takes for a credential.
const LARGEST: u64 = 1 << 20;

/// The content of a secret. It prints as `(sensitive)`.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(Zeroizing<Vec<u8>>);

/// Where a content comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is known already.
    Value(Content),
    /// What a program prints, run where we run.
    Command(Vec<String>),
    /// A file where we run.
    File(PathBuf),
    /// The specification, which could not be asked for it. A machine that has it keeps it.
    Missing,
}

/// One secret of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// What it is to be there.
    pub file: SecretFile,
    /// Where its content comes from.
    pub source: Source,
    /// Changes when the content does; `None`: look at the content itself.
    pub version: Option<String>,
}

/// The secrets of a machine, and what stands for each.
#[derive(Clone, Debug)]
pub struct OfMachine {
    /// Who answers for them.
    pub owner: DeploymentId,
    /// Each with its fingerprint.
    pub declared: Vec<(Declared, String)>,
}

/// Why a content could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The program failed.
    #[error("the command `{program}` for secret \"{name}\" failed: {message}")]
    Command {
        /// The secret.
        name: String,
        /// The program, without its arguments.
        program: String,
        /// What it said.
        message: String,
    },
    /// The file cannot be read.
    #[error("the file {} of secret \"{name}\" cannot be read: {message}", path.display())]
    File {
        /// The secret.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// It is in a specification that could not be asked for it.
    #[error(
        "the content of secret \"{name}\" is a `text` of the specification, which does not evaluate or no \
         longer has it"
    )]
    Missing {
        /// The secret.
        name: String,
    },
    /// It is more than a secret should be.
    #[error("secret \"{name}\" is larger than {LARGEST} bytes")]
    TooLarge {
        /// The secret.
        name: String,
    },
    /// The user does not want it any more.
    #[error("cancelled while fetching secret \"{name}\"")]
    Cancelled {
        /// The secret.
        name: String,
    },
}

impl Content {
    /// Takes a content over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl<'de> serde::Deserialize<'de> for Content {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(text.into_bytes()))
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(sensitive)")
    }
}

/// What fingerprints are made with. Its memory is wiped when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Zeroizing<String>);

impl Key {
    /// A new one: 256 random bits.
    pub fn random() -> Result<Self, NoRandomness> {
        let bytes = Zeroizing::new(nixos_agent::random_bytes::<32>()?);
        Ok(Self(Zeroizing::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes.as_slice()))))
    }

    /// Stands for a secret: changes when anything about it does. `content` is not looked at where there is a version.
    pub fn fingerprint(&self, declared: &Declared, content: Option<&Content>) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).ok()?;
        let mut add = |part: &[u8]| {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        };
        let Declared { file, version, source: _ } = declared;
        let SecretFile { name, path, user, group, mode, restart, reload, persist } = file;
        for part in
            [name.as_str(), path, user, group, &format!("{mode:o}"), &restart.join("\0"), &reload.join("\0")]
        {
            add(part.as_bytes());
        }
        if *persist {
            add(b"persist");
        }
        match (version, content) {
            (Some(version), _) => {
                add(b"version");
                add(version.as_bytes());
            }
            (None, Some(content)) => {
                add(b"content");
                add(&content.0);
            }
            (None, None) => return None,
        }
        let code = mac.finalize().into_bytes();
        Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(code.get(..16).unwrap_or_default()))
    }
}

impl serde::Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(sensitive)")
    }
}

impl Declared {
    /// Its content, byte for byte.
    pub async fn fetch(&self, cancel: &CancellationToken) -> Result<Content, SecretError> {
        let name = || self.file.name.to_string();
        let bytes = match &self.source {
            Source::Value(content) => content.0.clone(),
            Source::Missing => return Err(SecretError::Missing { name: name() }),
            Source::Command(words) => self.run(words, cancel).await?,
            Source::File(path) => {
                let failed = |error: std::io::Error| SecretError::File {
                    name: name(),
                    path: path.clone(),
                    message: error.to_string(),
                };
                let file = tokio::fs::File::open(path).await.map_err(failed)?;
                let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
                file.take(LARGEST + 1).read_to_end(&mut bytes).await.map_err(failed)?;
                bytes
            }
        };
        if bytes.len() as u64 > LARGEST {
            return Err(SecretError::TooLarge { name: name() });
        }
        Ok(Content(bytes))
    }

    async fn run(
        &self,
        words: &[String],
        cancel: &CancellationToken,
    ) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let (program, arguments) = words.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
        let failed = |message: String| SecretError::Command {
            name: self.file.name.to_string(),
            program: program.to_owned(),
            message,
        };
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = children::start(command).map_err(|error| match error.kind() {
            ErrorKind::NotFound => failed("there is no such program on PATH where Terraform runs".to_owned()),
            _ => failed(error.to_string()),
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        let mut said = String::new();
        let mut read = Ok(0);
        let talk = async {
            let output = async {
                if let Some(stdout) = stdout {
                    read = stdout.take(LARGEST + 1).read_to_end(&mut bytes).await;
                }
            };
            let messages = async {
                if let Some(stderr) = stderr {
                    said = complaint(stderr).await;
                }
            };
            tokio::join!(output, messages);
        };
        let status = tokio::select! {
            status = children::finished(&mut child, talk) => Some(status),
            () = cancel.cancelled() => None,
        };
        let Some(status) = status else {
            interrupt(&mut child).await;
            return Err(SecretError::Cancelled { name: self.file.name.to_string() });
        };
        let status = status.map_err(|error| failed(error.to_string()))?;
        read.map_err(|error| failed(error.to_string()))?;
        if !status.success() && bytes.len() as u64 <= LARGEST {
            let mut message = format!("{status}\n{}", said.trim());
            if message.contains("tty") {
                message.push_str(
                    "\nIt has no terminal to ask on: let an agent, a file or a variable have what it asks \
                     for",
                );
            }
            return Err(failed(message));
        }
        Ok(bytes)
    }
}

impl OfMachine {
    /// What to tell the agent, and the contents that go with it: those that the machine does not have.
    pub(crate) async fn request(
        &self,
        there: &BTreeMap<String, String>,
        cancel: &CancellationToken,
    ) -> Result<(Secrets, Zeroizing<Vec<u8>>), SecretError> {
        let mut contents = Zeroizing::new(vec![]);
        let mut entries = vec![];
        for (declared, fingerprint) in &self.declared {
            let content = if there.get(declared.file.name.as_str()) == Some(fingerprint) {
                None
            } else {
                let content = declared.fetch(cancel).await?;
                // Growing would leave copies behind.
                let mut longer = Zeroizing::new(Vec::with_capacity(contents.len() + content.0.len()));
                longer.extend_from_slice(&contents);
                longer.extend_from_slice(&content.0);
                contents = longer;
                Some(content.0.len() as u64)
            };
            entries.push(SecretEntry {
                file: declared.file.clone(),
                fingerprint: fingerprint.clone(),
                content,
            });
        }
        Ok((Secrets { owner: self.owner.clone(), entries }, contents))
    }
}

/// Prints `name TAB fingerprint` for each secret of an owner that is as the agent left it.
const LOOK: &str = r#"
PATH="$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/sbin:/usr/bin:/sbin:/bin"
tab="$(printf '\t')"
for manifest in "/run/nixos-agent-secrets/manifests/$1" "/var/lib/nixos-agent/secrets/$1"; do
  [ -r "$manifest" ] || continue
  while IFS="$tab" read -r name fingerprint digest looks path; do
    [ -f "$path" ] || continue
    found="$(sha256sum < "$path")"
    [ "${found%% *}" = "$digest" ] && [ "$(stat -c '%a %u:%g' "$path")" = "$looks" ] && printf '%s\t%s\n' "$name" "$fingerprint"
  done < "$manifest"
done
echo end
"#;

/// The fingerprints of the secrets of an owner that the machine has, by name; altered ones are not among them.
pub async fn look(
    connection: &Connection,
    owner: &DeploymentId,
) -> Result<BTreeMap<String, String>, SshError> {
    let answer = connection.run_as_root(&["sh", "-s", "--", owner.as_str()], LOOK.as_bytes()).await?;
    let text = answer.text();
    if text.lines().last() != Some("end") {
        let host = connection.endpoint().host.clone();
        return Err(SshError::Other { host, reason: answer.stderr.trim().to_owned() });
    }
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    Ok(pairs.map(|(name, fingerprint)| (name.to_owned(), fingerprint.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(source: Source) -> Declared {
        let file = SecretFile {
            name: "token".parse().unwrap(),
            path: "/run/keys/token".to_owned(),
            user: "root".to_owned(),
            group: "keys".to_owned(),
            mode: 0o400,
            restart: vec![],
            reload: vec![],
            persist: false,
        };
        Declared { file, source, version: None }
    }

    fn value(text: &str) -> Content {
        Content::new(text.as_bytes().to_vec())
    }

    #[test]
    fn a_fingerprint_changes_with_everything_that_matters() {
        let key = Key::random().unwrap();
        let one = declared(Source::Value(value("a")));
        let print = |declared: &Declared, content: &str| key.fingerprint(declared, Some(&value(content)));
        let base = print(&one, "a");
        assert!(base.is_some());
        assert_eq!(base, print(&one, "a"));
        assert_ne!(base, print(&one, "b"));
        for change in [
            |d: &mut Declared| d.file.path.push('x'),
            |d: &mut Declared| d.file.user = "nginx".to_owned(),
            |d: &mut Declared| d.file.mode = 0o440,
            |d: &mut Declared| d.file.restart.push("a.service".to_owned()),
            |d: &mut Declared| d.file.persist = true,
            |d: &mut Declared| d.version = Some("a".to_owned()),
        ] {
            let mut other = one.clone();
            change(&mut other);
            assert_ne!(base, print(&other, "a"), "{other:?}");
        }
        assert_ne!(Key::random().unwrap().fingerprint(&one, Some(&value("a"))), base);
        // With a version the content does not count, and need not be known.
        let versioned = Declared { version: Some("1".to_owned()), ..one.clone() };
        assert_eq!(print(&versioned, "a"), key.fingerprint(&versioned, None));
        assert_eq!(key.fingerprint(&one, None), None);
    }

    #[test]
    fn nothing_of_a_content_is_printed() {
        let text = format!("{:?} {:?}", declared(Source::Value(value("hunter2"))), Key::random().unwrap());
        assert!(!text.contains("hunter2") && text.ends_with("(sensitive)"), "{text}");
    }

    #[tokio::test]
    async fn commands_and_files_are_taken_byte_for_byte() {
        let cancel = CancellationToken::new();
        let command =
            |words: &[&str]| declared(Source::Command(words.iter().map(|word| (*word).to_owned()).collect()));
        let content = command(&["printf", "a\\0b\\n"]).fetch(&cancel).await.unwrap();
        assert_eq!(*content.0, b"a\0b\n");
        let error = command(&["sh", "-c", "echo leaked; echo why >&2; exit 3"]).fetch(&cancel).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("why") && error.contains("exit status: 3"), "{error}");
        assert!(!error.contains("leaked"), "what it printed may be half a secret: {error}");
        assert!(command(&["/no/such"]).fetch(&cancel).await.is_err());
        let large = command(&["head", "-c", "2000000", "/dev/zero"]).fetch(&cancel).await;
        assert!(matches!(large, Err(SecretError::TooLarge { .. })), "{large:?}");
        let file = declared(Source::File("/no/such".into())).fetch(&cancel).await;
        assert!(file.unwrap_err().to_string().contains("/no/such"));
    }
}
