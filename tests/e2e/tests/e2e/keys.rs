//! `deployment.keys` of a specification, which are secrets too.

use crate::secrets::{exists, file};
use crate::support::{apply, fails_saying, no_changes, one, plan, says, set_up, site, succeeds, world};

#[test]
fn keys_of_a_specification_are_sent_and_waited_for() {
    let world = world(&["web"]);
    let control = world.lab.control();
    control.write_file("/root/key", "from a file").unwrap();
    let network =
        one("deployment.keys.database = { keyCommand = [ \"sh\" \"-c\" \"printf printed\" ]; destDir = \
         \"/var/keys\"; user = \"daemon\"; permissions = \"0440\"; };\ndeployment.keys.token.keyFile = \
         /root/key;\nsystemd.services.user = { wantedBy = [ \"multi-user.target\" ]; after = [ \
         \"token-key.service\" ]; requires = [ \"token-key.service\" ]; serviceConfig = { Type = \
         \"oneshot\"; RemainAfterExit = true; }; script = \"${pkgs.busybox}/bin/busybox cp /run/keys/token \
         /root/seen\"; };");
    set_up(&world, &site(&world, &["web"], ""), &network);
    let run = apply(&world);
    succeeds(&run);
    assert!(!run.text.contains("Warning"), "{}", run.text);
    assert_eq!(file(&world, "/var/keys/database"), ("440 daemon:root".to_owned(), "printed".to_owned()));
    assert_eq!(file(&world, "/run/keys/token"), ("600 root:root".to_owned(), "from a file".to_owned()));
    assert_eq!(world.lab.host("web").read_file("/root/seen").unwrap(), "from a file");
    no_changes(&world);
    control.write_file("/root/key", "changed").unwrap();
    says(&plan(&world), &["secrets changed: token"]);
    succeeds(&apply(&world));
    assert_eq!(file(&world, "/run/keys/token").1, "changed");

    let twice = "secrets = { token = { file = \"/root/key\" } }";
    world.write("main.tf", &site(&world, &["web"], twice)).unwrap();
    fails_saying(&plan(&world), &["Machine \"web\" has two secrets \"token\""]);
}

