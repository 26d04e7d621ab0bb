//! Releases of Nix, as its variants print them.

/// A release of Nix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// E.g. 2.
    pub major: u32,
    /// E.g. 26.
    pub minor: u32,
}

impl Version {
    /// Reads `nix (Nix) 2.24.9`, `nix (Determinate Nix 3.6.2) 2.29.0`, `nix (Lix, like Nix) 2.91.1`.
    pub(super) fn parse(output: &str) -> Option<Self> {
        let last = output.lines().next()?.split_whitespace().last()?;
        let mut parts = last.split('.');
        let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse();
        let major = number(parts.next()?).ok()?;
        let minor = number(parts.next()?).ok()?;
        Some(Self { major, minor })
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_nixes_are_read() {
        let read = |text| Version::parse(text).map(|v| (v.major, v.minor));
        assert_eq!(read("nix (Nix) 2.8.0\n"), Some((2, 8)));
        assert_eq!(read("nix (Nix) 2.31pre20250712_b1245123"), Some((2, 31)));
        assert_eq!(read("nix (Determinate Nix 3.6.2) 2.29.0"), Some((2, 29)));
        assert_eq!(read("nix (Lix, like Nix) 2.91.1"), Some((2, 91)));
        assert_eq!(read("command not found"), None);
        assert_eq!(read(""), None);
    }
}
