//! The addresses of a machine.

use std::net::IpAddr;

use nixos_activator::facts;

/// The addresses of a machine that its specification may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Addresses {
    /// On the internet, as `198.51.100.7`.
    pub(crate) public_ipv4: Option<String>,
    /// In its own network, as `10.0.0.7`.
    pub(crate) private_ipv4: Option<String>,
    /// On the internet, as `2001:db8::7`.
    pub(crate) public_ipv6: Option<String>,
}

impl Addresses {
    /// What one address, at which the machine is reached, tells. A loopback address, and an IPv6 address of one site
    /// or link, tell nothing.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) if facts::is_private(address) => {
                Self { private_ipv4: Some(address.to_string()), ..Self::default() }
            }
            IpAddr::V4(address) if !address.is_loopback() => {
                Self { public_ipv4: Some(address.to_string()), ..Self::default() }
            }
            IpAddr::V6(address) if facts::is_public(address) => {
                Self { public_ipv6: Some(address.to_string()), ..Self::default() }
            }
            _ => Self::default(),
        }
    }

    /// The literal address among the names of a host, perhaps in brackets.
    pub(crate) fn literal(host: &str) -> Option<IpAddr> {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inner.unwrap_or(host).parse().ok()
    }
}
