//! Root where the login is somebody else's: by `sudo`, `doas` and `run0`, with a password and without.

use std::time::{Duration, Instant};

use e2e::World;
use lab::{Host, HostOptions};

use crate::support::{SLEEPER, apply, fails_saying, no_changes, one, set_up, site, succeeds, world};

const PASSWORD: &str = "correct horse: $(battery) 'staple'";

#[test]
fn without_root_nothing_is_sent() {
    let world =
        World::boot_with(&[("web", HostOptions { sudo: true, ..HostOptions::default() })], &|_| {}).unwrap();
    let user = |more: &str| {
        site(&world, &["web"], "")
            + &format!("provider \"nixos\" {{ ssh = {{ user = \"deploy\"{more} }} }}\n")
    };
    let installed = world.current_system("web");
    set_up(&world, &user(""), &one(SLEEPER));
    fails_saying(&apply(&world), &["No root login on machine \"web\"", "deploy", "elevate"]);
    assert_eq!(world.current_system("web"), installed);

    world.write("main.tf", &user(", elevate = [\"sudo\", \"-n\"]")).unwrap();
    succeeds(&apply(&world));
    assert_ne!(world.current_system("web"), installed);
    no_changes(&world);

    // The refresh needs no root; the deployment asks for it once a connection: on its own, and on the one that
    // confirms.
    let web = world.lab.host("web");
    let count = |text: &str| {
        web.exec(&["journalctl", "--sync"]).unwrap();
        let journal = web.exec(&["journalctl", "-o", "cat", "-g", text]).unwrap().stdout;
        journal.lines().filter(|line| line.contains(text)).count()
    };
    let logins = || count("Accepted publickey for deploy");
    let asked = || count("COMMAND=");
    let before = (logins(), asked());
    world.lab.control().write_file("/root/token", "word").unwrap();
    let secret = "secrets = { token = { file = \"/root/token\" } }";
    let main = user(", elevate = [\"sudo\", \"-n\"]");
    world.write("main.tf", &main.replace("network =", &format!("{secret}\n  network ="))).unwrap();
    world.write("network.nix", &one(&format!("{SLEEPER} environment.etc.a.text = \"a\";"))).unwrap();
    succeeds(&apply(&world));
    let now = (logins(), asked());
    assert_eq!((now.0 - before.0, now.1 - before.1), (3, 2), "logins, and times that root was asked for");

    world.lab.host("web").exec(&["rm", "/etc/sudoers.d/deploy"]).unwrap();
    world.write("network.nix", &one("")).unwrap();
    fails_saying(&apply(&world), &["No root login on machine \"web\"", "`sudo -n` did not give root"]);
}

#[test]
fn a_system_that_takes_sudo_away_is_told_from_one_that_takes_the_login_away() {
    let world =
        World::boot_with(&[("web", HostOptions { sudo: true, ..HostOptions::default() })], &|_| {}).unwrap();
    let provider = "provider \"nixos\" { ssh = { user = \"deploy\", elevate = [\"sudo\", \"-n\"] } }\n";
    set_up(&world, &(site(&world, &["web"], "confirm_timeout = \"8s\"") + provider), &one(""));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    let unit = "systemd.services.lockout = { wantedBy = [ \"multi-user.target\" ]; serviceConfig = { Type \
                = \"oneshot\"; RemainAfterExit = true; ExecStart = \"/bin/mv /etc/sudoers.d/deploy \
                /root/away\"; ExecStop = \"/bin/mv /root/away /etc/sudoers.d/deploy\"; }; };";
    world.write("network.nix", &one(unit)).unwrap();
    fails_saying(
        &apply(&world),
        &[
            "was rolled back on machine \"web\"",
            "the login worked, but `sudo -n` did not give root",
            "went back to",
        ],
    );
    assert_eq!(world.current_system("web"), before);
}

#[test]
fn a_second_factor_does_not_get_the_password() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    ask_for_the_password(web);
    let before = world.current_system("web");
    let script = "#!/bin/sh\nprintf 'Verification code: '\nread -r code\necho \"$code\" >/tmp/typed\n";
    web.write_file("/usr/local/bin/with-code", script).unwrap();
    web.exec(&["chmod", "755", "/usr/local/bin/with-code"]).unwrap();
    set_up(&world, &with_password(&world, "/usr/local/bin/with-code", PASSWORD), &one(""));
    fails_saying(
        &apply(&world),
        &[
            "No root login on machine \"web\"",
            "it asks `Verification code:`",
            "`elevate_password` is only given",
        ],
    );
    let typed = web.exec(&["sh", "-c", "cat /tmp/typed 2>/dev/null; true"]).unwrap().stdout;
    assert_eq!(typed.trim(), "");
    assert_eq!(world.current_system("web"), before);
}

