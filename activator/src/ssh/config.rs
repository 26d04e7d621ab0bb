//! Renders the `ssh_config` of one connection.
//!
//! Our lines stand in `Host` blocks before the user's and the system's own files, and `ssh` takes the first value it finds:
//! what the endpoint says wins, everything else (`ProxyCommand`, agents, FIDO keys, algorithms) stays as the user has it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{Bastion, Endpoint, HostKeyPolicy, SshError};

/// The alias under which our configuration knows the bastion.
const BASTION: &str = "nixos-bastion";

/// A key as `ssh` is told about it.
#[derive(Debug)]
pub(super) struct Identity {
    /// The file with the private key; where an agent has that, with its public half.
    pub(super) file: PathBuf,
    /// The socket of the agent that has the private key.
    pub(super) agent: Option<PathBuf>,
}

impl Identity {
    fn lines(&self) -> Result<Vec<String>, SshError> {
        let mut lines =
            vec![format!("IdentityFile {}", quoted(&self.file)?), "IdentitiesOnly yes".to_owned()];
        if let Some(agent) = &self.agent {
            lines.push(format!("IdentityAgent {}", quoted(agent)?));
        }
        Ok(lines)
    }
}

/// The files beside the configuration.
#[derive(Debug)]
pub(super) struct Files {
    /// The key of this login, where there is one.
    pub(super) key: Option<Identity>,
    /// The key for the bastion, where there is one.
    pub(super) bastion_key: Option<Identity>,
    /// Pinned and newly learned host keys of the machine.
    pub(super) known_hosts: PathBuf,
    /// Pinned host keys of the bastion.
    pub(super) bastion_known_hosts: PathBuf,
}

/// The text of `ssh_config`, or what in the endpoint cannot stand there.
pub(super) fn render(endpoint: &Endpoint, files: &Files, home: Option<&Path>) -> Result<String, SshError> {
    let mut text = String::new();
    let mut line = |line: String| {
        let _ = writeln!(text, "{line}");
    };
    line(format!("Host {}", host(&endpoint.host)?));
    line(format!("  User {}", word("user", &endpoint.user)?));
    if let Some(port) = endpoint.port {
        line(format!("  Port {port}"));
    }
    line("  BatchMode yes".to_owned());
    line(format!("  ConnectTimeout {}", endpoint.connect_timeout.as_secs().max(1)));
    line("  ServerAliveInterval 10".to_owned());
    line("  ServerAliveCountMax 3".to_owned());
    line("  ForwardAgent no\n  ForwardX11 no\n  ClearAllForwardings yes".to_owned());
    line("  PermitLocalCommand no\n  RemoteCommand none\n  RequestTTY no".to_owned());
    // A fingerprint of the user's choosing, never a new one written into the user's own file.
    line("  UpdateHostKeys no".to_owned());
    if let Some(key) = &files.key {
        key.lines()?.iter().for_each(|key| line(format!("  {key}")));
    }
    for line_ in host_key_lines(endpoint, files, home)? {
        line(format!("  {line_}"));
    }
    if endpoint.bastion.is_some() {
        line(format!("  ProxyJump {BASTION}"));
    }
    for option in &endpoint.options {
        line(format!("  {}", one_line("options", option)?));
    }
    if let Some(bastion) = &endpoint.bastion {
        for line_ in bastion_lines(bastion, files)? {
            line(line_);
        }
    }
    // Back to "any host" for what the user's files hold.
    line("Match all".to_owned());
    if let Some(home) = home {
        line(format!("Include {}", quoted(&home.join(".ssh/config"))?));
    }
    line("Include /etc/ssh/ssh_config".to_owned());
    Ok(text)
}

fn host_key_lines(endpoint: &Endpoint, files: &Files, home: Option<&Path>) -> Result<Vec<String>, SshError> {
    let own = quoted(&files.known_hosts)?;
    let pinned = vec![
        format!("UserKnownHostsFile {own}"),
        "GlobalKnownHostsFile /dev/null".to_owned(),
        "CheckHostIP no".to_owned(),
    ];
    let strict = |value: &str| format!("StrictHostKeyChecking {value}");
    Ok(match (endpoint.host_key_policy, &endpoint.host_public_key) {
        (HostKeyPolicy::Off, _) => [pinned, vec![strict("no")]].concat(),
        (_, Some(_)) => [pinned, vec![strict("yes")]].concat(),
        (HostKeyPolicy::Strict, None) => vec![strict("yes")],
        (HostKeyPolicy::AcceptNew, None) => {
            let mut known = format!("UserKnownHostsFile {own}");
            if let Some(home) = home {
                let _ = write!(known, " {}", quoted(&home.join(".ssh/known_hosts"))?);
            }
            vec![known, strict("accept-new"), "HashKnownHosts no".to_owned()]
        }
    })
}

