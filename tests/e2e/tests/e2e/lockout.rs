//! Systems that would keep us out, by what their files say: they are refused before anything is touched.

use e2e::World;

use crate::support::{apply, fails_saying, no_changes, one, plan, says, set_up, site, succeeds, world};

/// A system whose files in `/etc` say how to get in, with parts of them replaced.
struct Doors {
    sshd: String,
    keys: String,
    socket: &'static str,
    network: String,
    more: String,
}

impl Doors {
    /// All of them as they are.
    fn open(world: &World) -> Self {
        let key = world.lab.host("web").read_file("/root/.ssh/authorized_keys").unwrap();
        Self {
            sshd: "Port 22\\nAuthorizedKeysFile /etc/ssh/authorized_keys.d/%u\\n".into(),
            keys: key.trim().into(),
            socket: "environment.etc.\"systemd/system/sshd.socket\".text = \
                     \"[Socket]\\nListenStream=22\\n\";",
            network: format!("[Network]\\nAddress={}/24\\n", world.lab.host("web").address()),
            more: root(""),
        }
    }

    fn network(&self) -> String {
        let Self { sshd, keys, socket, network, more } = self;
        one(&format!(
            "environment.etc.\"ssh/sshd_config\".text = \"{sshd}\";\n\
             environment.etc.\"ssh/authorized_keys.d/root\".text = \"{keys}\";\n{socket}\n\
             environment.etc.\"systemd/network/40-eth0.network\".text = \"{network}\";\n{more}\n"
        ))
    }
}

/// The three programs of NixOS' firewall as its module writes them, with the port of the SSH server closed, and the
/// unit that runs them.
fn firewall() -> String {
    let shape = include_str!("../../../../activator/agent/src/lockout/firewall/shapes/iptables/plain.txt");
    let mut unit = "[Service]\\n".to_owned();
    for (key, part) in ["ExecStart", "ExecReload", "ExecStop"].iter().zip(shape.split("=== ").skip(1)) {
        let (program, lines) = part.split_once('\n').unwrap();
        let lines = lines.lines().filter(|line| !line.starts_with('+')).filter_map(|line| line.get(2..));
        let script: String = lines.map(|line| format!("{line}\n")).collect();
        unit.push_str(&format!("{key}=@${{pkgs.writeText \"{program}\" ''\n{script}''}} {program}\\n"));
    }
    format!(
        "environment.etc.\"systemd/system/firewall.service\".text = \"{unit}\";\n\
         environment.etc.\"systemd/system/sysinit.target.wants/firewall.service\".text = \"\";\n"
    )
}

/// A list of users with root in it, in the group `root`.
fn root(more: &str) -> String {
    format!(
        "testing.usersGroups = {{ mutableUsers = false; groups = []; users = [ {{ name = \"root\"; group = \
         \"root\"; {more} }} ]; }};"
    )
}

const OTHER_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBTyvGbZ3pAkVHcNNoWqDgkwrxXbBuZSvXxgrBmX1234";

#[test]
fn a_system_that_could_not_let_us_in_is_not_even_tried() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    set_up(&world, &site(&world, &["web"], ""), &Doors::open(&world).network());
    succeeds(&apply(&world));
    let before = world.current_system("web");
    let closed: [(&str, &dyn Fn(&mut Doors)); 12] = [
        ("its SSH server listens at [::]:2222, 0.0.0.0:2222, and this login came in at 10.88.0.", &|doors| {
            doors.sshd = doors.sshd.replace("22", "2222");
        }),
        ("because of `permitrootlogin no`", &|doors| doors.sshd.push_str("PermitRootLogin no\\n")),
        ("does not accept its configuration", &|doors| doors.sshd.push_str("Prot 22\\n")),
        ("is not among those that root may log in with", &|doors| doors.keys = OTHER_KEY.into()),
        ("it has no SSH server", &|doors| doors.socket = ""),
        ("its firewall does not let connections to port 22 through", &|doors| doors.more = firewall()),
        ("because of `allowgroups wheel`", &|doors| doors.sshd.push_str("AllowGroups wheel\\n")),
        ("because of `denygroups root`", &|doors| doors.sshd.push_str("DenyGroups root\\n")),
        ("because of `pubkeyauthentication no`", &|doors| doors.sshd.push_str("PubkeyAuthentication no\\n")),
        ("because of `authenticationmethods publickey,password`", &|doors| {
            doors.sshd.push_str("AuthenticationMethods publickey,password\\n");
        }),
        ("the shell of root is /run/current-system/sw/bin/nologin", &|doors| {
            doors.more = root("shell = \"/run/current-system/sw/bin/nologin\";");
        }),
        ("the machine would not have the address 10.88.0.", &|doors| {
            doors.network = "[Network]\\nAddress=10.88.0.77/24\\n".into();
        }),
    ];
    for action in ["switch", "boot"] {
        world.write("main.tf", &site(&world, &["web"], &format!("action = \"{action}\""))).unwrap();
        for (says_why, close) in &closed {
            let mut doors = Doors::open(&world);
            close(&mut doors);
            world.write("network.nix", &doors.network()).unwrap();
            let run = apply(&world);
            let refused = "The new system was not accepted by machine \"web\"";
            fails_saying(&run, &[refused, says_why, "Nothing was changed", "confirm_timeout = \"0s\""]);
            assert_eq!(world.current_system("web"), before, "{says_why}");
            says(&plan(&world), &["1 to change"]);
        }
    }
    let profile = web.exec(&["readlink", "-f", "/nix/var/nix/profiles/system"]).unwrap();
    assert_eq!(profile.stdout.trim(), before, "nothing was made the one that boots either");

    // What a door that stays closed says is no news, and who does not ask for a login does not get one.
    let mut doors = Doors::open(&world);
    doors.socket = "";
    world.write("network.nix", &doors.network()).unwrap();
    world.write("main.tf", &site(&world, &["web"], "confirm_timeout = \"0s\"")).unwrap();
    succeeds(&apply(&world));
    doors.more = "environment.etc.motd.text = \"hello\";".into();
    world.write("network.nix", &doors.network()).unwrap();
    world.write("main.tf", &site(&world, &["web"], "")).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn a_system_that_cannot_be_switched_to_is_named_as_what_it_is() {
    let world = world(&["web"]);
    let before = world.current_system("web");
    set_up(&world, &site(&world, &["web"], ""), &one("system.switch.enable = false;"));
    fails_saying(&apply(&world), &["`system.switch.enable = false`", "Remove that", "nothing was changed"]);
    assert_eq!(world.current_system("web"), before);
}

#[test]
fn a_kernel_that_does_not_fit_is_not_even_tried() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    web.exec(&["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/boot"]).unwrap();
    let kernel = |kib: usize| {
        one(&format!(
            "boot.kernelPackages.kernel = pkgs.runCommand \"linux-{kib}\" {{ version = \"6.12.{kib}\"; }} \
             ''/bin/busybox mkdir \"$out\"; /bin/busybox head -c {kib}k /dev/zero > \"$out/bzImage\"'';"
        ))
    };
    world.write("network.nix", &kernel(100)).unwrap();
    fails_saying(
        &apply(&world),
        &["/boot has room for 64 KiB of kernels", "need 101 KiB", "Nothing was changed"],
    );
    assert_eq!(world.current_system("web"), before);
    world.write("network.nix", &kernel(10)).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
}
