//! Secrets: they arrive, change, go back, disappear, and are seen nowhere else.

use e2e::World;

use crate::support::{
    HEAD, apply, fails_saying, machine, no_changes, one, plan, says, set_up, site, succeeds, world,
};

/// What `stat` says about a file of the machine, and what is in it.
pub(crate) fn file(world: &World, path: &str) -> (String, String) {
    let web = world.lab.host("web");
    let looks = web.exec(&["stat", "-c", "%a %U:%G", path]).unwrap().stdout;
    (looks.trim().to_owned(), web.exec(&["cat", path]).unwrap().stdout)
}

pub(crate) fn exists(world: &World, path: &str) -> bool {
    world.lab.host("web").exec(&["sh", "-c", &format!("[ -e {path} ] && echo yes || true")]).unwrap().stdout
        == "yes\n"
}

/// A unit that shows the secret it was started with.
const READER: &str = "systemd.services.reader = { wantedBy = [ \"multi-user.target\" ]; script = \
                      \"${pkgs.busybox}/bin/busybox cat /run/keys/token > /root/seen; exec \
                      ${pkgs.busybox}/bin/busybox sleep 1000000\"; };";

#[test]
fn secrets_come_change_drift_and_go() {
    let world = world(&["web"]);
    let control = world.lab.control();
    let web = world.lab.host("web");
    let main = |secrets: &str| site(&world, &["web"], &format!("secrets = {{ {secrets} }}"));
    control.write_file("/root/token", "first").unwrap();
    let token = "token = { file = \"/root/token\", restart = [\"reader.service\"] }";
    let other = "other = { command = [\"printf\", \"a\\\\nb\"], path = \"/var/keys/deep/other\", user = \
                 \"daemon\", group = \"1\", permissions = \"0640\" }";
    set_up(&world, &main(&format!("{token}, {other}")), &one(READER));
    succeeds(&apply(&world));
    assert_eq!(file(&world, "/run/keys/token"), ("400 root:root".to_owned(), "first".to_owned()));
    assert_eq!(file(&world, "/var/keys/deep/other"), ("640 daemon:daemon".to_owned(), "a\nb".to_owned()));
    let mount = web.exec(&["stat", "-f", "-c", "%T", "/run/keys", "/run/nixos-agent-secrets"]).unwrap();
    assert_eq!(mount.stdout, "ramfs\nramfs\n", "never written to swap");
    assert_eq!(web.read_file("/root/seen").unwrap(), "first", "it was there before the unit");
    let left = web.exec(&["ls", "/run/nixos-agent-secrets"]).unwrap().stdout;
    assert_eq!(left.trim(), "manifests", "nothing is staged or put aside any more");
    no_changes(&world);

    // It changes: the plan says so, the unit is started again, the system is not touched.
    let generation = || web.exec(&["readlink", "/nix/var/nix/profiles/system"]).unwrap().stdout;
    let before = (generation(), world.current_system("web"));
    control.write_file("/root/token", "second").unwrap();
    says(&plan(&world), &["secrets changed: token", "0 to add, 1 to change"]);
    succeeds(&apply(&world));
    assert_eq!(file(&world, "/run/keys/token").1, "second");
    assert_eq!(web.read_file("/root/seen").unwrap(), "second");
    assert_eq!((generation(), world.current_system("web")), before);
    no_changes(&world);

    // Someone edits one, changes the owner of the other.
    web.exec(&["sh", "-c", "echo edited > /run/keys/token; chown root /var/keys/deep/other"]).unwrap();
    says(&plan(&world), &["secrets added: other, token"]);
    succeeds(&apply(&world));
    assert_eq!(file(&world, "/run/keys/token").1, "second");
    assert_eq!(file(&world, "/var/keys/deep/other").0, "640 daemon:daemon");
    no_changes(&world);

    // What is in memory is gone after a reboot; what is on disk is not.
    web.power_cycle().unwrap();
    assert!(!exists(&world, "/run/keys/token"));
    let run = plan(&world);
    says(&run, &["secrets added: token"]);
    succeeds(&apply(&world));
    no_changes(&world);

    // One is declared no more, then none.
    world.write("main.tf", &main(token)).unwrap();
    says(&plan(&world), &["secrets removed: other"]);
    succeeds(&apply(&world));
    assert!(!exists(&world, "/var/keys/deep/other"));
    assert!(exists(&world, "/run/keys/token"));
    world.write("main.tf", &main("")).unwrap();
    succeeds(&apply(&world));
    assert!(!exists(&world, "/run/keys/token"));
    no_changes(&world);
}