#[test]
fn root_comes_from_doas_or_run0_as_well() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    web.write_file("/etc/doas.conf", "permit nopass deploy as root\n").unwrap();
    let rule = "polkit.addRule(function(action, subject) { if (subject.user == \"deploy\") return \
                polkit.Result.YES; });\n";
    web.write_file("/etc/polkit-1/rules.d/50-deploy.rules", rule).unwrap();
    for (number, elevate) in ["[\"doas\", \"-n\"]", "[\"run0\", \"--no-ask-password\"]"].iter().enumerate() {
        let provider =
            format!("provider \"nixos\" {{ ssh = {{ user = \"deploy\", elevate = {elevate} }} }}\n");
        let network = one(&format!("environment.etc.motd.text = \"{number}\";"));
        set_up(&world, &(site(&world, &["web"], "") + &provider), &network);
        succeeds(&apply(&world));
        assert_eq!(web.exec(&["cat", "/etc/motd"]).unwrap().stdout, number.to_string(), "{elevate}");
        no_changes(&world);
    }
}

/// Somebody who may become root in each of the three ways, if he says who he is.
fn ask_for_the_password(web: &Host) {
    let set = format!("chpasswd <<'END'\ndeploy:{PASSWORD}\nEND\n");
    assert!(web.exec(&["sh", "-c", &set]).unwrap().success);
    web.write_file("/etc/sudoers.d/deploy", "deploy ALL=(ALL) ALL\n").unwrap();
    web.write_file("/etc/doas.conf", "permit deploy as root\n").unwrap();
    let rule = "polkit.addRule(function(action, subject) { if (subject.user == \"deploy\") return \
                polkit.Result.AUTH_SELF; });\n";
    web.write_file("/etc/polkit-1/rules.d/50-deploy.rules", rule).unwrap();
}

fn with_password(world: &World, elevate: &str, password: &str) -> String {
    let variable = "variable \"password\" {\n  type = string\n  ephemeral = true\n}\n";
    let deployment = "secrets = { token = { machines = [\"web\"], value_wo = \"t\", version = \"1\" } }";
    let provider = format!(
        "provider \"nixos\" {{ ssh = {{ user = \"deploy\", elevate = [\"{elevate}\"], elevate_password = \
         var.password }} }}\n"
    );
    world.write("terraform.tfvars.json", &serde_json::json!({ "password": password }).to_string()).unwrap();
    site(world, &["web"], deployment) + variable + &provider
}

#[test]
fn a_password_gives_root_by_sudo_doas_and_run0() {
    let world = world(&["web"]);
    let (web, control) = (world.lab.host("web"), world.lab.control());
    ask_for_the_password(web);
    for elevate in ["sudo", "doas", "run0"] {
        if elevate == "run0" {
            // polkit asks nobody without a session; hosts of the lab boot without what makes them.
            web.exec(&["systemctl", "unmask", "systemd-logind"]).unwrap();
            assert!(web.exec(&["systemctl", "start", "systemd-logind"]).unwrap().success);
        }
        let network = one(&format!("environment.etc.motd.text = \"{elevate}\";"));
        set_up(&world, &with_password(&world, elevate, PASSWORD), &network);
        let log = [("TF_LOG", "TRACE"), ("TF_LOG_PATH", "/root/site/trace.log")];
        let run = world.terraform_with(&log, &["apply", "-auto-approve", "-input=false"]);
        succeeds(&run);
        assert_eq!(web.exec(&["cat", "/etc/motd"]).unwrap().stdout, elevate);
        assert_eq!(web.exec(&["cat", "/run/keys/token"]).unwrap().stdout, "t");
        no_changes(&world);
        assert!(!run.text.contains(PASSWORD), "{elevate}: Terraform shows the password:\n{}", run.text);
        let found = control.exec(&[
            "grep",
            "-rlF",
            "battery",
            "/root/site/trace.log",
            "/root/site/terraform.tfstate",
        ]);
        assert_eq!(found.unwrap().stdout, "", "{elevate}: the password was written down");
    }
    // The command line, whose machines in state say nothing of all this.
    let words = "nixos-activator -C /root/site --user deploy --elevate doas --ask-elevate-password exec \
                 --root -- sh -c 'id -u; echo \"$1\" >&2; exit 3' sh \"it's  me\"";
    control.write_file("/root/ask", format!("{words}\n")).unwrap();
    let typed = "printf '%s\\n' \"$1\" | script -qec 'sh /root/ask' /dev/null";
    let asked = control.exec(&["sh", "-c", typed, "sh", PASSWORD]).unwrap();
    assert_eq!(asked.code, Some(3), "{}{}", asked.stdout, asked.stderr);
    assert!(
        asked.stdout.contains("web: 0\r\n") && asked.stdout.contains("web: it's  me\r\n"),
        "{}",
        asked.stdout
    );
    let left = || {
        let script =
            "ls -d /tmp/nixos-act* /run/user/*/nixos-act* 2>/dev/null; pgrep -af '[n]ixos-activator'";
        web.exec(&["sh", "-c", script]).unwrap().stdout
    };
    // The machine notices a moment after us.
    let start = Instant::now();
    while !left().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "it is gone with the connection:\n{}", left());
        std::thread::sleep(Duration::from_millis(100));
    }

    let runs = world.current_system("web");
    set_up(&world, &with_password(&world, "sudo", "wrong"), &one(""));
    fails_saying(
        &apply(&world),
        &["No root login on machine \"web\"", "the password was not accepted", "elevate_password"],
    );
    assert_eq!(world.current_system("web"), runs);
}
