//! Files of secrets: whose they are when, who can come to them, and what a user who owns their directory can do.

use e2e::World;

use crate::secrets::{exists, file};
use crate::support::{
    SLEEPER, apply, fails_saying, no_changes, one, plan, says, set_up, site, start_apply, succeeds, world,
};

/// A service of a user of its own, which reads a file when it starts.
fn reader(user: &str, path: &str) -> String {
    format!(
        "systemd.services.reader = {{ wantedBy = [ \"multi-user.target\" ]; serviceConfig = {{ User = \
         \"{user}\"; Type = \"oneshot\"; RemainAfterExit = true; ExecStart = \"/bin/sh -c 'cat {path} \
         >/dev/null'\"; }}; }};"
    )
}

fn secrets(world: &World, secrets: &str) -> String {
    site(world, &["web"], &format!("secrets = {{ {secrets} }}"))
}

#[test]
fn a_secret_is_there_for_a_user_that_the_same_deployment_brings() {
    let world = world(&["web"]);
    world.lab.control().write_file("/root/token", "first").unwrap();
    let user = "users.users.app.isSystemUser = true;";
    let main = secrets(
        &world,
        "token = { file = \"/root/token\", user = \"app\", group = \"app\", path = \"/srv/token\" }",
    );
    set_up(&world, &main, &one(&format!("{user}{}", reader("app", "/srv/token"))));
    succeeds(&apply(&world));
    assert_eq!(file(&world, "/srv/token").0, "400 app:app");
    no_changes(&world);
}

#[test]
fn a_key_of_a_specification_is_there_for_a_user_that_comes_with_it() {
    let world = world(&["web"]);
    let key = "users.users.app.isSystemUser = true; deployment.keys.token = { text = \"word\"; user = \
               \"app\"; permissions = \"0400\"; };";
    set_up(&world, &site(&world, &["web"], ""), &one(&format!("{key}{}", reader("app", "/run/keys/token"))));
    succeeds(&apply(&world));
    assert_eq!(file(&world, "/run/keys/token").0, "400 app:root");
    no_changes(&world);
}

#[test]
fn an_owner_can_come_to_its_file() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    web.exec(&["groupadd", "--system", "keys"]).unwrap();
    // As NixOS makes it.
    web.exec(&["sh", "-c", "mkdir -p /run/keys && chown root:keys /run/keys && chmod 0750 /run/keys"])
        .unwrap();
    world.lab.control().write_file("/root/token", "x").unwrap();
    for path in ["/run/keys/token", "/var/lib/fresh/deep/token"] {
        let main = secrets(
            &world,
            &format!("token = {{ file = \"/root/token\", user = \"daemon\", path = \"{path}\" }}"),
        );
        set_up(&world, &main, &one(&reader("daemon", path)));
        let run = apply(&world);
        succeeds(&run);
        assert!(!run.text.contains("Warning"), "{}", run.text);
    }
    // A directory of somebody else's is not opened, and that is said.
    web.exec(&["sh", "-c", "mkdir -m 0700 -p /srv/closed"]).unwrap();
    let main = secrets(
        &world,
        "token = { file = \"/root/token\", user = \"daemon\", path = \"/srv/closed/token\" }",
    );
    set_up(&world, &main, &one(SLEEPER));
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["The user `daemon` of secret \"token\" cannot come to /srv/closed/token"]);
    no_changes(&world);
}

#[test]
fn a_service_that_owns_the_directory_gains_nothing() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    web.exec(&[
        "sh",
        "-c",
        "install -d -o daemon -m 0755 /srv/app; install -m 0600 /dev/null /root/victim; echo \
                            roots > /root/victim",
    ])
    .unwrap();
    // All that its user can do: links in the place of the file and of what is written beside it, again and again.
    let race = "cd /srv/app; while :; do for name in tls.key .tls.key.nixos-agent \
                .tls.key.nixos-agent-old; do ln -sfn /root/victim $name; done; done";
    let mut attacker = web
        .command(&["setpriv", "--reuid=daemon", "--regid=daemon", "--clear-groups", "sh", "-c", race])
        .spawn()
        .unwrap();
    let main = secrets(
        &world,
        "tls = { file = \"/root/key\", path = \"/srv/app/tls.key\", user = \"daemon\", permissions = \
         \"0440\" }",
    );
    set_up(&world, &main, &one(SLEEPER));
    for n in 0..4 {
        world.lab.control().write_file("/root/key", format!("key {n}")).unwrap();
        // It may come to its end, or find that something was put in its place.
        let _ = apply(&world);
        assert_eq!(file(&world, "/root/victim"), ("600 root:root".to_owned(), "roots\n".to_owned()));
    }
    attacker.kill().unwrap();
    attacker.wait().unwrap();
    web.exec(&["pkill", "-KILL", "-u", "daemon"]).unwrap();
    succeeds(&apply(&world));
    assert_eq!(file(&world, "/srv/app/tls.key"), ("440 daemon:root".to_owned(), "key 3".to_owned()));
    no_changes(&world);
    // A directory that it has made a link of is refused.
    web.exec(&["sh", "-c", "ln -s /root /srv/app/down; chown -h daemon /srv/app/down"]).unwrap();
    let main = secrets(&world, "tls = { file = \"/root/key\", path = \"/srv/app/down/tls.key\" }");
    world.write("main.tf", &main).unwrap();
    fails_saying(&apply(&world), &["machine \"web\"", "a link that others than root can have made"]);
    assert!(!exists(&world, "/root/tls.key"));
}

