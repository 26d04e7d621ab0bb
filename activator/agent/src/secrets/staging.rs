//! Taking the contents of secrets from the client, before the activation begins.

use std::path::{Component, Path};

use nixos_agent::{Request, SecretEntry};

use super::memory::{directory_of, make_directory, write_new};
use crate::error::AgentError;

/// Writes the contents of a request's secrets to memory. `contents` is everything behind the line with the request.
pub(crate) fn stage(request: &Request, contents: &[u8]) -> Result<(), AgentError> {
    let entries = request.secrets.as_ref().map(|secrets| secrets.entries.as_slice()).unwrap_or_default();
    let announced: u64 = entries.iter().filter_map(|entry| entry.content).sum();
    if announced != contents.len() as u64 {
        let found = contents.len();
        return Err(AgentError::Request(format!("expected {announced} bytes of secrets, found {found}")));
    }
    entries.iter().try_for_each(check_entry)?;
    if entries.iter().all(|entry| entry.content.is_none()) {
        return Ok(());
    }
    let directory = directory_of(request.id.as_str());
    make_directory(&directory)?;
    let mut rest = contents;
    for (number, entry) in entries.iter().enumerate() {
        let Some(length) = entry.content else { continue };
        let (content, more) = rest.split_at(usize::try_from(length).unwrap_or(0).min(rest.len()));
        rest = more;
        write_new(&directory.join(number.to_string()), content)?;
    }
    Ok(())
}

/// Checks the texts of an entry, which become parts of file names and fields of lines.
fn check_entry(entry: &SecretEntry) -> Result<(), AgentError> {
    let wrong = |what: &str, expected: &str| {
        Err(AgentError::Request(format!("the {what} of secret \"{}\" is not {expected}", entry.file.name)))
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if entry.fingerprint.is_empty() || !entry.fingerprint.chars().all(is_plain) {
        return wrong("fingerprint", "made of letters, digits, `-` and `_`");
    }
    let path = Path::new(&entry.file.path);
    let leaves = path.components().any(|part| part == Component::ParentDir);
    if !path.is_absolute() || leaves || entry.file.path.contains(char::is_control) {
        return wrong("path", "an absolute path without `..` and control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nixos_agent::SecretFile;

    use super::*;

    #[test]
    fn texts_of_a_request_cannot_leave_their_path_or_line() {
        let entry = |path: &str, fingerprint: &str| SecretEntry {
            file: SecretFile {
                name: "token".parse().unwrap(),
                path: path.to_owned(),
                user: "root".to_owned(),
                group: "root".to_owned(),
                mode: 0o400,
                restart: vec![],
                reload: vec![],
                persist: false,
            },
            fingerprint: fingerprint.to_owned(),
            content: None,
        };
        assert!(check_entry(&entry("/run/keys/a token", "aZ0-_")).is_ok());
        for (path, fingerprint) in [
            ("/run/keys/x", "../x"),
            ("/run/keys/x", ""),
            ("/run/keys/x", "a\tb"),
            ("/run/keys/../../etc/shadow", "a"),
            ("run/keys/x", "a"),
            ("/run/keys/x\ty", "a"),
            ("/run/keys/x\ny", "a"),
        ] {
            assert!(check_entry(&entry(path, fingerprint)).is_err(), "{path} {fingerprint}");
        }
    }
}