#[test]
fn secrets_go_back_with_their_system() {
    let world = world(&["web"]);
    let control = world.lab.control();
    let web = world.lab.host("web");
    let main = |more: &str| {
        let secret = "token = { file = \"/root/token\", restart = [\"reader.service\"] }";
        site(&world, &["web"], &format!("secrets = {{ {secret} }}\n{more}"))
    };
    control.write_file("/root/token", "first").unwrap();
    set_up(&world, &main(""), &one(READER));
    succeeds(&apply(&world));

    // The system fails, with a new secret in place.
    control.write_file("/root/token", "second").unwrap();
    let broken = format!(
        "{READER} systemd.services.broken = {{ wantedBy = [ \"multi-user.target\" ]; serviceConfig = {{ \
         Type = \"oneshot\"; ExecStart = \"${{pkgs.busybox}}/bin/busybox false\"; }}; }};"
    );
    world.write("network.nix", &one(&broken)).unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\""]);
    assert_eq!(file(&world, "/run/keys/token").1, "first");
    assert_eq!(web.read_file("/root/seen").unwrap(), "first");

    // The system stays the same, and is not healthy with the new secret.
    world.write("network.nix", &one(READER)).unwrap();
    let check =
        "health_checks = { seen = { command = [\"grep\", \"first\", \"/root/seen\"], deadline = \"2s\" } }";
    world.write("main.tf", &main(check)).unwrap();
    fails_saying(&apply(&world), &["is not healthy", "The machine has its old secrets again", "\"seen\""]);
    assert_eq!(file(&world, "/run/keys/token").1, "first");
    assert_eq!(web.read_file("/root/seen").unwrap(), "first", "the unit was started again with the old one");

    // A unit that cannot live with it.
    let picky = READER.replace(
        "script = \"",
        "serviceConfig.Type = \"forking\"; script = \"${pkgs.busybox}/bin/busybox grep -q first \
         /run/keys/token || exit 1; ${pkgs.busybox}/bin/busybox sleep 1000000 & exit 0; ",
    );
    control.write_file("/root/token", "first").unwrap();
    world.write("main.tf", &main("")).unwrap();
    world.write("network.nix", &one(&picky)).unwrap();
    succeeds(&apply(&world));
    let generations = || web.exec(&["ls", "/nix/var/nix/profiles"]).unwrap().stdout;
    let before = generations();
    control.write_file("/root/token", "third").unwrap();
    fails_saying(&apply(&world), &["Units failed with their new secrets", "reader.service failed"]);
    assert_eq!(file(&world, "/run/keys/token").1, "first");
    let state = web.exec(&["systemctl", "is-active", "reader.service"]).unwrap().stdout;
    assert_eq!(state.trim(), "active");

    // A user that nobody has.
    control.write_file("/root/token", "fourth").unwrap();
    world.write("main.tf", &main("").replace("restart =", "user = \"nobody-at-all\", restart =")).unwrap();
    fails_saying(&apply(&world), &["The user `nobody-at-all` of secret \"token\" does not exist"]);
    assert_eq!(file(&world, "/run/keys/token").1, "first");
    world.write("main.tf", &main("")).unwrap();
    control.write_file("/root/token", "first").unwrap();
    succeeds(&apply(&world));
    assert_eq!(generations(), before, "the system was the same all the time");
    no_changes(&world);
}

