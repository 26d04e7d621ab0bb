//! Renders the `ssh_config`s of one connection.
//!
//! Our lines stand in a `Host` block before the user's and the system's own files, and `ssh` takes the first value it
//! finds: what the endpoint says wins, everything else (`ProxyCommand`, agents, FIDO keys, algorithms) stays as the
//! user has it. What is made for people who sit at a terminal is set to what a program needs, whatever the user's
//! files say.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::values::{host, in_quotes, option_keyword, quoted, word};
use super::version::Version;
use super::{Bastion, Endpoint, HostKeyPolicy, SshError};

/// What a master prints on its standard output once it is there.
pub(super) const READY: &str = "nixos-activator: ready";

/// What the master of a machine prints there before that, once the login has worked.
pub(super) const LOGGED_IN: &str = "nixos-activator: logged in";

/// What `ssh` calls the other end of a connection that is there: it is never looked up.
pub(super) const ALIAS: &str = "nixos-machine";

/// A key as `ssh` is told about it.
#[derive(Debug)]
pub(super) struct Identity {
    /// The file with the private key; where an agent has that, with its public half.
    pub(super) file: PathBuf,
    /// Who is asked for private keys.
    pub(super) agent: KeyAgent,
}

/// Which agent `ssh` asks.
#[derive(Debug)]
pub(super) enum KeyAgent {
    /// The user's: the key may need a passphrase that was typed there.
    Users,
    /// None. The keys of the user's agent would be tried before the file, and servers count tries.
    None,
    /// One of our own, at this socket.
    Own(PathBuf),
}

impl Identity {
    fn lines(&self) -> Result<Vec<String>, SshError> {
        let mut lines =
            vec![format!("IdentityFile {}", quoted(&self.file)?), "IdentitiesOnly yes".to_owned()];
        match &self.agent {
            KeyAgent::Users => {}
            KeyAgent::None => lines.push("IdentityAgent none".to_owned()),
            KeyAgent::Own(socket) => lines.push(format!("IdentityAgent {}", quoted(socket)?)),
        }
        Ok(lines)
    }
}

/// What the configuration of a connection depends on besides where it goes.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    /// The key of this login, where there is one.
    pub(super) key: Option<&'a Identity>,
    /// Pinned and newly learned host keys.
    pub(super) known_hosts: &'a Path,
    /// The command whose streams lead to the machine; `None`: as the user's files say.
    pub(super) through: Option<&'a str>,
    /// The user's home directory.
    pub(super) home: Option<&'a Path>,
    /// The OpenSSH that reads it.
    pub(super) version: Version,
}

/// What holds for every connection of ours: there is no terminal, and nothing but our session goes through it.
const FIXED: &[&str] = &[
    "BatchMode yes",
    "ConnectionAttempts 1",
    "ForwardAgent no",
    "ForwardX11 no",
    "ClearAllForwardings yes",
    "Tunnel no",
    "RemoteCommand none",
    "RequestTTY no",
    "VisualHostKey no",
    // A fingerprint of the user's choosing, never a new one written into the user's own file.
    "UpdateHostKeys no",
];

/// The same, with the releases that know it first.
const FIXED_SINCE: &[(Version, &str)] = &[
    ((8, 5), "LogVerbose none"),
    ((8, 7), "SessionType default"),
    ((8, 7), "StdinNull no"),
    ((8, 7), "ForkAfterAuthentication no"),
    ((9, 7), "ChannelTimeout none"),
];

/// What `options` may change.
const DEFAULTS: &[&str] = &["ServerAliveInterval 10", "ServerAliveCountMax 3"];

/// Keywords of which every line counts, not only the first.
const CUMULATIVE: &[&str] = &["CertificateFile", "IdentityFile", "SendEnv", "SetEnv"];

/// Lines of one `Host` block.
struct Block(Vec<String>);

impl Block {
    fn new(user: Option<&str>, port: Option<u16>, around: &Surroundings<'_>) -> Result<Self, SshError> {
        let mut lines = vec![];
        lines.extend(user.map(|user| format!("User {user}")));
        lines.extend(port.map(|port| format!("Port {port}")));
        lines.extend(FIXED.iter().map(|line| (*line).to_owned()));
        let known = FIXED_SINCE.iter().filter(|(since, _)| *since <= around.version);
        lines.extend(known.map(|(_, line)| (*line).to_owned()));
        if let Some(key) = around.key {
            lines.extend(key.lines()?);
        }
        Ok(Self(lines))
    }

    fn add(&mut self, line: impl Into<String>) {
        self.0.push(line.into());
    }

    /// Adds what every connection has, in a way of its own: what `ssh` says once the login has worked, how long
    /// that may take.
    fn add_ours(&mut self, said: &str, connect_timeout: Duration) {
        // One level less, and a refused login is not told.
        self.add("LogLevel INFO");
        self.add("PermitLocalCommand yes");
        self.add(format!("LocalCommand echo '{said}'"));
        self.add(format!("ConnectTimeout {}", connect_timeout.as_secs().max(1)));
    }

