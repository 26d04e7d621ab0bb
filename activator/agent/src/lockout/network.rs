//! Which addresses a system gives its machine.

use std::net::IpAddr;
use std::path::Path;

use super::{is_managed, programs, unit};

/// Whether the machine certainly has not got the address with this system: nothing in it names the address, and nothing asks
/// others for one. An IPv6 address may come with any router's advertisement.
pub(super) fn lacks(system: &Path, address: IpAddr) -> bool {
    address.to_canonical().is_ipv4() && !asks_others(system) && !names(system, address.to_canonical())
}

/// Units that give a machine addresses which no file of its system names.
const OTHERS: [&str; 10] = [
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

fn asks_others(system: &Path) -> bool {
    let units = std::fs::read_dir(system.join("etc/systemd/system")).into_iter().flatten().flatten();
    let mut names = units.map(|unit| unit.file_name().to_string_lossy().into_owned());
    names.any(|name| OTHERS.iter().any(|other| name.starts_with(other)))
        || texts(system).iter().any(|text| text.lines().any(asks_dhcp))
        || somebody_configures_networkd()
}

/// Whether there are files of networkd that belong to no system: hosts of containers write them.
fn somebody_configures_networkd() -> bool {
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

fn names(system: &Path, address: IpAddr) -> bool {
    let address = address.to_string();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == ':';
    texts(system).iter().any(|text| text.split(|c| !is_part(c)).any(|word| word == address))
}

/// Whatever in a system says which addresses it has: files of networkd, and the scripts of units that set addresses.
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
        assert!(!lacks(), "others may give it");
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
