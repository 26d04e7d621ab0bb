//! Which OpenSSH there is. A keyword that it does not know makes `ssh` refuse the whole configuration.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio::sync::OnceCell;

/// A release of OpenSSH: (9, 2).
pub(super) type Version = (u32, u32);

/// The version of this `ssh`, asked once; the oldest there could be where it does not say.
pub(super) async fn version(ssh: &Path) -> Version {
    static FOUND: OnceCell<Version> = OnceCell::const_new();
    let ask = async || {
        let output = Command::new(ssh).arg("-V").stdin(Stdio::null()).output().await.ok();
        let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
        text.as_deref().and_then(parse).unwrap_or((0, 0))
    };
    *FOUND.get_or_init(ask).await
}

/// Reads `OpenSSH_9.2p1 Debian-2+deb12u6, OpenSSL 3.0.19`.
fn parse(text: &str) -> Option<Version> {
    let (_, rest) = text.split_once("OpenSSH_")?;
    // Windows' has more words there.
    let rest = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_ssh_prints_them() {
        assert_eq!(parse("OpenSSH_9.2p1 Debian-2+deb12u6, OpenSSL 3.0.19 27 Jan 2026"), Some((9, 2)));
        assert_eq!(parse("OpenSSH_10.0p2, LibreSSL 3.3.6"), Some((10, 0)));
        assert_eq!(parse("OpenSSH_for_Windows_9.5p1"), Some((9, 5)));
        assert_eq!(parse("dropbear"), None);
    }
}
