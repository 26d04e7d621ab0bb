//! What a machine says about itself: one round trip, one `sh` script, nothing written there.
//!
//! A plan asks machines that no agent was ever pushed to, so this must work with nothing but a POSIX shell.

use std::net::IpAddr;

use nixos_agent::{DeploymentId, Login};
use serde::Serialize;

use crate::StorePath;
use crate::ssh::{Connection, SshError};

/// Everything one look at a machine tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The machine's own name for itself.
    pub hostname: Option<String>,
    /// Nix' name of the platform, e.g. `x86_64-linux`.
    pub system: Option<String>,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub os_release: Option<String>,
    /// `VERSION_ID` of `/etc/os-release`, where that is a NixOS release such as `24.11`.
    pub nixos_release: Option<String>,
    /// `/etc/machine-id`.
    pub machine_id: Option<String>,
    /// Changes with every boot.
    pub boot_id: Option<String>,
    /// What `/run/current-system` points at.
    pub current_system: Option<StorePath>,
    /// What `/run/booted-system` points at.
    pub booted_system: Option<StorePath>,
    /// What the system profile points at.
    pub profile: Option<StorePath>,
    /// The deployment that activated a system last, and that system.
    #[serde(skip)]
    pub deployed: Option<(DeploymentId, StorePath)>,
    /// Which specialisation of the system profile's system it runs; `None` also where it runs that system itself, or
    /// another one.
    pub specialisation: Option<String>,
    /// The number of the system profile's current generation; `None` also where that is not yet the one that boots.
    pub generation: Option<u64>,
    /// Whether the kernel, its modules or the initial RAM disk are others than those booted.
    pub reboot_required: bool,
    /// Units of the system manager that failed.
    pub failed_units: Vec<String>,
    /// Public host keys, the preferred one (ed25519) first.
    pub host_keys: Vec<String>,
    /// The address at which the machine sees this connection arrive.
    pub address: Option<IpAddr>,
    /// This login, as the machine saw it.
    #[serde(skip)]
    pub login: Option<Login>,
    /// The user's id: 0 is root.
    pub uid: Option<u32>,
    /// Whether `nix-store` is there to receive closures.
    pub has_nix: bool,
}

/// Why the facts could not be gathered.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// No connection.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// There is no usable shell at the other end.
    #[error("{host} did not answer like a Unix machine (exit {code:?}): {stderr}")]
    Shell {
        /// The host.
        host: String,
        /// Exit code of `sh`.
        code: Option<i32>,
        /// What it said.
        stderr: String,
    },
}

/// Prints `key=value` lines. Whatever is missing is left out.
const SCRIPT: &str = r#"
PATH="$PATH:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:/usr/sbin:/usr/bin:/sbin:/bin"
say() { [ -z "$2" ] || printf '%s=%s\n' "$1" "$2"; }
line() { [ ! -r "$2" ] || { IFS= read -r text <"$2"; say "$1" "$text"; }; }
goal() { [ ! -e "$1" ] || readlink -f "$1"; }
{
  uname -snm | { read -r kernel name machine; say hostname "$name"; say platform "$machine-$kernel"; }
  if [ -r /etc/os-release ]; then ( . /etc/os-release; say os_release "$PRETTY_NAME"; [ "$ID" != nixos ] || say nixos_release "$VERSION_ID" ); fi
  line machine_id /etc/machine-id
  line boot_id /proc/sys/kernel/random/boot_id
  current="$(goal /run/current-system)"; booted="$(goal /run/booted-system)"; profile="$(goal /nix/var/nix/profiles/system)"
  say current_system "$current"; say booted_system "$booted"; say profile "$profile"
  [ -z "$current" ] || [ "$current" = "$profile" ] || for one in "$profile"/specialisation/*; do
    [ "$(goal "$one")" != "$current" ] || say specialisation "${one##*/}"
  done
  line deployed /var/lib/nixos-agent/deployed
  uncommitted=/var/lib/nixos-agent/uncommitted
  [ -e "$uncommitted" ] && [ "$(cat "$uncommitted")" = "$profile" ] || say generation "$(readlink /nix/var/nix/profiles/system)"
  [ "$current" = "$booted" ] || for part in kernel kernel-modules initrd; do
    now="$(goal "$current/$part")"; before="$(goal "$booted/$part")"
    [ -z "$now" ] || [ -z "$before" ] || [ "$now" = "$before" ] || say reboot_required yes
  done
  for key in /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/ssh_host_*_key.pub; do line host_key "$key"; done
  say connection "$SSH_CONNECTION"
  [ -z "$SSH_CONNECTION" ] || say login "$SSH_CONNECTION $(id -un)"
  say uid "$(id -u)"
  command -v nix-store >/dev/null && say has_nix yes
  systemctl list-units --state=failed --plain --no-legend --no-pager | while read -r unit rest; do say failed_unit "$unit"; done
} 2>/dev/null
say end yes
"#;

