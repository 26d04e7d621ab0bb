//! Which machine is it: made anew behind the same address, with another host key, or with another login.

use lab::{Host, HostOptions};

use crate::support::{
    HEAD, SLEEPER, apply, cat, fails_saying, machine, no_changes, one, plan, says, set_up, site, succeeds,
    world,
};

/// Makes a machine one that was just installed: what it was installed with runs, under another machine id, without
/// anything that was brought since.
const REINSTALL: &str = r#"
set -e
id=$(tr -d - </proc/sys/kernel/random/uuid); echo "$id" >/etc/machine-id
first=$(readlink -f /nix/var/nix/profiles/system-1-link)
nix-env -p /nix/var/nix/profiles/system --set "$first" >&2
"$first/bin/switch-to-configuration" switch >&2
rm -rf /run/keys/token /var/lib/nixos-agent
"#;

const RENEW_KEY: &str = "rm /etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f \
                         /etc/ssh/ssh_host_ed25519_key; systemctl restart ssh";

#[track_caller]
fn runs_script(host: &Host, script: &str) {
    let done = host.exec(&["sh", "-c", script]).unwrap();
    assert!(done.success, "{}{}", done.stdout, done.stderr);
}

fn machine_id(host: &Host) -> String {
    host.read_file("/etc/machine-id").unwrap().trim().to_owned()
}

const SECRET: &str = "secrets = { token = { value_wo = \"t\", version = \"1\" } }";

/// The machine runs its system, has its secret, is known for what it is, and nothing is left to do.
#[track_caller]
fn is_deployed(world: &e2e::World, host: &str) {
    let state = world.resource("nixos_deployment.site");
    assert_eq!(state["systems"][host]["toplevel"], world.current_system(host).as_str());
    assert_eq!(cat(world, host, "/run/keys/token"), "t");
    let known = world.resource(&format!("nixos_machine.{host}"));
    if known.is_object() {
        let id = machine_id(world.lab.host(host));
        assert_eq!(
            (&known["machine_id"], &known["target"]["machine_id"]),
            (&id.as_str().into(), &id.as_str().into())
        );
    }
    no_changes(world);
}

#[test]
fn a_machine_that_was_installed_anew_is_deployed_anew() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    set_up(&world, &site(&world, &["web"], SECRET), &one(SLEEPER));
    succeeds(&apply(&world));
    is_deployed(&world, "web");
    let (wanted, first_id) = (world.current_system("web"), machine_id(web));

    // With the same address and host key.
    runs_script(web, REINSTALL);
    assert_ne!((world.current_system("web"), machine_id(web)), (wanted.clone(), first_id));
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["another machine; new:", "secrets added: token"]);
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), wanted);
    is_deployed(&world, "web");

    // Replaced by hand.
    runs_script(web, REINSTALL);
    succeeds(&world.terraform(&["apply", "-auto-approve", "-input=false", "-replace=nixos_machine.web"]));
    assert_eq!(world.current_system("web"), wanted);
    is_deployed(&world, "web");

    // With another host key: nothing is believed until the configuration names it.
    runs_script(web, REINSTALL);
    runs_script(web, RENEW_KEY);
    // Read when the site is written; the one in the file is still the old key.
    let run = plan(&world);
    succeeds(&run);
    says(
        &run,
        &[
            "Warning: The host key of machine \"web\" is not the expected one",
            "host_public_key",
            "No changes.",
        ],
    );
    assert!(!run.text.contains("ssh-keygen") && !run.text.contains("/tmp/"), "{}", run.text);
    world.write("main.tf", &site(&world, &["web"], SECRET)).unwrap();
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), wanted);
    is_deployed(&world, "web");

    // Between plan and apply.
    world.write("network.nix", &one("")).unwrap();
    succeeds(&world.terraform(&["plan", "-input=false", "-out=plan.bin"]));
    let id = machine_id(web);
    runs_script(web, "tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id");
    let run = world.terraform(&["apply", "-input=false", "plan.bin"]);
    fails_saying(
        &run,
        &["Another machine answers in the place of machine \"web\"", &id, &machine_id(web), "Plan again"],
    );
    assert_eq!(world.current_system("web"), wanted, "nothing was changed on it");
    succeeds(&apply(&world));
    is_deployed(&world, "web");
}