    /// Adds a line of `options`, which must not be one that has no effect.
    fn add_option(&mut self, option: &str) -> Result<(), SshError> {
        let keyword = option_keyword(option)?;
        let is = |other: &str| keyword.eq_ignore_ascii_case(other);
        let jumps = is("ProxyJump") || is("ProxyCommand");
        let ours = self.0.iter().find(|line| {
            let word = line.split(' ').next().unwrap_or_default();
            is(word) && !CUMULATIVE.contains(&word) || jumps && word == "ProxyCommand"
        });
        if let Some(ours) = ours {
            return Err(SshError::Option {
                found: option.to_owned(),
                ours: ours.clone(),
                instead: instead(keyword),
            });
        }
        self.add(option);
        Ok(())
    }

    /// The whole configuration: this block for `host`, then the user's and the system's files. The hosts that those
    /// jump over read it as well.
    fn render(mut self, host: &str, around: &Surroundings<'_>) -> Result<String, SshError> {
        self.0.extend(DEFAULTS.iter().map(|line| (*line).to_owned()));
        let mut text = format!("Host {host}\n");
        for line in &self.0 {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str("Match all\n  BatchMode yes\n  LogLevel INFO\n");
        if let Some(home) = around.home {
            let _ = writeln!(text, "  Include {}", in_quotes(&home.join(".ssh/config"))?);
        }
        text.push_str("  Include /etc/ssh/ssh_config\n");
        Ok(text)
    }
}

/// The attribute that says what a keyword in `options` does not.
fn instead(keyword: &str) -> Option<&'static str> {
    let attributes = [
        ("User", "user"),
        ("Port", "port"),
        ("ConnectTimeout", "ssh.connect_timeout"),
        ("Compression", "copy.compress"),
        ("StrictHostKeyChecking", "host_key_policy"),
        ("UserKnownHostsFile", "host_public_key"),
        ("GlobalKnownHostsFile", "host_public_key"),
        ("KnownHostsCommand", "host_public_key"),
        ("IdentitiesOnly", "private_key_file"),
        ("IdentityAgent", "private_key_file"),
        ("ProxyJump", "bastion"),
        ("ProxyCommand", "bastion"),
    ];
    attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case(keyword)).map(|(_, attribute)| *attribute)
}

/// Whether a line of `options` can have an effect, as far as the line alone tells.
pub fn check_option(line: &str) -> Result<(), SshError> {
    let newest = (u32::MAX, 0);
    let around =
        Surroundings { key: None, known_hosts: Path::new("/"), through: None, home: None, version: newest };
    let mut block = Block::new(Some("root"), None, &around)?;
    block.add_ours(LOGGED_IN, Duration::ZERO);
    block.add("StrictHostKeyChecking yes");
    block.add_option(line)
}

/// The configuration of a connection to a machine, or what in the endpoint cannot stand there.
pub(super) fn render(endpoint: &Endpoint, around: &Surroundings<'_>) -> Result<String, SshError> {
    let mut block = Block::new(Some(word("user", &endpoint.user)?), endpoint.port, around)?;
    block.add_ours(LOGGED_IN, endpoint.connect_timeout);
    for line in host_key_lines(endpoint, around)? {
        block.add(line);
    }
    if let Some(command) = around.through {
        block.add(format!("ProxyCommand {command}"));
        block.add("ProxyUseFdpass no");
    }
    if endpoint.compress {
        block.add("Compression yes");
    }
    for option in &endpoint.options {
        block.add_option(option)?;
    }
    block.render(host("host", &endpoint.host)?, around)
}

/// The configuration of the connection to a bastion, which has no session: many may log in there who have no shell.
pub(super) fn render_bastion(
    bastion: &Bastion,
    connect_timeout: Duration,
    around: &Surroundings<'_>,
) -> Result<String, SshError> {
    let user = bastion.user.as_deref().map(|user| word("bastion.user", user)).transpose()?;
    let mut block = Block::new(user, bastion.port, around)?;
    block.add_ours(READY, connect_timeout);
    if bastion.host_public_key.is_some() {
        for line in pinned(around)? {
            block.add(line);
        }
        block.add("StrictHostKeyChecking yes");
    }
    block.render(host("bastion.host", &bastion.host)?, around)
}

/// The configuration for those who use a connection that is there. None of the user's files is read, and when the
/// connection is gone no other is made.
pub(super) fn render_shared() -> String {
    let gone = "ProxyCommand sh -c 'echo the shared connection is gone >&2; exit 1'";
    format!("Host *\n  BatchMode yes\n  LogLevel ERROR\n  ForwardAgent no\n  ForwardX11 no\n  {gone}\n")
}

