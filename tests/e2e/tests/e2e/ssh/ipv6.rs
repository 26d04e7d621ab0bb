//! Machines that have no IPv4 address.

use lab::Login;

use crate::support::{HEAD, apply, fails_saying, no_changes, one, set_up, succeeds};

#[test]
fn machines_are_reached_by_their_ipv6_addresses() {
    let world = e2e::World::boot_with(&[("web", Login::ipv6_only())], &|_| {}).unwrap();
    let web = world.lab.host("web");
    let global = web.ipv6().to_string();
    // The zone is the interface of whoever asks.
    let local = format!("{}%eth0", web.link_local().unwrap());
    let main = |host: &str, more: &str| {
        format!(
            "{HEAD}resource \"nixos_machine\" \"web\" {{\n  name = \"web\"\n  ssh = {{ host = \"{host}\", \
             host_public_key = \"{}\" }}\n}}\nresource \"nixos_deployment\" \"site\" {{\n  network = \
             \"${{path.module}}/network.nix\"\n  machines = {{ web = nixos_machine.web.target }}\n  \
             {more}\n}}\n",
            web.host_public_key()
        )
    };
    let text = |text: &str| one(&format!("environment.etc.motd.text = \"{text}\";"));
    set_up(&world, &main(&global, ""), &text("first"));
    for (n, host) in
        [global.clone(), format!("[{global}]"), local.clone(), format!("[{local}]")].iter().enumerate()
    {
        world.write("main.tf", &main(host, "")).unwrap();
        let text_ = format!("reached as {n}");
        world.write("network.nix", &text(&text_)).unwrap();
        succeeds(&apply(&world));
        assert_eq!(web.exec(&["cat", "/etc/motd"]).unwrap().stdout, text_, "{host}");
        no_changes(&world);
        for words in [
            &["status"][..],
            &["ssh", "web", "--", "true"],
            &["exec", "--", "true"],
            &["reboot", "--on", "web"],
        ] {
            let script = format!("cd {} && exec nixos-activator {}", e2e::DIRECTORY, words.join(" "));
            let done = world.lab.control().exec(&["sh", "-c", &script]).unwrap();
            assert!(done.success, "{host}: {words:?}: {}{}", done.stdout, done.stderr);
        }
    }
    world.write("main.tf", &main(&local, "reboot = \"always\"")).unwrap();
    world.write("network.nix", &text("rebooted")).unwrap();
    succeeds(&apply(&world));
    assert_eq!(web.exec(&["cat", "/etc/motd"]).unwrap().stdout, "rebooted");
    no_changes(&world);
    web.link_down().unwrap();
    world.write("network.nix", &text("away")).unwrap();
    fails_saying(&apply(&world), &["Machine \"web\" cannot be reached", &local]);
}

#[test]
fn a_machine_behind_localhost_is_not_the_one_where_terraform_runs() {
    let world = crate::support::world(&["web"]);
    let (control, web) = (world.lab.control(), world.lab.host("web"));
    // As the port of a virtual machine.
    let forward = format!(
        "ssh -fN -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -L 2222:localhost:22 root@{} \
         >/dev/null 2>&1",
        web.address()
    );
    assert!(
        control.exec(&["sh", "-c", &forward]).unwrap().success,
        "it goes into the background once it listens"
    );
    let main = format!(
        "{HEAD}resource \"nixos_deployment\" \"site\" {{\n  network = \"${{path.module}}/network.nix\"\n  \
         machines = {{ web = {{ host = \"localhost\", port = 2222, host_public_key = \"{}\" }} }}\n}}\n",
        web.host_public_key()
    );
    set_up(&world, &main, &one("environment.etc.motd.text = \"here\";"));
    succeeds(&apply(&world));
    assert_eq!(web.exec(&["cat", "/etc/motd"]).unwrap().stdout, "here");
}