/// Asks the machine.
pub async fn gather(machine: &str, connection: &Connection) -> Result<Facts, FactsError> {
    let answer = connection.run(&["sh", "-s"], SCRIPT.as_bytes()).await?;
    let text = answer.text();
    let facts = parse(&text).ok_or_else(|| FactsError::Shell {
        host: connection.endpoint().host.clone(),
        code: answer.code,
        stderr: answer.stderr.trim().to_owned(),
    })?;
    tracing::debug!(machine, ?facts, "facts");
    Ok(facts)
}

impl Facts {
    /// The deployment that has put the running system there, if it is another one than `own`. `None` also where the
    /// system was not put there by a deployment, or an agent of an earlier version did it.
    pub fn deployment_other_than(&self, own: Option<&DeploymentId>) -> Option<&DeploymentId> {
        let (deployment, system) = self.deployed.as_ref()?;
        (Some(deployment) != own && self.current_system.as_ref() == Some(system)).then_some(deployment)
    }
}

/// Reads the script's output; `None` when it did not run to its end.
fn parse(text: &str) -> Option<Facts> {
    let mut facts = Facts::default();
    let mut complete = false;
    for line in text.lines() {
        let Some((key, value)) = line.split_once('=') else {
            continue;
        };
        let text = || Some(value.to_owned());
        match key {
            "hostname" => facts.hostname = text(),
            "platform" => facts.system = system(value),
            "os_release" => facts.os_release = text(),
            "nixos_release" => facts.nixos_release = text(),
            "machine_id" => facts.machine_id = text(),
            "boot_id" => facts.boot_id = text(),
            "current_system" => facts.current_system = value.parse().ok(),
            "booted_system" => facts.booted_system = value.parse().ok(),
            "profile" => facts.profile = value.parse().ok(),
            "deployed" => facts.deployed = deployed(value),
            "specialisation" => facts.specialisation = text(),
            "generation" => facts.generation = generation(value),
            "reboot_required" => facts.reboot_required = true,
            "failed_unit" => facts.failed_units.push(value.to_owned()),
            "host_key" => add_key(&mut facts.host_keys, value),
            "connection" => facts.address = value.split(' ').nth(2).and_then(address),
            "login" => facts.login = login(value),
            "uid" => facts.uid = value.parse().ok(),
            "has_nix" => facts.has_nix = true,
            "end" => complete = true,
            _ => {}
        }
    }
    complete.then_some(facts)
}

/// `x86_64-Linux` as `uname` says it, to `x86_64-linux` as Nix does.
fn system(platform: &str) -> Option<String> {
    let (machine, kernel) = platform.split_once('-')?;
    let machine = match machine {
        "arm64" => "aarch64",
        "i386" | "i486" | "i586" | "i686" => "i686",
        other => other,
    };
    Some(format!("{machine}-{}", kernel.to_lowercase()))
}

/// Client's address and port, server's address and port (ssh(1), `SSH_CONNECTION`), and the user.
fn login(text: &str) -> Option<Login> {
    let mut words = text.split(' ');
    let (client, client_port) = (address(words.next()?)?, words.next()?.parse().ok()?);
    let (address, port) = (address(words.next()?)?, words.next()?.parse().ok()?);
    let user = words.next().filter(|user| !user.is_empty())?.to_owned();
    Some(Login { user, client, client_port, address, port })
}

/// An address; one that is local to a link comes with the machine's interface: `fe80::1%eth0`.
fn address(text: &str) -> Option<IpAddr> {
    text.split('%').next()?.parse().ok()
}

/// The id of a deployment and the system it activated.
fn deployed(text: &str) -> Option<(DeploymentId, StorePath)> {
    let (deployment, system) = text.split_once(' ')?;
    Some((deployment.parse().ok()?, system.parse().ok()?))
}

