//! What may stand in an `ssh_config` and on the command line of `ssh`: nothing breaks out of its line, nothing looks
//! like an option.

use std::path::Path;

use super::SshError;

/// The line of `known_hosts` that pins `key` for whatever name the host goes by.
pub(super) fn known_hosts_line(key: &str) -> Result<String, SshError> {
    let mut words = key.split_whitespace();
    match (words.next(), words.next()) {
        (Some(kind), Some(blob)) if !kind.starts_with('@') && !key.contains('\n') => {
            Ok(format!("* {kind} {blob}\n"))
        }
        _ => Err(SshError::Setting {
            name: "host_public_key",
            found: key.to_owned(),
            expected: "one line as in known_hosts: `ssh-ed25519 AAAA…`",
        }),
    }
}

/// A host name as `ssh` wants it: it reaches the command line, so it must not look like an option, and an IPv6
/// address has no brackets there.
pub(super) fn host<'a>(attribute: &'static str, name: &'a str) -> Result<&'a str, SshError> {
    let legal =
        |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c) || (!c.is_ascii() && c.is_alphanumeric());
    let bare =
        name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).filter(|name| name.contains(':'));
    let bare = bare.unwrap_or(name);
    if bare.is_empty() || bare.starts_with('-') || !bare.chars().all(legal) {
        return Err(SshError::Setting {
            name: attribute,
            found: name.to_owned(),
            expected: "a host name, an address or an alias from ssh_config",
        });
    }
    Ok(bare)
}

pub(super) fn word<'a>(name: &'static str, text: &'a str) -> Result<&'a str, SshError> {
    if text.is_empty()
        || text.starts_with('-')
        || text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"')
    {
        return Err(SshError::Setting { name, found: text.to_owned(), expected: "one word" });
    }
    Ok(text)
}

/// The keyword of one line of `options`.
pub(super) fn option_keyword(text: &str) -> Result<&str, SshError> {
    let keyword = text.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
    let opens_block = ["host", "match", "include"].iter().any(|word| keyword.eq_ignore_ascii_case(word));
    if text.contains(['\n', '\r'])
        || opens_block
        || keyword.is_empty()
        || !keyword.chars().all(|c| c.is_ascii_alphanumeric())
    {
        return Err(SshError::Setting {
            name: "options",
            found: text.to_owned(),
            expected: "one line of ssh_config such as `Compression=yes`",
        });
    }
    Ok(keyword)
}

pub(super) fn in_quotes(path: &Path) -> Result<String, SshError> {
    let text = path.to_str().unwrap_or_default();
    if text.is_empty() || text.contains(['"', '\n', '\\']) {
        return Err(SshError::Setting {
            name: "private_key_file",
            found: path.display().to_string(),
            expected: "a path without quotes, backslashes and line breaks",
        });
    }
    Ok(format!("\"{text}\""))
}

/// A path where `%` introduces a token.
pub(super) fn quoted(path: &Path) -> Result<String, SshError> {
    Ok(in_quotes(path)?.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_key_is_one_line() {
        assert!(known_hosts_line("ssh-ed25519 AAAA\n* ssh-rsa BBBB").is_err());
        assert!(known_hosts_line("@revoked ssh-ed25519 AAAA").is_err());
        assert_eq!(known_hosts_line("ssh-ed25519 AAAA root@web").unwrap(), "* ssh-ed25519 AAAA\n");
    }

    #[test]
    fn addresses_of_ipv6_are_given_to_ssh_without_brackets() {
        for name in ["fd00::7", "[fd00::7]", "fe80::1%eth0", "[fe80::1%eth0]"] {
            assert_eq!(host("host", name).unwrap(), name.trim_matches(['[', ']']));
        }
    }
}
