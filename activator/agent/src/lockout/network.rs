//! Which addresses a system gives its machine.

use std::net::IpAddr;
use std::path::Path;

use super::etc_files::is_managed;
use super::unit_files::{programs, unit};

/// Whether the machine certainly does not have the address with this system: no file of the system names the address,
/// and nothing in it gets addresses from elsewhere. An IPv6 address may come from any router, so it is never certain.
pub(super) fn lacks(system: &Path, address: IpAddr) -> bool {
    address.to_canonical().is_ipv4() && !gets_addresses(system) && !names(system, address.to_canonical())
}

/// Units that give a machine addresses which no file of its system names.
const ADDRESS_UNITS: [&str; 10] = [
    "dhcpcd.service",
    "NetworkManager.service",
    "cloud-init.service",
    "connman.service",
    "keepalived.service",
    "tailscaled.service",
    "zerotierone.service",
    "netbird",
    "openvpn-",
    "wg-quick-",
];

/// Whether something in the system gets addresses from elsewhere.
fn gets_addresses(system: &Path) -> bool {
    let units = std::fs::read_dir(system.join("etc/systemd/system")).into_iter().flatten().flatten();
    let mut names = units.map(|unit| unit.file_name().to_string_lossy().into_owned());
    names.any(|name| ADDRESS_UNITS.iter().any(|start| name.starts_with(start)))
        || texts(system).iter().any(|text| text.lines().any(asks_dhcp))
        || has_other_networkd_files()
}

/// Whether networkd has files that belong to no system. Hosts of containers write such files.
fn has_other_networkd_files() -> bool {
    ["/etc/systemd/network", "/run/systemd/network"].iter().any(|directory| {
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
        files.map(|file| file.path()).any(|file| !is_managed(&file))
    })
}

/// systemd.network(5): `DHCP=` is a boolean, `ipv4` or `ipv6`.
fn asks_dhcp(line: &str) -> bool {
    let value = line.trim().strip_prefix("DHCP=");
    value.is_some_and(|value| !["no", "false", "0", "off", "n", "f", "ipv6"].contains(&value.trim()))
}

/// Whether a file of the system names the address.
fn names(system: &Path, address: IpAddr) -> bool {
    let address = address.to_string();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == ':';
    texts(system).iter().any(|text| text.split(|c| !is_part(c)).any(|word| word == address))
}

/// The texts of a system that say which addresses the machine has: files of networkd, and scripts of units that set
/// addresses.
fn texts(system: &Path) -> Vec<String> {
    let files = |directory: &str| {
        let entries = std::fs::read_dir(system.join("etc/systemd").join(directory));
        entries.into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok())
    };
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let networks = files("network").filter_map(|name| read(&system.join("etc/systemd/network").join(name)));
    let units = files("system")
        .filter(|name| name.starts_with("network-") || name.starts_with("wireguard-"))
        .flat_map(|name| {
            let unit = unit(system, &name).unwrap_or_default();
            let scripts: Vec<String> =
                programs(&unit).filter_map(|program| read(Path::new(program))).collect();
            scripts.into_iter().chain([unit])
        });
    networks.chain(units).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_lost_when_nothing_gives_it() {
        let system = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = system.path().join("etc/systemd").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let lacks = || lacks(system.path(), "10.0.0.2".parse().unwrap());
        assert!(lacks());
        write("network/40-eth0.network", "[Network]\nDHCP=no\nAddress=10.0.0.22/24\n");
        assert!(lacks(), "that is another one");
        write("network/40-eth0.network", "[Network]\nAddress=10.0.0.2/24\n");
        assert!(!lacks());
        write("network/40-eth0.network", "[Network]\nDHCP=ipv4\n");
        assert!(!lacks(), "a DHCP server may give it");
        write("network/40-eth0.network", "");
        let script = system.path().join("script");
        std::fs::write(&script, "ip addr add \"10.0.0.2/24\" dev \"eth0\"\n").unwrap();
        write(
            "system/network-addresses-eth0.service",
            &format!("[Service]\nExecStart={}\n", script.display()),
        );
        assert!(!lacks());
    }
}
