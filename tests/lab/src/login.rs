//! Hosts that are awkward to log in to.

use crate::HostOptions;

/// How a host differs from what whoever logs in expects. Nothing of it is the default.
#[derive(Clone, Debug, Default)]
pub struct Login {
    /// Lines of `sshd_config`, which win over Debian's and the lab's.
    pub sshd: Vec<String>,
    /// The login shell of root: `/usr/bin/fish`, `/bin/tcsh`, `/usr/sbin/nologin`, …
    pub shell: Option<String>,
    /// What a login shell prints before it does what it is asked for, also where nobody sees it.
    pub greeting: Option<String>,
    /// The language of whoever logs in, e.g. `de_DE.UTF-8`.
    pub locale: Option<String>,
    /// It has no IPv4 address: [`crate::Host::ipv6`] and the link-local one are all there are.
    pub ipv6_only: bool,
}

impl Login {
    /// A host whose root has this login shell.
    pub fn with_shell(shell: &str) -> HostOptions {
        Self { shell: Some(shell.to_owned()), ..Self::default() }.into()
    }

    /// A host whose `sshd_config` says this.
    pub fn with_sshd(lines: &[&str]) -> HostOptions {
        Self { sshd: lines.iter().map(|line| (*line).to_owned()).collect(), ..Self::default() }.into()
    }

    /// A host whose shells print this before anything else.
    pub fn with_greeting(text: &str) -> HostOptions {
        Self { greeting: Some(text.to_owned()), ..Self::default() }.into()
    }

    /// A host that speaks this language, e.g. `de_DE.UTF-8`.
    pub fn with_locale(locale: &str) -> HostOptions {
        Self { locale: Some(locale.to_owned()), ..Self::default() }.into()
    }

    /// A host without an IPv4 address.
    pub fn ipv6_only() -> HostOptions {
        Self { ipv6_only: true, ..Self::default() }.into()
    }
}

impl From<Login> for HostOptions {
    fn from(login: Login) -> Self {
        Self { login, ..Self::default() }
    }
}
