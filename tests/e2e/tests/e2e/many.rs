//! More machines than a process may have connections open: one host answers at the addresses of all of them.

use crate::support::{HEAD, set_up, world};

/// More than are kept open, and with all of them open too many for the limit below.
const MACHINES: usize = 220;
/// What a process may have open; a connection takes four.
const OPEN_FILES: usize = 512;

#[test]
fn hundreds_of_machines_need_no_hundreds_of_connections() {
    let world = world(&["web"]);
    let (control, web) = (world.lab.control(), world.lab.host("web"));
    web.exec(&["ip", "route", "add", "local", "10.99.0.0/24", "dev", "lo"]).unwrap();
    // It stands for many, who would not be so shy.
    web.write_file("/etc/ssh/sshd_config.d/many.conf", "MaxStartups 100\n").unwrap();
    web.exec(&["systemctl", "reload", "ssh"]).unwrap();
    control.exec(&["ip", "route", "add", "10.99.0.0/24", "via", &web.address().to_string()]).unwrap();
    let main = format!(
        "{HEAD}provider \"nixos\" {{ ssh = {{ host_key_policy = \"off\" }} }}\nresource \
         \"nixos_deployment\" \"all\" {{\n  network = \"${{path.module}}/network.nix\"\n  machines = \
         {{}}\n}}\n"
    );
    set_up(&world, &main, "{ }");
    let machines: Vec<String> = (1..=MACHINES).map(|n| format!("m{n}=10.99.0.{n}")).collect();
    let script = format!(
        "ulimit -n {OPEN_FILES}; TF_IN_AUTOMATION=1 exec terraform -chdir={} import -no-color \
         nixos_deployment.all {}",
        e2e::DIRECTORY,
        machines.join(",")
    );
    let imported = control.exec(&["sh", "-c", &script]).unwrap();
    assert!(imported.success, "{}{}", imported.stdout, imported.stderr);
    let systems =
        world.resource("nixos_deployment.all")["systems"].as_object().map_or(0, serde_json::Map::len);
    assert_eq!(systems, MACHINES, "each of them has been asked");
    let left = control.exec(&["pgrep", "-x", "ssh"]).unwrap().stdout;
    assert!(left.is_empty(), "no connection outlives the provider: {left}");
}
