//! Objections: why a login that works now would not work with a system.

use nixos_agent::Login;

/// What keeps a login out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Objection {
    /// The system has no SSH server.
    NoServer,
    /// The SSH server does not start with its configuration, for this reason.
    BadConfiguration(String),
    /// The SSH server listens at these other places.
    Elsewhere(Vec<String>),
    /// The SSH server does not let the user in, because of this line of its configuration.
    Refused(String),
    /// The SSH server does not accept the key of the login, which has this fingerprint.
    UnknownKey(String),
    /// The system does not have the user.
    NoUser,
    /// The system has the user, who cannot log in for this reason.
    Account(String),
    /// The firewall does not let connections to the port through.
    Firewall,
    /// The machine would not have the address that it was reached at.
    Address,
}

impl Objection {
    /// Whether both are of one kind, and for the lines of an SSH server, about one setting.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refused(one), Self::Refused(other)) => {
                one.split_whitespace().next() == other.split_whitespace().next()
            }
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }

    /// The objection as a part of a sentence.
    pub(super) fn describe(&self, login: &Login) -> String {
        let Login { user, address, port, .. } = login;
        match self {
            Self::NoServer => "it has no SSH server".to_owned(),
            Self::BadConfiguration(message) => {
                format!("its SSH server does not accept its configuration ({message})")
            }
            Self::Elsewhere(places) => {
                format!(
                    "its SSH server listens at {}, and this login came in at {address}, port {port}",
                    places.join(", ")
                )
            }
            Self::Refused(line) => format!("its SSH server does not let {user} in, because of `{line}`"),
            Self::UnknownKey(key) => {
                format!("the key of this login ({key}) is not among those that {user} may log in with")
            }
            Self::Account(reason) => reason.clone(),
            Self::NoUser => format!("it has no user {user}"),
            Self::Firewall => format!("its firewall does not let connections to port {port} through"),
            Self::Address => {
                format!("the machine would not have the address {address}, at which it was reached")
            }
        }
    }
}