/// A service that comes after `NAME-key.service` runs as the one whom the secret belongs to: that has to be true by
/// then.
#[test]
fn a_key_is_there_once_it_belongs_to_its_owner() {
    let world = world(&["web"]);
    world.lab.control().write_file("/root/key", "x").unwrap();
    let network =
        one("deployment.keys.token = { keyFile = /root/key; user = \"daemon\"; group = \"daemon\"; };\n\
         deployment.keys.numbered = { keyFile = /root/key; user = \"1\"; group = \"1\"; };");
    set_up(&world, &site(&world, &["web"], ""), &network);
    succeeds(&apply(&world));
    let web = world.lab.host("web");
    let run = |command: &[&str]| web.exec(command).unwrap().stdout.trim().to_owned();
    let state = |unit: &str| run(&["systemctl", "show", "--property=ActiveState", "--value", unit]);
    let becomes = |unit: &str, wanted: &str, seconds: u64| {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
        while state(unit) != wanted {
            assert!(std::time::Instant::now() < until, "{unit} is {}, not {wanted}", state(unit));
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    };
    becomes("token-key.service", "active", 20);
    becomes("numbered-key.service", "active", 20);
    // As it is while its owner's account is not there yet.
    run(&["chown", "root:root", "/run/keys/token"]);
    run(&["systemctl", "restart", "--no-block", "token-key.service"]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(state("token-key.service"), "activating");
    run(&["chown", "daemon:root", "/run/keys/token"]);
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(state("token-key.service"), "activating", "the group is not right");
    run(&["chown", "daemon:daemon", "/run/keys/token"]);
    becomes("token-key.service", "active", 20);
    // An owner that never comes holds nothing up for ever.
    run(&["chown", "root:root", "/run/keys/token"]);
    run(&["systemctl", "restart", "--no-block", "token-key.service"]);
    becomes("token-key.service", "activating", 20);
    becomes("token-key.service", "active", 120);
    assert!(run(&["journalctl", "-u", "token-key.service"]).contains("does not belong to daemon:daemon"));
}

#[test]
fn keys_written_in_a_specification_are_sent_and_seen_nowhere_else() {
    let world = world(&["web"]);
    let (control, web) = (world.lab.control(), world.lab.host("web"));
    let canary = "X9canaryQ";
    let network = |text: &str| {
        one(&format!(
            "deployment.keys.token.text = \"{text}\";\ndeployment.keys.password = {{ text = \"quotes \\\" \
             and\\nlines\" + builtins.readFile /root/vault; user = \"daemon\"; permissions = \"0440\"; \
             destDir = \"/var/keys\"; }};\ndeployment.keys.bare = \
             \"{canary}bare\";\ndeployment.keys.command = {{ keyCommand = [ \"printf\" \"printed\" ]; }};"
        ))
    };
    control.write_file("/root/vault", format!("{canary}file")).unwrap();
    set_up(&world, &site(&world, &["web"], ""), &network(&format!("{canary}one")));
    let environment = [("TF_LOG", "TRACE"), ("TF_LOG_PATH", "/root/log")];
    let run = world.terraform_with(&environment, &["apply", "-auto-approve"]);
    succeeds(&run);
    assert!(!run.text.contains("Warning"), "{}", run.text);
    assert_eq!(file(&world, "/run/keys/token"), ("600 root:root".to_owned(), format!("{canary}one")));
    let password = ("440 daemon:root".to_owned(), format!("quotes \" and\nlines{canary}file"));
    assert_eq!(file(&world, "/var/keys/password"), password);
    assert_eq!(file(&world, "/run/keys/bare").1, format!("{canary}bare"));
    assert_eq!(file(&world, "/run/keys/command").1, "printed");
    no_changes(&world);

    // A changed one is planned, and no other.
    world.write("network.nix", &network(&format!("{canary}two"))).unwrap();
    succeeds(&world.terraform_with(&environment, &["plan", "-out=plan"]));
    let run = world.terraform(&["show", "plan"]);
    says(&run, &["-> \"secrets changed: token\"", "3 unchanged elements hidden"]);
    // One that changes after the plan is not what was planned.
    world.write("network.nix", &network(&format!("{canary}three"))).unwrap();
    fails_saying(&world.terraform(&["apply", "plan"]), &["Secret \"token\" has changed since the plan"]);
    world.write("network.nix", &network(&format!("{canary}two"))).unwrap();
    succeeds(&world.terraform_with(&environment, &["plan", "-out=plan"]));
    let run = world.terraform_with(&environment, &["apply", "plan"]);
    succeeds(&run);
    assert!(!run.text.contains(canary), "the output shows a secret");
    assert_eq!(file(&world, "/run/keys/token").1, format!("{canary}two"));
    no_changes(&world);

    // What is packed or encoded is unpacked for the search.
    let unpack = "cd /root && mkdir unpacked && busybox unzip -q -d unpacked site/plan && grep -o \
                  '\"private\": \"[^\"]*\"' site/terraform.tfstate | cut -d '\"' -f 4 | base64 -d > \
                  unpacked/private && grep -q secrets_key unpacked/private && test -s unpacked/tfplan";
    let unpacked = control.exec(&["sh", "-c", unpack]).unwrap();
    assert!(unpacked.success, "{}", unpacked.stderr);

    let search = |host: &lab::Host, except: &[&str]| {
        let script = format!(
            "grep -rlaF {canary} / --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev 2>/dev/null; true"
        );
        let found = host.exec(&["sh", "-c", &script]).unwrap().stdout;
        let found = found.lines().filter(|path| !except.iter().any(|known| path.starts_with(known)));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    let here = search(control, &["/root/vault", "/root/site/network.nix"]);
    assert_eq!(here, Vec::<String>::new(), "written down where Terraform runs");
    assert_eq!(
        search(web, &["/run/keys/", "/var/keys/"]),
        Vec::<String>::new(),
        "written down on the machine"
    );

    // Back to the first generation, while the specification is broken: it keeps what it has.
    world.write("network.nix", "{ web = { ... }: throw \"broken\"; }").unwrap();
    world.write("main.tf", &site(&world, &["web"], "generations = { web = 1 }")).unwrap();
    succeeds(&apply(&world));
    assert_eq!(file(&world, "/run/keys/token").1, format!("{canary}two"));
    no_changes(&world);
    // What it loses meanwhile nobody can give it.
    web.exec(&["rm", "/run/keys/token"]).unwrap();
    let run = apply(&world);
    succeeds(&run);
    says(&run, &["Some secrets of machine \"web\" cannot be had", "It keeps those that it has"]);
    assert!(!exists(&world, "/run/keys/token") && exists(&world, "/run/keys/bare"));
    world.write("network.nix", &network(&format!("{canary}two"))).unwrap();
    succeeds(&apply(&world));
    assert_eq!(file(&world, "/run/keys/token").1, format!("{canary}two"));
    no_changes(&world);
    world.write("main.tf", &site(&world, &["web"], "")).unwrap();

    // One without content.
    world.write("network.nix", &one("deployment.keys.token.user = \"daemon\";")).unwrap();
    fails_saying(
        &plan(&world),
        &["`deployment.keys.token` has no content", "`text`, `keyFile` and `keyCommand`"],
    );

    // Without them none is left.
    world.write("network.nix", &one("")).unwrap();
    succeeds(&apply(&world));
    assert!(!exists(&world, "/run/keys/token") && !exists(&world, "/var/keys/password"));
    no_changes(&world);

    // NixOps took one content for a key, and refused more.
    let both = "deployment.keys.both = { text = \"one\"; keyCommand = [ \"printf\" \"two\" ]; };";
    world.write("network.nix", &one(both)).unwrap();
    fails_saying(
        &plan(&world),
        &["`deployment.keys.both` has more than one content", "Found `text` and `keyCommand`"],
    );
}