#[test]
fn a_machine_that_is_made_anew_in_the_same_apply_is_deployed_to() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    // A resource that makes the server, as those of a cloud do.
    let address = web.address().to_string();
    world.write("reinstall.sh", REINSTALL).unwrap();
    let server = |number: u32| {
        format!(
            "resource \"terraform_data\" \"server\" {{\n  triggers_replace = \"{number}\"\n  input = \
             \"{address}\"\n  provisioner \"local-exec\" {{\n    command = \"[ {number} = 0 ] || ssh -o \
             StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@{address} sh -s < \
             ${{path.module}}/reinstall.sh\"\n  }}\n}}\n"
        )
    };
    let replaced = "lifecycle { replace_triggered_by = [terraform_data.server] }";
    let plain = site(&world, &["web"], SECRET);
    // The address is known, or known only after apply.
    let known = plain.replace("ssh = {", &format!("{replaced}\n  ssh = {{"));
    let open = known.replace(&format!("host = \"{address}\""), "host = terraform_data.server.output");
    set_up(&world, &(known.clone() + &server(0)), &one(SLEEPER));
    succeeds(&apply(&world));
    is_deployed(&world, "web");
    let wanted = world.current_system("web");

    for (number, main) in [(1, known), (2, open.clone()), (3, open)] {
        let before = machine_id(web);
        world.write("main.tf", &(main + &server(number))).unwrap();
        let run = apply(&world);
        succeeds(&run);
        assert_ne!(machine_id(web), before, "it was made anew:\n{}", run.text);
        assert_eq!(world.current_system("web"), wanted, "round {number}:\n{}", run.text);
        is_deployed(&world, "web");
    }
}

#[test]
fn the_same_machine_at_another_address_needs_no_activation() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let main = site(&world, &["web"], "");
    set_up(&world, &main, &one(""));
    succeeds(&apply(&world));
    let generations = || web.exec(&["ls", "/nix/var/nix/profiles"]).unwrap().stdout;
    let before = (generations(), world.resource("nixos_deployment.site")["systems"].clone());
    let activations = || {
        let lines = web.exec(&["journalctl", "-o", "cat", "-u", "nixos-agent-*"]).unwrap().stdout;
        lines.lines().count()
    };
    let activated = activations();

    // It has a second address.
    assert!(web.exec(&["ip", "address", "add", "10.88.0.200/24", "dev", "eth0"]).unwrap().success);
    let address = web.address().to_string();
    world
        .write("main.tf", &main.replace(&format!("host = \"{address}\""), "host = \"10.88.0.200\""))
        .unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["10.88.0.200", "known after apply"]);
    succeeds(&apply(&world));
    let after = world.resource("nixos_deployment.site");
    assert_eq!(after["machines"]["web"]["host"], "10.88.0.200");
    assert_eq!((generations(), after["systems"].clone()), before);
    assert_eq!(activations(), activated, "nothing was activated");
    no_changes(&world);
}

/// A deployment whose machine is a plain object.
fn plain(world: &e2e::World, more: &str) -> String {
    let address = world.lab.host("web").address();
    format!(
        "{HEAD}resource \"nixos_deployment\" \"site\" {{\n  network = \"${{path.module}}/network.nix\"\n  \
         machines = {{ web = {{ host = \"{address}\", {more} }} }}\n  {SECRET}\n}}\n"
    )
}

#[test]
fn a_plain_target_is_another_machine_when_its_machine_id_is() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let key = |host: &Host| format!("host_public_key = \"{}\"", host.host_public_key());
    set_up(&world, &plain(&world, &key(web)), &one(SLEEPER));
    succeeds(&apply(&world));
    is_deployed(&world, "web");
    let wanted = world.current_system("web");

    runs_script(web, REINSTALL);
    runs_script(web, RENEW_KEY);
    succeeds(&plan(&world));
    world.write("main.tf", &plain(&world, &key(web))).unwrap();
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), wanted);
    is_deployed(&world, "web");

    // The last look at it is not of the machine that is there.
    world.write("network.nix", &one("")).unwrap();
    runs_script(web, REINSTALL);
    let run = world.terraform(&["apply", "-auto-approve", "-input=false", "-refresh=false"]);
    fails_saying(&run, &["Another machine answers in the place of machine \"web\"", "Plan again"]);
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["another machine than the one that was deployed to"]);
    succeeds(&apply(&world));
    is_deployed(&world, "web");
}