#[test]
fn a_power_cut_leaves_each_system_its_own_secrets_on_disk() {
    let world = world(&["web"]);
    let (control, web) = (world.lab.control(), world.lab.host("web"));
    // A system whose activation is held up, and one that holds up nothing.
    let network = |mark: &str| {
        one(&format!(
            "environment.etc.mark.text = \"{mark}\"; system.activationScripts.pause = \"/bin/sh \
             /root/pause\";"
        ))
    };
    let pause = "[ -e /root/slow ] || exit 0; : > /root/reached; while [ -e /root/slow ]; do sleep 0.1; done";
    web.write_file("/root/pause", pause).unwrap();
    let main = |more: &str| {
        secrets(&world, &format!("tls = {{ file = \"/root/key\", path = \"/var/lib/app/tls.key\" }}{more}"))
    };
    control.write_file("/root/key", "old").unwrap();
    set_up(&world, &main(", gone = { file = \"/root/key\", path = \"/var/lib/app/gone\" }"), &network("old"));
    succeeds(&apply(&world));
    let before = world.current_system("web");

    for secrets_only in [false, true] {
        control.write_file("/root/key", "new").unwrap();
        let held = if secrets_only {
            // A health check holds it up where no system is activated.
            let check = "health_checks = { held = { command = [\"sh\", \"/root/pause\"], deadline = \
                         \"60s\", timeout = \"60s\" } }\n}";
            main(", new = { file = \"/root/key\", path = \"/var/lib/app/new\" }")
                .trim_end()
                .trim_end_matches('}')
                .to_owned()
                + check
        } else {
            world.write("network.nix", &network("new")).unwrap();
            main(", new = { file = \"/root/key\", path = \"/var/lib/app/new\" }")
        };
        world.write("main.tf", &held).unwrap();
        web.write_file("/root/slow", "").unwrap();
        let child = start_apply(&world);
        while !exists(&world, "/root/reached") {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!(file(&world, "/var/lib/app/tls.key").1, "new");
        web.power_cut().unwrap();
        for file in ["/root/slow", "/root/reached"] {
            let _ = std::fs::remove_file(web.root().unwrap().join(file.trim_start_matches('/')));
        }
        web.power_on().unwrap();
        drop(child.wait_with_output().unwrap());

        assert_eq!(world.current_system("web"), before);
        assert_eq!(file(&world, "/var/lib/app/tls.key").1, "old", "secrets only: {secrets_only}");
        assert_eq!(file(&world, "/var/lib/app/gone").1, "old");
        assert!(!exists(&world, "/var/lib/app/new"));
        let left = web.exec(&["ls", "-A", "/var/lib/app"]).unwrap().stdout;
        assert_eq!(left.split_whitespace().collect::<Vec<_>>(), ["gone", "tls.key"]);

        // And the next apply brings what is declared, here what was before.
        control.write_file("/root/key", "old").unwrap();
        world.write("network.nix", &network("old")).unwrap();
        world
            .write("main.tf", &main(", gone = { file = \"/root/key\", path = \"/var/lib/app/gone\" }"))
            .unwrap();
        let again = world.terraform(&["apply", "-auto-approve", "-lock=false"]);
        succeeds(&again);
        no_changes(&world);
    }
}

#[test]
fn what_requires_a_key_is_restarted_when_the_key_changes() {
    let world = world(&["web"]);
    let (control, web) = (world.lab.control(), world.lab.host("web"));
    control.write_file("/root/key", "first").unwrap();
    let network = one("deployment.keys.token.keyFile = /root/key;\nsystemd.services.app = { wantedBy = [ \
                       \"multi-user.target\" ]; after = [ \"token-key.service\" ]; requires = [ \
                       \"token-key.service\" ]; script = \"${pkgs.busybox}/bin/busybox cp /run/keys/token \
                       /root/seen; exec ${pkgs.busybox}/bin/busybox sleep 1000000\"; };");
    set_up(&world, &site(&world, &["web"], ""), &network);
    succeeds(&apply(&world));
    assert_eq!(web.read_file("/root/seen").unwrap(), "first");
    control.write_file("/root/key", "second").unwrap();
    says(&plan(&world), &["secrets changed: token"]);
    succeeds(&apply(&world));
    assert_eq!(web.read_file("/root/seen").unwrap(), "second");
    no_changes(&world);
}