/// Only the keys of our own file count, wherever the machine is.
fn pinned(around: &Surroundings<'_>) -> Result<Vec<String>, SshError> {
    let mut lines = vec![
        format!("UserKnownHostsFile {}", quoted(around.known_hosts)?),
        "GlobalKnownHostsFile /dev/null".to_owned(),
        "CheckHostIP no".to_owned(),
        "VerifyHostKeyDNS no".to_owned(),
        "NoHostAuthenticationForLocalhost no".to_owned(),
    ];
    if around.version >= (8, 5) {
        lines.push("KnownHostsCommand none".to_owned());
    }
    Ok(lines)
}

fn host_key_lines(endpoint: &Endpoint, around: &Surroundings<'_>) -> Result<Vec<String>, SshError> {
    let strict = |value: &str| format!("StrictHostKeyChecking {value}");
    Ok(match (endpoint.host_key_policy, &endpoint.host_public_key) {
        (HostKeyPolicy::Off, _) => [pinned(around)?, vec![strict("no")]].concat(),
        (_, Some(_)) => [pinned(around)?, vec![strict("yes")]].concat(),
        (HostKeyPolicy::Strict, None) => vec![strict("yes")],
        (HostKeyPolicy::AcceptNew, None) => {
            let mut known = format!("UserKnownHostsFile {}", quoted(around.known_hosts)?);
            if let Some(home) = around.home {
                let _ = write!(known, " {}", quoted(&home.join(".ssh/known_hosts"))?);
            }
            vec![
                known,
                strict("accept-new"),
                "HashKnownHosts no".to_owned(),
                "NoHostAuthenticationForLocalhost no".to_owned(),
            ]
        }
    })
}

#[cfg(test)]
mod tests {
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
            compress: false,
        }
    }

    fn around() -> Surroundings<'static> {
        Surroundings {
            key: None,
            known_hosts: Path::new("/t/known_hosts"),
            through: None,
            home: Some(Path::new("/home/u")),
            version: (9, 2),
        }
    }

    fn rendered(endpoint: &Endpoint) -> String {
        render(endpoint, &around()).unwrap()
    }

    #[test]
    fn a_pinned_key_is_the_only_one_accepted() {
        let text = rendered(&Endpoint { host_public_key: Some("ssh-ed25519 AAAA".into()), ..endpoint() });
        assert!(text.contains("StrictHostKeyChecking yes"), "{text}");
        assert!(text.contains("GlobalKnownHostsFile /dev/null"), "{text}");
        assert!(text.contains("KnownHostsCommand none"), "{text}");
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
        assert!(text.ends_with("Include \"/home/u/.ssh/config\"\n  Include /etc/ssh/ssh_config\n"), "{text}");
    }

    #[test]
    fn an_old_ssh_sees_no_keyword_that_it_does_not_know() {
        let text = render(&endpoint(), &Surroundings { version: (8, 4), ..around() }).unwrap();
        assert!(!text.contains("SessionType") && !text.contains("LogVerbose"), "{text}");
        assert!(rendered(&endpoint()).contains("SessionType default"));
    }

    #[test]
    fn nothing_can_break_out_of_its_line() {
        for host in ["-oProxyCommand=x", "a b", "a\nb", "", "a*", "[web]", "[]", "a]"] {
            assert!(render(&Endpoint { host: host.into(), ..endpoint() }, &around()).is_err(), "{host:?}");
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
            assert!(render(&endpoint, &around()).is_err(), "{option:?}");
        }
    }

    #[test]
    fn an_option_without_effect_is_refused() {
        let with = |option: &str, endpoint: Endpoint, through| {
            let endpoint = Endpoint { options: vec![option.into()], ..endpoint };
            render(&endpoint, &Surroundings { through, ..around() })
        };
        for (option, said) in [
            ("forwardagent=yes", "every connection has `ForwardAgent no`"),
            ("User admin", "set `user` instead"),
            ("StrictHostKeyChecking=no", "set `host_key_policy` instead"),
            ("SessionType=none", "every connection has `SessionType default`"),
        ] {
            let text = with(option, endpoint(), None).unwrap_err().to_string();
            assert!(text.contains(option) && text.contains(said), "{text}");
            assert_eq!(check_option(option).unwrap_err().to_string(), text);
        }
        let text = with("ProxyJump=gate", endpoint(), Some("ssh -W")).unwrap_err().to_string();
        assert!(text.contains("set `bastion` instead"), "{text}");
        let text = with("Port=1", Endpoint { port: Some(2), ..endpoint() }, None).unwrap_err().to_string();
        assert!(text.contains("set `port` instead"), "{text}");
        for option in
            ["ProxyJump=gate", "Port=1", "ServerAliveInterval=60", "IdentityFile=/k", "Compression yes"]
        {
            let text = with(option, endpoint(), None).unwrap();
            assert!(text.contains(option), "{text}");
            assert!(check_option(option).is_ok());
        }
    }
}