#[test]
fn a_key_that_was_accepted_on_first_use_stays_the_only_one() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let trusting = plain(&world, "host_key_policy = \"accept_new\"");
    set_up(&world, &trusting, &one(SLEEPER));
    succeeds(&apply(&world));
    is_deployed(&world, "web");
    let before = world.current_system("web");

    runs_script(web, RENEW_KEY);
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["Warning: The host key of machine \"web\" is not the expected one", "host_public_key"]);
    world.write("network.nix", &one("")).unwrap();
    fails_saying(&apply(&world), &["Error: The host key of machine \"web\" is not the expected one"]);
    assert_eq!(world.current_system("web"), before, "a stranger gets nothing");

    let named = format!("host_key_policy = \"accept_new\", host_public_key = \"{}\"", web.host_public_key());
    world.write("main.tf", &plain(&world, &named)).unwrap();
    succeeds(&apply(&world));
    is_deployed(&world, "web");
    // The key that was named is the one that is remembered.
    world.write("main.tf", &trusting).unwrap();
    succeeds(&apply(&world));
    is_deployed(&world, "web");
}

#[test]
fn odd_machines_stop_nothing_but_themselves() {
    let hosts = ["a", "b", "c", "d", "e"];
    let world = world(&hosts);
    let network = |text: &str| {
        let node = "{ nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\"; ";
        let nodes = hosts.map(|name| format!("{name} = {node} environment.etc.motd.text = \"{text}\"; }};"));
        format!("{{ {} }}", nodes.concat())
    };
    let right = site(&world, &hosts, "");
    set_up(&world, &right, &network("one"));
    succeeds(&apply(&world));
    no_changes(&world);
    let before = hosts.map(|name| world.current_system(name));

    let odd = ["a", "b", "c"].map(|name| world.lab.host(name));
    runs_script(odd[0], RENEW_KEY);
    runs_script(odd[1], "mv /root/.ssh/authorized_keys /root/.ssh/away");
    runs_script(odd[2], "usermod -s /usr/sbin/nologin root");
    let told = [
        "The host key of machine \"a\" is not the expected one",
        "Machine \"b\" refused the login",
        "No connection to machine \"c\"",
        "This account is currently not available",
    ];
    let run = plan(&world);
    succeeds(&run);
    says(&run, &told);
    says(&run, &["Its last known state is kept", "No changes."]);

    world.write("network.nix", &network("two")).unwrap();
    let run = apply(&world);
    fails_saying(&run, &told);
    let after = hosts.map(|name| world.current_system(name));
    assert_eq!(before[..3], after[..3], "the odd ones run what they ran");
    assert!(before[3] != after[3] && before[4] != after[4], "the others are deployed:\n{}", run.text);
    let systems = world.resource("nixos_deployment.site")["systems"].clone();
    for (name, system) in hosts.iter().zip(&after) {
        assert_eq!(systems[name]["toplevel"], system.as_str(), "{name}: state is true");
    }

    // One that nobody can say how to reach fails alone as well.
    let address = |name: &str| format!("host = \"{}\"", world.lab.host(name).address());
    let e = address("e");
    world.write("main.tf", &right.replace(&e, &format!("{e}, key = \"none\""))).unwrap();
    world.write("network.nix", &network("three")).unwrap();
    let run = apply(&world);
    fails_saying(&run, &told);
    fails_saying(&run, &["There is no private key \"none\""]);
    assert_ne!(world.current_system("d"), after[3]);
    assert_eq!(world.current_system("e"), after[4]);

    // Mended: the key is named, the others are as they were. `site` reads the keys that the hosts have by now.
    world.write("main.tf", &site(&world, &hosts, "")).unwrap();
    runs_script(odd[1], "mv /root/.ssh/away /root/.ssh/authorized_keys");
    runs_script(odd[2], "usermod -s /bin/sh root");
    succeeds(&apply(&world));
    no_changes(&world);

    // One that is removed while it is odd, and all of them.
    runs_script(odd[0], RENEW_KEY);
    world.write("main.tf", &site(&world, &hosts[1..], "")).unwrap();
    world.write("network.nix", &network("three").replacen("a = ", "a_ = ", 1)).unwrap();
    succeeds(&apply(&world));
    runs_script(odd[1], "mv /root/.ssh/authorized_keys /root/.ssh/away");
    succeeds(&world.terraform(&["destroy", "-auto-approve", "-input=false"]));
}

#[test]
fn a_refresh_can_be_told_to_fail() {
    let world = world(&["web"]);
    let strict = site(&world, &["web"], "on_unreachable = \"fail\"");
    set_up(&world, &strict, &one(""));
    succeeds(&apply(&world));
    runs_script(world.lab.host("web"), RENEW_KEY);
    fails_saying(&plan(&world), &["Error: The host key of machine \"web\" is not the expected one"]);
}