#[test]
fn a_hundred_secrets_are_seen_nowhere() {
    let world = world(&["web"]);
    let control = world.lab.control();
    let web = world.lab.host("web");
    let canary = "X9canaryQ";
    control.exec(&["sh", "-c", "umask 077; mkdir /root/vault"]).unwrap();
    let secrets: String = (0..100)
        .map(|n| {
            let value = format!("{canary}{n:03}");
            match n % 3 {
                0 => format!(
                    "s{n} = {{ value_wo = \"${{var.canary}}{n:03}\", version = 1, restart = \
                     [\"a.service\"] }}\n"
                ),
                1 => {
                    let path = format!("/root/vault/{n}");
                    control.write_file(&path, &value).unwrap();
                    control.exec(&["chmod", "600", &path]).unwrap();
                    format!("s{n} = {{ file = \"{path}\", path = \"/var/keys/s{n}\" }}\n")
                }
                _ => format!("s{n} = {{ command = [\"sh\", \"/root/vault/print\", \"{n:03}\"] }}\n"),
            }
        })
        .collect();
    control.write_file("/root/vault/print", format!("printf %s {canary}$1")).unwrap();
    control.exec(&["chmod", "600", "/root/vault/print"]).unwrap();
    let main = format!(
        "{}\nvariable \"canary\" {{\n  type = string\n  ephemeral = true\n}}\n",
        site(&world, &["web"], &format!("secrets = {{\n{secrets}}}"))
    );
    set_up(&world, &main, &one(""));

    // Whoever watches the processes of either side must not see any.
    let watch = |host: &lab::Host| {
        let script = "while :; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' \
                      '\\n' | grep -a 'X9canar[y]' | grep -av '^TF_VAR_canary=' >> /root/watched; sleep \
                      0.02; done";
        host.exec(&["sh", "-c", &format!("setsid sh -c {} >/dev/null 2>&1 &", quoted(script))]).unwrap();
    };
    watch(control);
    watch(web);
    let environment = [("TF_VAR_canary", canary), ("TF_LOG", "TRACE"), ("TF_LOG_PATH", "/root/log")];
    // The watchers see what there is to see.
    let bait = "X9canary-for-the-watcher";
    for host in [control, web] {
        host.exec(&["sh", "-c", &format!("sleep 1; : {bait}")]).unwrap();
        let seen = host.read_file("/root/watched").unwrap();
        assert!(seen.contains(bait), "{seen}");
    }
    succeeds(&world.terraform_with(&environment, &["plan", "-out=plan"]));
    let run = world.terraform_with(&environment, &["apply", "plan"]);
    succeeds(&run);
    assert!(!run.text.contains(canary), "the output shows a secret");
    for n in [0, 1, 2, 99] {
        let path = if n % 3 == 1 { format!("/var/keys/s{n}") } else { format!("/run/keys/s{n}") };
        assert_eq!(file(&world, &path), ("400 root:root".to_owned(), format!("{canary}{n:03}")));
    }
    // A version changes one value, and no other.
    world
        .write("main.tf", &main.replace("canary}000\", version = 1", "canary}000new\", version = 2"))
        .unwrap();
    succeeds(&world.terraform_with(&environment, &["plan", "-out=plan2"]));
    succeeds(&world.terraform_with(&environment, &["apply", "plan2"]));
    assert_eq!(file(&world, "/run/keys/s0").1, format!("{canary}000new"));

    for host in [control, web] {
        host.exec(&["pkill", "-f", "/root/watched"]).unwrap();
        let watched = host.read_file("/root/watched").unwrap();
        let seen: Vec<&str> = watched.lines().filter(|line| !line.contains(bait)).collect();
        assert_eq!(seen, Vec::<&str>::new(), "a process list shows a secret");
    }
    let log = control.exec(&["grep", "-c", "@module=provider", "/root/log"]).unwrap().stdout;
    assert_ne!(log.trim(), "0", "the provider has logged something");
    control
        .exec(&[
            "sh",
            "-c",
            "cd /root && mkdir unpacked && cd unpacked && for p in plan plan2; do \
                                python3 -m zipfile -e ../site/$p $p 2>/dev/null || busybox unzip -q -d $p \
                                ../site/$p; done",
        ])
        .ok();
    let unpacked = control.exec(&["sh", "-c", "find /root/unpacked -type f | wc -l"]).unwrap().stdout;
    assert_ne!(unpacked.trim(), "0", "the plan files were looked into");
    // Everything that was written down where Terraform runs, except where we put them ourselves.
    let found = control
        .exec(&[
            "sh",
            "-c",
            &format!(
                "grep -rlaF {canary} / --exclude-dir=proc --exclude-dir=sys --exclude-dir=vault \
                                      --exclude-dir=dev 2>/dev/null; true"
            ),
        ])
        .unwrap();
    assert_eq!(found.stdout, "", "written down where Terraform runs");
    // On the machine: only in their places, and nowhere that others can read.
    let found = web
        .exec(&[
            "sh",
            "-c",
            &format!(
                "grep -rlaF {canary} / --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev \
                                      2>/dev/null; true"
            ),
        ])
        .unwrap();
    let places: Vec<&str> = found
        .stdout
        .lines()
        .filter(|path| !path.starts_with("/run/keys/") && !path.starts_with("/var/keys/"))
        .collect();
    assert_eq!(places, Vec::<&str>::new(), "written down on the machine");
    let journal =
        web.exec(&["sh", "-c", "journalctl --no-pager -q | grep -F X9canary; true"]).unwrap().stdout;
    assert_eq!(journal, "");
    let open = web.exec(&["find", "/run/keys", "/var/keys", "-type", "f", "-perm", "/077"]).unwrap().stdout;
    assert_eq!(open, "", "others can read these");
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn secrets_of_which_little_is_known_are_planned_all_the_same() {
    let world = world(&["web"]);
    let main = |input: &str, secrets: &str| {
        site(&world, &["web"], &format!("secrets = {secrets}"))
            + &format!("resource \"terraform_data\" \"later\" {{\n  input = \"{input}\"\n}}\n")
    };
    let file = "{ a = { file = terraform_data.later.output } }";
    let places = "{ a = { file = \"/etc/hostname\", machines = [terraform_data.later.output] } }";
    let all = "{ for name in terraform_data.later.output == \"\" ? [] : [\"b\"] : name => { file = \
               \"/etc/hostname\" } }";
    set_up(&world, &main("/etc/hostname", file), &one(""));
    succeeds(&apply(&world));
    assert!(exists(&world, "/run/keys/a"));
    no_changes(&world);
    for (input, secrets, there) in [("/etc/os-release", file, "a"), ("web", places, "a"), ("x", all, "b")] {
        world.write("main.tf", &main(input, secrets)).unwrap();
        let run = apply(&world);
        succeeds(&run);
        assert!(exists(&world, &format!("/run/keys/{there}")), "{secrets}");
        no_changes(&world);
    }
    assert!(!exists(&world, "/run/keys/a"), "it is declared no more");
}

#[test]
fn secrets_that_make_no_sense_are_refused() {
    let world = world(&["web"]);
    let main = |secrets: &str| site(&world, &["web"], &format!("secrets = {{ {secrets} }}"));
    set_up(&world, &main(""), &one(""));
    for (secrets, expected) in [
        ("a = {}", "exactly one of `value_wo`, `command`, `file` is expected"),
        ("a = { file = \"/x\", value_wo = \"y\" }", "Found `value_wo`, `file`"),
        ("\"a/b\" = { file = \"/x\" }", "The key is not a name of a secret"),
        ("a = { file = \"/x\", permissions = \"rw\" }", "octal digits"),
        ("a = { file = \"/x\", path = \"keys/a\" }", "an absolute path"),
        ("a = { file = \"/x\", machines = [\"db\"] }", "Found \"db\", which is not a key of `machines`"),
        ("a = { command = [] }", "The list is empty"),
    ] {
        world.write("main.tf", &main(secrets)).unwrap();
        fails_saying(&world.terraform(&["validate"]), &[expected]);
    }
    let installed = world.current_system("web");
    for (secrets, expected) in [
        ("a = { file = \"/no/such\" }", "/no/such of secret \"a\" cannot be read"),
        ("a = { command = [\"sh\", \"-c\", \"echo locked >&2; exit 2\"] }", "locked"),
        (
            "a = { file = \"/etc/hostname\", path = \"/run/x\" }, b = { file = \"/etc/hostname\", path = \
             \"/run/x\" }",
            "Two secrets have the same path",
        ),
    ] {
        world.write("main.tf", &main(secrets)).unwrap();
        fails_saying(&apply(&world), &[expected]);
        assert_eq!(world.current_system("web"), installed, "{secrets}");
    }
    // The same machine in two deployments: each looks after its own.
    let second = format!(
        "{HEAD}{}\nresource \"nixos_deployment\" \"one\" {{\n  network = \"network.nix\"\n  machines = {{ \
         web = nixos_machine.web.target }}\n  secrets = {{ a = {{ file = \"/etc/hostname\" }} \
         }}\n}}\nresource \"nixos_deployment\" \"two\" {{\n  name = \"two\"\n  network = \"network.nix\"\n  \
         machines = {{ web = nixos_machine.web.target }}\n  secrets = {{ b = {{ file = \"/etc/hostname\" \
         }} }}\n  depends_on = [nixos_deployment.one]\n}}\n",
        machine(&world, "web", "")
    );
    world.write("main.tf", &second).unwrap();
    succeeds(&apply(&world));
    assert!(exists(&world, "/run/keys/a") && exists(&world, "/run/keys/b"));
    no_changes(&world);
}

#[test]
fn a_machine_puts_its_secrets_back_by_itself() {
    let world = world(&["web"]);
    let (control, web) = (world.lab.control(), world.lab.host("web"));
    let main = |secrets: &str| site(&world, &["web"], &format!("secrets = {{ {secrets} }}"));
    let token =
        "token = { file = \"/root/token\", user = \"daemon\", permissions = \"0440\", persist = true }";
    control.write_file("/root/token", "a secret of 21 bytes\n").unwrap();
    set_up(&world, &main(&format!("{token}, other = {{ file = \"/root/token\" }}")), &one(READER));
    succeeds(&apply(&world));
    no_changes(&world);
    let copies = || {
        web.exec(&["sh", "-c", "ls -A /var/lib/nixos-agent/sealed/*/ 2>/dev/null || true"]).unwrap().stdout
    };
    assert!(copies().contains("token.") && !copies().contains("other"), "{}", copies());
    let on_disk = ["grep", "-rlF", "a secret of 21 bytes", "/var", "/etc", "/nix/store", "/root"];
    assert_eq!(web.exec(&on_disk).unwrap().stdout, "/root/seen\n", "only its reader has written it down");

    // A switch starts whatever its targets want. That is not the moment to put anything back.
    web.exec(&[
        "sh",
        "-c",
        "echo newer > /run/keys/token; systemctl daemon-reload; systemctl start sysinit.target \
                            nixos-agent-secrets",
    ])
    .unwrap();
    assert_eq!(file(&world, "/run/keys/token").1, "newer\n");
    succeeds(&apply(&world));

    // It is there before its reader starts; the other one is not there at all.
    web.exec(&["rm", "/root/seen"]).unwrap();
    web.power_cycle().unwrap();
    let (looks, content) = file(&world, "/run/keys/token");
    assert_eq!((looks.as_str(), content.as_str()), ("440 daemon:root", "a secret of 21 bytes\n"));
    assert_eq!(web.read_file("/root/seen").unwrap(), "a secret of 21 bytes\n");
    assert!(!exists(&world, "/run/keys/other"));
    let run = plan(&world);
    says(&run, &["secrets added: other", "1 to change"]);
    succeeds(&apply(&world));
    no_changes(&world);

    // A change that does not stay is not what the next boot brings.
    control.write_file("/root/token", "another").unwrap();
    world
        .write(
            "network.nix",
            &one("systemd.services.bad = { wantedBy = [ \"multi-user.target\" ]; serviceConfig = { Type = \
        \"oneshot\"; ExecStart = \"${pkgs.busybox}/bin/busybox false\"; }; };"),
        )
        .unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\""]);
    assert_eq!(copies().lines().filter(|line| line.contains("token.")).count(), 1, "{}", copies());
    web.power_cycle().unwrap();
    assert_eq!(file(&world, "/run/keys/token").1, "a secret of 21 bytes\n");

    // Without its copy it is lost, and that shows.
    web.exec(&["sh", "-c", "echo nonsense > $(ls /var/lib/nixos-agent/sealed/*/token.*)"]).unwrap();
    web.power_cycle().unwrap();
    assert!(!exists(&world, "/run/keys/token"));
    world.write("network.nix", &one(READER)).unwrap();
    says(&plan(&world), &["secrets added: other, token"]);
    succeeds(&apply(&world));
    assert_eq!(file(&world, "/run/keys/token").1, "another");
    no_changes(&world);

    // A deployment that is made anew takes them over: a copy of the one before is put back no more.
    control.write_file("/root/token", "of the new one").unwrap();
    succeeds(&world.terraform(&["apply", "-auto-approve", "-replace=nixos_deployment.site"]));
    let owners =
        web.exec(&["find", "/var/lib/nixos-agent/sealed", "-mindepth", "1", "-type", "d"]).unwrap().stdout;
    assert_eq!(owners.lines().count(), 1, "{owners}");
    web.power_cycle().unwrap();
    assert_eq!(file(&world, "/run/keys/token").1, "of the new one");
    succeeds(&apply(&world));
    no_changes(&world);

    // When nothing is to persist any more, nothing of it stays.
    world.write("main.tf", &main(&token.replace("persist = true", "persist = false"))).unwrap();
    succeeds(&apply(&world));
    assert_eq!(copies(), "");
    assert!(!exists(&world, "/etc/systemd/system.control/nixos-agent-secrets.service"));
    no_changes(&world);
    world.write("main.tf", &main(&token.replace("user", "path = \"/var/token\", user"))).unwrap();
    fails_saying(&plan(&world), &["The secret is on disk as it is", "expected a path under `/run`"]);
}