fn bastion_lines(bastion: &Bastion, files: &Files) -> Result<Vec<String>, SshError> {
    let mut lines = vec![
        format!("Host {BASTION}"),
        format!("  HostName {}", host(&bastion.host)?),
        "  BatchMode yes".to_owned(),
        "  ClearAllForwardings no".to_owned(),
    ];
    if let Some(port) = bastion.port {
        lines.push(format!("  Port {port}"));
    }
    if let Some(user) = &bastion.user {
        lines.push(format!("  User {}", word("bastion.user", user)?));
    }
    if let Some(key) = &files.bastion_key {
        lines.extend(key.lines()?.iter().map(|line| format!("  {line}")));
    }
    if bastion.host_public_key.is_some() {
        lines.push(format!("  UserKnownHostsFile {}", quoted(&files.bastion_known_hosts)?));
        lines.push("  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes".to_owned());
    }
    Ok(lines)
}

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

/// A host name: it reaches the command line, so it must not look like an option.
pub(super) fn host(name: &str) -> Result<&str, SshError> {
    let legal = |c: char| {
        c.is_ascii_alphanumeric() || "-._:%[]".contains(c) || (!c.is_ascii() && c.is_alphanumeric())
    };
    if name.is_empty() || name.starts_with('-') || !name.chars().all(legal) {
        return Err(SshError::Setting {
            name: "host",
            found: name.to_owned(),
            expected: "a host name, an address or an alias from ssh_config",
        });
    }
    Ok(name)
}

fn word<'a>(name: &'static str, text: &'a str) -> Result<&'a str, SshError> {
    if text.is_empty()
        || text.starts_with('-')
        || text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"')
    {
        return Err(SshError::Setting { name, found: text.to_owned(), expected: "one word" });
    }
    Ok(text)
}

fn one_line<'a>(name: &'static str, text: &'a str) -> Result<&'a str, SshError> {
    let keyword = text.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default();
    let opens_block = ["host", "match", "include"].iter().any(|word| keyword.eq_ignore_ascii_case(word));
    if text.contains(['\n', '\r'])
        || opens_block
        || keyword.is_empty()
        || !keyword.chars().all(|c| c.is_ascii_alphanumeric())
    {
        return Err(SshError::Setting {
            name,
            found: text.to_owned(),
            expected: "one line of ssh_config such as `Compression=yes`",
        });
    }
    Ok(text)
}

fn quoted(path: &Path) -> Result<String, SshError> {
    let text = path.to_str().unwrap_or_default();
    if text.is_empty() || text.contains(['"', '\n', '\\']) {
        return Err(SshError::Setting {
            name: "private_key_file",
            found: path.display().to_string(),
            expected: "a path without quotes, backslashes and line breaks",
        });
    }
    // `%` introduces a token in file names of ssh_config.
    Ok(format!("\"{}\"", text.replace('%', "%%")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Key;
    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint {
            host: "web.example".into(),
            port: None,
            user: "root".into(),
            key: Key::Ambient,
            host_public_key: None,
            host_key_policy: HostKeyPolicy::Strict,
            bastion: None,
            options: vec![],
            elevate: vec![],
            elevate_password: None,
            connect_timeout: Duration::from_secs(7),
        }
    }

    fn files() -> Files {
        Files {
            key: None,
            bastion_key: None,
            known_hosts: "/t/known_hosts".into(),
            bastion_known_hosts: "/t/bastion_known_hosts".into(),
        }
    }

    fn rendered(endpoint: &Endpoint) -> String {
        render(endpoint, &files(), Some(Path::new("/home/u"))).unwrap()
    }

    #[test]
    fn a_pinned_key_is_the_only_one_accepted() {
        let text = rendered(&Endpoint { host_public_key: Some("ssh-ed25519 AAAA".into()), ..endpoint() });
        assert!(text.contains("StrictHostKeyChecking yes"), "{text}");
        assert!(text.contains("GlobalKnownHostsFile /dev/null"), "{text}");
    }

    #[test]
    fn strict_without_a_pin_leaves_known_hosts_to_the_user() {
        let text = rendered(&endpoint());
        assert!(text.contains("StrictHostKeyChecking yes"), "{text}");
        assert!(!text.contains("KnownHostsFile"), "{text}");
    }

    #[test]
    fn the_users_own_files_come_last() {
        let text = rendered(&endpoint());
        assert!(
            text.ends_with("Match all\nInclude \"/home/u/.ssh/config\"\nInclude /etc/ssh/ssh_config\n"),
            "{text}"
        );
    }

    #[test]
    fn nothing_can_break_out_of_its_line() {
        for host in ["-oProxyCommand=x", "a b", "a\nb", "", "a*"] {
            assert!(
                render(&Endpoint { host: host.into(), ..endpoint() }, &files(), None).is_err(),
                "{host:?}"
            );
        }
        for option in [
            "Compression=yes\nProxyCommand=x",
            "Host *",
            "Host\t*",
            "\tMatch all",
            "\"Host\" *",
            "",
            "include /etc/x",
        ] {
            let endpoint = Endpoint { options: vec![option.into()], ..endpoint() };
            assert!(render(&endpoint, &files(), None).is_err(), "{option:?}");
        }
        assert!(known_hosts_line("ssh-ed25519 AAAA\n* ssh-rsa BBBB").is_err());
        assert!(known_hosts_line("@revoked ssh-ed25519 AAAA").is_err());
        assert_eq!(known_hosts_line("ssh-ed25519 AAAA root@web").unwrap(), "* ssh-ed25519 AAAA\n");
    }
}