/// The number in `system-42-link`.
fn generation(link: &str) -> Option<u64> {
    let name = link.rsplit('/').next()?;
    name.strip_prefix("system-")?.strip_suffix("-link")?.parse().ok()
}

/// Keeps kind and key, without the comment, each once.
fn add_key(keys: &mut Vec<String>, line: &str) {
    let key = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    if !key.is_empty() && !keys.contains(&key) {
        keys.push(key);
    }
}

/// Whether an IPv4 address belongs to a private network (RFC 1918) or to a carrier's (RFC 6598).
pub fn is_private(address: std::net::Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    address.is_private() || (a == 100 && (64..128).contains(&b))
}

/// Whether an IPv6 address can be reached on the internet: it is neither a local one of a site (RFC 4193), nor of a
/// link, nor loopback.
pub fn is_public(address: std::net::Ipv6Addr) -> bool {
    let is_global_unicast = address.segments()[0] & 0xe000 == 0x2000;
    is_global_unicast && !address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_read_line_by_line() {
        let facts = parse(
            "hostname=web\nplatform=x86_64-Linux\nnixos_release=24.11\nboot_id=b\ncurrent_system=/nix/store/00000000000000000000000000000000-nixos-system-web-24.11\ngeneration=system-12-link\nhost_key=ssh-ed25519 \
             AAAA root@web\nhost_key=ssh-ed25519 AAAA root@web\nhost_key=ssh-rsa BBBB\nconnection=10.0.0.9 51234 \
             10.0.0.2 22\nlogin=10.0.0.9 51234 10.0.0.2 22 \
             alice\nuid=0\nhas_nix=yes\nfailed_unit=x.service\nend=yes\n",
        )
        .unwrap();
        assert_eq!(facts.system.as_deref(), Some("x86_64-linux"));
        assert_eq!(facts.generation, Some(12));
        assert_eq!(facts.host_keys, ["ssh-ed25519 AAAA", "ssh-rsa BBBB"]);
        assert_eq!(facts.address, Some("10.0.0.2".parse().unwrap()));
        let login = facts.login.unwrap();
        assert_eq!((login.user.as_str(), login.client_port, login.port), ("alice", 51234, 22));
        let local = super::login("fe80::9%eth0 51234 fe80::2%eth0 22 alice").unwrap();
        assert_eq!((local.client, local.address), ("fe80::9".parse().unwrap(), "fe80::2".parse().unwrap()));
        assert_eq!(facts.failed_units, ["x.service"]);
        assert!(facts.has_nix);
    }

    #[test]
    fn the_system_of_another_deployment_is_told_from_ones_own() {
        let system = |name: &str| format!("/nix/store/00000000000000000000000000000000-{name}");
        let runs = |deployed: &str| {
            let line = if deployed.is_empty() { String::new() } else { format!("deployed={deployed}\n") };
            parse(&format!("current_system={}\n{line}end=yes\n", system("new"))).unwrap()
        };
        let (a, b): (DeploymentId, DeploymentId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let by_b = runs(&format!("b {}", system("new")));
        assert_eq!(by_b.deployment_other_than(Some(&a)), Some(&b));
        assert_eq!(by_b.deployment_other_than(None), Some(&b));
        assert_eq!(by_b.deployment_other_than(Some(&b)), None);
        // An administrator has changed it since, no deployment ever came, or the line is cut.
        for nobody in [format!("b {}", system("old")), String::new(), "b".to_owned(), "b /nix".to_owned()] {
            assert_eq!(runs(&nobody).deployment_other_than(Some(&a)), None, "{nobody}");
        }
    }

    #[test]
    fn a_cut_answer_is_no_answer() {
        assert_eq!(parse("hostname=web\nplatform=x86_64-Linux\n"), None);
        assert_eq!(parse("This account is currently not available."), None);
    }

    #[test]
    fn carrier_addresses_count_as_private() {
        assert!(is_private("100.64.0.1".parse().unwrap()));
        assert!(is_private("10.1.2.3".parse().unwrap()));
        assert!(!is_private("100.128.0.1".parse().unwrap()));
        assert!(!is_private("198.51.100.7".parse().unwrap()));
    }

    #[test]
    fn ipv6_addresses_of_a_site_or_link_are_not_public() {
        assert!(is_public("2001:db8::7".parse().unwrap()));
        for local in ["fd00::7", "fe80::1", "::1", "::", "ff02::1"] {
            assert!(!is_public(local.parse().unwrap()), "{local}");
        }
    }
}