#[test]
fn a_wrong_login_is_corrected_where_it_is_written() {
    let world = world(&["web"]);
    let right = site(&world, &["web"], "");
    set_up(&world, &right, &one(""));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    world.write("main.tf", &right.replace("ssh = {", "ssh = { user = \"nobody-here\",")).unwrap();
    // Also said where nothing else is to be done.
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["Warning: Machine \"web\" refused the login", "2 changed"]);
    world.write("network.nix", &one(SLEEPER)).unwrap();
    fails_saying(&apply(&world), &["Error: Machine \"web\" refused the login", "`user`"]);
    assert_eq!(world.current_system("web"), before);

    world.write("main.tf", &right).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["Warning: Machine \"web\" refused the login", "units added: sleeper.service"]);
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn the_providers_login_holds_everywhere_at_once() {
    let options = HostOptions { sudo: true, ..HostOptions::default() };
    let world = e2e::World::boot_with(&[("web", options)], &|_| {}).unwrap();
    let web = world.lab.host("web");
    let main = site(&world, &["web"], "");
    set_up(&world, &main, &one(""));
    succeeds(&apply(&world));
    assert_eq!(world.resource("nixos_machine.web")["user"], "root");

    // Root's login is closed in the same moment.
    let provider = "provider \"nixos\" { ssh = { user = \"deploy\", elevate = [\"sudo\", \"-n\"] } }\n";
    world.write("main.tf", &(main + provider)).unwrap();
    runs_script(web, "mv /root/.ssh/authorized_keys /root/.ssh/away");
    let run = plan(&world);
    succeeds(&run);
    assert!(!run.text.contains("refused the login"), "{}", run.text);
    says(&run, &["\"root\" -> \"deploy\""]);
    world.write("network.nix", &one(SLEEPER)).unwrap();
    succeeds(&apply(&world));
    let state = world.resource("nixos_machine.web");
    assert_eq!((&state["user"], &state["target"]["user"]), (&"deploy".into(), &serde_json::Value::Null));
    no_changes(&world);
}

#[test]
fn what_was_only_tried_is_not_what_runs() {
    let world = world(&["web"]);
    let main = |action: &str| site(&world, &["web"], &format!("action = \"{action}\""));
    set_up(&world, &main("switch"), &one(SLEEPER));
    succeeds(&apply(&world));
    for action in ["dry_activate", "push"] {
        world.write("main.tf", &main(action)).unwrap();
        let other = SLEEPER.replace("sleeper", &format!("tried-{action}"));
        world.write("network.nix", &one(&other)).unwrap();
        succeeds(&apply(&world));
        // Of what was tried nothing is there, and the unit that runs goes.
        let wanted = "systemd.services.wanted = { wantedBy = [ \"multi-user.target\" ]; \
                      serviceConfig.ExecStart = \"${pkgs.busybox}/bin/busybox sleep 1000000\"; };";
        world.write("network.nix", &one(wanted)).unwrap();
        let run = plan(&world);
        succeeds(&run);
        says(&run, &["-> \"units added: wanted.service; units removed: sleeper.service\""]);
    }
    // What was only pushed is switched to; the plan says what that changes.
    let tried = SLEEPER.replace("sleeper", "tried");
    world.write("network.nix", &one(&tried)).unwrap();
    succeeds(&apply(&world));
    world.write("main.tf", &main("switch")).unwrap();
    succeeds(&apply(&world));
    let changes = world.resource("nixos_deployment.site")["systems"]["web"]["changes"].clone();
    assert_eq!(changes, "units added: tried.service; units removed: sleeper.service");
    no_changes(&world);
}

#[test]
fn noise_of_a_machine_does_not_reach_the_terminal() {
    let world = world(&["web"]);
    set_up(&world, &format!("{HEAD}{}", machine(&world, "web", "")), "");
    succeeds(&apply(&world));
    let web = world.lab.host("web");
    let shell = "#!/bin/sh\nprintf '\\033[31mred\\033[0m \\377\\376\\000\\007 end of noise\\n'\nexit 1\n";
    web.write_file("/usr/local/bin/noisy", shell).unwrap();
    runs_script(
        web,
        "chmod +x /usr/local/bin/noisy; echo /usr/local/bin/noisy >> /etc/shells; usermod -s \
         /usr/local/bin/noisy root",
    );
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["Warning: No connection to machine \"web\"", "end of noise"]);
    let odd: Vec<char> = run.text.chars().filter(|c| c.is_control() && *c != '\n').collect();
    assert!(odd.is_empty(), "{odd:?} in\n{}", run.text);
}