#[test]
fn tokens_among_the_options_of_nix_are_in_no_process_list() {
    let world = world(&["web"]);
    let control = world.lab.control();
    let provider = |options: &str| {
        site(&world, &["web"], "")
            + &format!("provider \"nixos\" {{ nix = {{ options = {{ {options} }} }} }}\n")
    };
    let token = "\"access-tokens\" = \"example.org=X9canaryQ\"";
    set_up(&world, &provider(token), &one("environment.etc.a.text = \"a\";"));
    for (list, file) in [("cmdline", "/root/arguments"), ("environ", "/root/environments")] {
        let script = format!(
            "while :; do cat /proc/[0-9]*/{list} 2>/dev/null | tr '\\0' '\\n' | grep -a 'X9canar[y]' \
             >>{file}; sleep 0.02; done"
        );
        control.exec(&["sh", "-c", &format!("setsid sh -c {} >/dev/null 2>&1 &", quoted(&script))]).unwrap();
    }
    let bait = "X9canary-for-the-watcher";
    control.exec(&["sh", "-c", &format!("sleep 1; : {bait}")]).unwrap();
    let log = [("TF_LOG_PROVIDER", "TRACE"), ("TF_LOG_PATH", "/root/log"), ("NIX_CONFIG", "cores = 1")];
    let plan = world.terraform_with(&log, &["plan", "-input=false"]);
    succeeds(&plan);
    let apply = world.terraform_with(&log, &["apply", "-auto-approve", "-input=false"]);
    succeeds(&apply);
    control.exec(&["pkill", "-f", "/root/arguments|/root/environments"]).unwrap();
    let seen = control.read_file("/root/arguments").unwrap();
    assert!(seen.contains(bait), "the watcher sees what there is to see: {seen}");
    let seen: Vec<&str> = seen.lines().filter(|line| !line.contains(bait)).collect();
    assert_eq!(seen, Vec::<&str>::new(), "a process list shows a token");
    let given = control.read_file("/root/environments").unwrap();
    assert!(given.contains("access-tokens = example.org=X9canaryQ"), "Nix has got it: {given}");
    assert!(!plan.text.contains("X9canary") && !apply.text.contains("X9canary"), "Terraform shows a token");
    let found =
        control.exec(&["grep", "-c", "X9canary", "/root/log", "/root/site/terraform.tfstate"]).unwrap();
    assert_eq!(found.stdout, "/root/log:0\n/root/site/terraform.tfstate:0\n", "it is written down");
    // They count, and more than those that Terraform was started with.
    world.write("main.tf", &provider("\"restrict-eval\" = \"true\"")).unwrap();
    let restricted =
        world.terraform_with(&[("NIX_CONFIG", "restrict-eval = false")], &["plan", "-input=false"]);
    fails_saying(&restricted, &["restricted mode"]);
}
