//! The main story: deploy, nothing to do, edit, fail, drift, destroy.

use std::io::{BufRead as _, Read as _, Write as _};
use std::time::Duration;

use e2e::Run;

use crate::support::{TWO, apply, fails_saying, no_changes, one, plan, says, set_up, site, succeeds, world};

fn page(world: &e2e::World) -> String {
    let address = world.lab.host("web").address();
    let page = world.lab.host("db").exec(&["curl", "--silent", &format!("http://{address}/")]).unwrap();
    page.stdout.trim().to_owned()
}

#[test]
fn a_network_is_deployed_edited_and_forgotten() {
    let world = world(&["db", "web"]);
    set_up(&world, &site(&world, &["db", "web"], "arguments = { greeting = \"hello\" }"), TWO);

    // The first plan is exact although no machine was ever seen.
    let plan_json = world.plan_json();
    let planned = plan_json["planned_values"]["root_module"]["resources"].as_array().expect("a plan");
    let deployment = planned.iter().find(|r| r["address"] == "nixos_deployment.site").unwrap();
    let toplevel =
        deployment["values"]["systems"]["web"]["toplevel"].as_str().expect("known at plan").to_owned();

    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), toplevel, "apply deploys what the plan named");
    assert_eq!(page(&world), "hello from 10.88.0.2");
    let profile = world.lab.host("web").exec(&["readlink", "-f", "/nix/var/nix/profiles/system"]).unwrap();
    assert_eq!(profile.stdout.trim(), toplevel);
    let boots = world.lab.host("web").read_file("/boot/default-system").unwrap();
    assert_eq!(boots.trim(), toplevel, "the boot loader knows the new system");
    no_changes(&world);
    succeeds(&apply(&world));
    no_changes(&world);

    // Only web changes.
    let db = world.lab.host("db").exec(&["readlink", "/nix/var/nix/profiles/system"]).unwrap().stdout;
    world.write("main.tf", &site(&world, &["db", "web"], "arguments = { greeting = \"good day\" }")).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &[&format!("\"{toplevel}\" -> \"/nix/store/"), "files changed: /etc/www/index.html"]);
    succeeds(&apply(&world));
    assert_eq!(page(&world), "good day from 10.88.0.2");
    let same = world.lab.host("db").exec(&["readlink", "/nix/var/nix/profiles/system"]).unwrap().stdout;
    assert_eq!(same, db, "db got no new generation");

    // A reboot keeps it.
    world.lab.host("web").power_cycle().unwrap();
    assert_eq!(page(&world), "good day from 10.88.0.2");
    no_changes(&world);

    succeeds(&world.terraform(&["destroy", "-auto-approve"]));
    assert_eq!(page(&world), "good day from 10.88.0.2", "destroy leaves machines alone");
    let roots =
        world.lab.control().exec(&["find", "/root/.local/state/nixos-activator", "-type", "l"]).unwrap();
    assert_eq!(roots.stdout, "", "no roots are left");
}

#[test]
fn a_failing_unit_is_rolled_back_and_explained() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(crate::support::SLEEPER));
    succeeds(&apply(&world));
    let before = world.current_system("web");

    let broken = "systemd.services.sleeper = { wantedBy = [ \"multi-user.target\" ]; script = \"echo no \
                  such luck >&2; exit 7\"; };";
    world.write("network.nix", &one(broken)).unwrap();
    let run = apply(&world);
    fails_saying(
        &run,
        &[
            "The new system failed and was rolled back on machine \"web\"",
            "no such luck",
            "sleeper.service failed",
            "status=7",
            "went back to",
        ],
    );
    assert_eq!(world.current_system("web"), before, "web runs what it ran before");
    let active = world.lab.host("web").exec(&["systemctl", "is-active", "sleeper"]).unwrap();
    assert_eq!(active.stdout.trim(), "active", "its units do too");
    let state = world.resource("nixos_deployment.site");
    assert_eq!(state["systems"]["web"]["toplevel"], before.as_str(), "state tells the truth");
    let run = plan(&world);
    says(&run, &["units changed: sleeper.service", "1 to change"]);

    world.write("network.nix", &one(crate::support::SLEEPER)).unwrap();
    no_changes(&world);
}

#[test]
fn a_first_deployment_that_fails_can_be_repeated() {
    let world = world(&["web"]);
    let installed = world.current_system("web");
    set_up(&world, &site(&world, &["web"], ""), &one("testing.failActivation = true;"));
    fails_saying(
        &apply(&world),
        &["rolled back", "The activation script failed", "Activation script snippet 'broken' failed"],
    );
    assert_eq!(world.current_system("web"), installed);

    world.write("network.nix", &one("")).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn systems_that_refuse_to_switch_change_nothing() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    let unchanged = |why: &str| {
        assert_eq!(world.current_system("web"), before, "{why}");
        let profile =
            world.lab.host("web").exec(&["readlink", "-f", "/nix/var/nix/profiles/system"]).unwrap();
        assert_eq!(profile.stdout.trim(), before, "{why}");
        let boots = world.lab.host("web").read_file("/boot/default-system").unwrap();
        assert_eq!(boots.trim(), before, "{why}");
    };
    world.write("network.nix", &one("testing.failCheck = true;")).unwrap();
    fails_saying(
        &apply(&world),
        &["was not accepted by machine \"web\"", "pre-switch check 'broken' failed"],
    );
    unchanged("a failed check");
    world.write("network.nix", &one("testing.initInterfaceVersion = \"3\";")).unwrap();
    fails_saying(&apply(&world), &["needs a reboot of machine \"web\"", "action = \"boot\""]);
    unchanged("a system that needs a reboot");
    world.write("network.nix", &one("testing.failBootLoader = true;")).unwrap();
    fails_saying(&apply(&world), &["rolled back", "the boot loader could not be installed"]);
    unchanged("a boot loader that fails");
    world.write("network.nix", &one("testing.failLate = true;")).unwrap();
    fails_saying(&apply(&world), &["was not accepted by", "refused to begin", "Died at line 42"]);
    unchanged("a switch that dies before it stops anything");

    // As `nixos-rebuild` by hand would hold it.
    let lock = "exec 9> /run/nixos/switch-to-configuration.lock; flock 9; sleep 20";
    let mut holder = world.lab.host("web").command(&["sh", "-c", lock]).spawn().unwrap();
    while world
        .lab
        .host("web")
        .exec(&["flock", "-n", "/run/nixos/switch-to-configuration.lock", "true"])
        .unwrap()
        .success
    {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    world.write("network.nix", &one(crate::support::SLEEPER)).unwrap();
    fails_saying(&apply(&world), &["was not accepted by", "Could not acquire lock"]);
    unchanged("a lock that another one holds");
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn a_switch_that_dies_half_way_is_rolled_back() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(crate::support::SLEEPER));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    // It has stopped the sleeper when it dies.
    world.write("network.nix", &one("testing.failLate = true;")).unwrap();
    fails_saying(
        &apply(&world),
        &["was rolled back on", "exit code 1", "stopping the following units: sleeper.service"],
    );
    assert_eq!(world.current_system("web"), before);
    let active = world.lab.host("web").exec(&["systemctl", "is-active", "sleeper"]).unwrap();
    assert_eq!(active.stdout.trim(), "active");
}

#[test]
fn a_service_that_crashes_again_and_again_is_a_failed_one() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    let crashing = "systemd.services.crashing = { wantedBy = [ \"multi-user.target\" ]; script = \"echo \
                    again; exit 9\"; serviceConfig = { Restart = \"always\"; RestartSec = 60; }; };";
    world.write("network.nix", &one(crashing)).unwrap();
    fails_saying(&apply(&world), &["was rolled back on", "crashing.service failed", "again"]);
    assert_eq!(world.current_system("web"), before);
}

#[test]
fn systemd_may_be_replaced_during_activation() {
    let world = world(&["web"]);
    let network = one(
        "system.activationScripts.reexec = \"for n in 1 2 3; do /usr/bin/systemctl daemon-reexec; sleep 1; \
         done\";",
    );
    set_up(&world, &site(&world, &["web"], ""), &network);
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn drift_is_shown_and_repaired() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(crate::support::SLEEPER));
    succeeds(&apply(&world));
    let wanted = world.current_system("web");

    let by_hand =
        world.lab.host("web").exec(&["/root/installer-system/bin/switch-to-configuration", "test"]).unwrap();
    assert!(by_hand.success, "{}", by_hand.stderr);
    assert_ne!(world.current_system("web"), wanted);
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["not what was deployed last", "1 to change"]);
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), wanted);
    no_changes(&world);

    // The system runs, but the next boot would start another one: that is drift too.
    let installer = world.lab.host("web").exec(&["readlink", "-f", "/root/installer-system"]).unwrap().stdout;
    world
        .lab
        .host("web")
        .exec(&["nix-env", "-p", "/nix/var/nix/profiles/system", "--set", installer.trim()])
        .unwrap();
    says(&plan(&world), &["1 to change"]);
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn the_next_boot_is_an_action_too() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], "action = \"boot\""), &one(crate::support::SLEEPER));
    let running = world.current_system("web");
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), running, "nothing is activated now");
    no_changes(&world);
    world.lab.host("web").power_cycle().unwrap();
    assert_ne!(world.current_system("web"), running, "the next boot starts the new system");
    no_changes(&world);
}

#[test]
fn what_was_only_put_there_is_activated_when_the_action_changes() {
    let world = world(&["web"]);
    let action = |action: &str| site(&world, &["web"], &format!("action = \"{action}\""));
    let running = world.current_system("web");
    let boots =
        || world.lab.host("web").read_file("/boot/default-system").unwrap_or_default().trim().to_owned();
    let planned = || world.resource("nixos_deployment.site")["systems"]["web"]["toplevel"].clone();
    set_up(&world, &action("dry_activate"), &one(crate::support::SLEEPER));
    for (step, runs, stays) in [
        ("dry_activate", false, false),
        ("push", false, false),
        ("boot", false, true),
        ("switch", true, true),
    ] {
        world.write("main.tf", &action(step)).unwrap();
        succeeds(&apply(&world));
        let wanted = planned();
        assert_ne!(wanted, running.as_str());
        let is_there =
            world.lab.host("web").exec(&["nix-store", "--check-validity", wanted.as_str().unwrap()]);
        assert!(is_there.unwrap().success, "{step}: the closure is there");
        assert_eq!(world.current_system("web") == wanted.as_str().unwrap(), runs, "{step}");
        assert_eq!(boots() == wanted.as_str().unwrap(), stays, "{step}");
        no_changes(&world);
    }
}

#[test]
fn a_failed_build_touches_nothing_and_forgets_nothing() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    let broken = "environment.etc.x.source = pkgs.runCommand \"x\" {} \"echo out of luck; exit 3\";";
    world.write("network.nix", &one(broken)).unwrap();
    fails_saying(&apply(&world), &["The build failed", "out of luck", "No machine was changed"]);
    assert_eq!(world.current_system("web"), before);

    // What was deployed last is still known, so the next plan can say what changes.
    world.write("network.nix", &one(crate::support::SLEEPER)).unwrap();
    let run = plan(&world);
    succeeds(&run);
    says(&run, &["units added: sleeper.service"]);
}

#[test]
fn two_deployments_of_one_machine_do_not_mix() {
    let world = world(&["web"]);
    let slow = |seconds: u32| one(&format!("system.activationScripts.slow = \"sleep {seconds}\";"));
    set_up(&world, &site(&world, &["web"], ""), &slow(3));
    let directory = e2e::DIRECTORY;
    let control = world.lab.control();
    control.exec(&["sh", "-c", &format!("cp -r {directory} /root/other")]).unwrap();
    control.write_file("/root/other/network.nix", slow(4)).unwrap();
    let mut first = world
        .terraform_command(&[], &["apply", "-auto-approve"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let start = std::time::Instant::now();
    while !world.lab.host("web").exec(&["pgrep", "-f", "sleep 3"]).unwrap().success {
        assert!(start.elapsed().as_secs() < 60, "the first activation begins");
    }
    let second = control
        .exec(&[
            "env",
            "NIX_PATH=nixpkgs=/root/mini-nixos",
            "TF_CLI_ARGS=-no-color",
            "terraform",
            "-chdir=/root/other",
            "apply",
            "-auto-approve",
        ])
        .unwrap();
    assert!(!second.success, "the second one is refused");
    assert!(second.stderr.contains("Another activation"), "{}", second.stderr);
    assert!(first.wait().unwrap().success(), "the first one is not disturbed");
    no_changes(&world);
}

/// Where it is seen only at apply that two deployments have one machine, the first one is done and the second one
/// does nothing.
#[test]
fn a_machine_is_in_one_deployment_of_a_run() {
    let world = world(&["web"]);
    let host = world.lab.host("web");
    let before = world.current_system("web");
    let both = |address: &str| {
        let deployment = |name: &str| {
            format!(
                "resource \"nixos_deployment\" \"{name}\" {{\n  network = \
                 \"${{path.module}}/network.nix\"\n  arguments = {{ word = \"{name}\" }}\n  machines = {{ \
                 web = {{ host = {address}, host_public_key = \"{}\" }} }}\n}}\n",
                host.host_public_key()
            )
        };
        format!(
            "{}resource \"terraform_data\" \"address\" {{ input = \"{}\" }}\n{}{}",
            crate::support::HEAD,
            host.address(),
            deployment("a"),
            deployment("b")
        )
    };
    let network = one("environment.etc.word.text = arguments.word;");
    set_up(&world, &both(&format!("\"{}\"", host.address())), &network);
    let twice =
        ["Machine \"web\" is in two deployments", "Take the machine out of one of them", "network.nix"];
    fails_saying(&plan(&world), &twice);
    assert_eq!(world.current_system("web"), before);
    set_up(&world, &both("terraform_data.address.output"), &network);
    succeeds(&plan(&world));
    fails_saying(&apply(&world), &twice);
    let state = world.state().to_string();
    let there = ["a", "b"].map(|name| state.contains(&format!("nixos_deployment.{name}")));
    assert_ne!(there[0], there[1], "one is deployed: {state}");
    let written = host.exec(&["cat", "/etc/word"]).unwrap().stdout;
    assert_eq!(written, if there[0] { "a" } else { "b" });
}

/// Two Terraform states know nothing of each other. What the machine remembers lets both see it.
#[test]
fn deployments_of_two_states_notice_each_other() {
    let world = world(&["web"]);
    let main = |word: &str| site(&world, &["web"], &format!("arguments = {{ word = \"{word}\" }}"));
    set_up(&world, &main("one"), &one("environment.etc.word.text = arguments.word;"));
    let run = apply(&world);
    succeeds(&run);
    let other = "ran the system of another deployment";
    assert!(!run.text.contains(other), "nothing was there before:\n{}", run.text);
    let id = world.resource("nixos_deployment.site")["id"].as_str().unwrap().to_owned();

    let directory = e2e::DIRECTORY;
    let script = format!("cp -r {directory} /root/other && rm /root/other/terraform.tfstate*");
    let control = world.lab.control();
    assert!(control.exec(&["sh", "-c", &script]).unwrap().success);
    control.write_file("/root/other/main.tf", main("two")).unwrap();
    let there = |verb: &str, more: &[&str]| {
        let environment = ["env", "NIX_PATH=nixpkgs=/root/mini-nixos", "TF_CLI_ARGS=-no-color"];
        let terraform = ["terraform", "-chdir=/root/other", verb, "-input=false"];
        let out = control.exec(&[environment.as_slice(), &terraform, more].concat()).unwrap();
        assert!(out.success, "{}{}", out.stdout, out.stderr);
        Run { code: 0, text: out.stdout + &out.stderr, took: Duration::ZERO }
    };
    let run = there("apply", &["-auto-approve"]);
    says(&run, &["Machine \"web\" ran the system of another deployment", &id]);
    let run = there("plan", &[]);
    says(&run, &["No changes."]);
    assert!(!run.text.contains("another deployment"), "it is its own system now:\n{}", run.text);

    // The first one sees it at the plan, and says it as long as both go on.
    let run = plan(&world);
    succeeds(&run);
    says(
        &run,
        &["Machine \"web\" runs the system of another deployment", "take the machine out of one of them"],
    );
    succeeds(&apply(&world));
    says(&there("plan", &[]), &["Machine \"web\" runs the system of another deployment", &id]);

    // One that replaces itself is not another one.
    let run = world.terraform(&["apply", "-auto-approve", "-replace=nixos_deployment.site"]);
    succeeds(&run);
    world.write("main.tf", &main("three")).unwrap();
    let again = world.terraform(&["apply", "-auto-approve", "-replace=nixos_deployment.site"]);
    succeeds(&again);
    assert!(![run.text, again.text].concat().contains("another deployment"));
}

#[test]
fn one_network_deployed_twice_is_two_deployments() {
    let world = world(&["a", "b"]);
    let both = |a: &str, b: &str| {
        let deployment = |name: &str, greeting: &str| {
            format!(
                "resource \"nixos_deployment\" \"{name}\" {{\n  network = \
                 \"${{path.module}}/network.nix\"\n  machines = {{ web = nixos_machine.{name}.target }}\n  \
                 arguments = {{ greeting = \"{greeting}\" }}\n}}\n"
            )
        };
        let machines: String =
            ["a", "b"].iter().map(|name| crate::support::machine(&world, name, "")).collect();
        format!("{}{machines}{}{}", crate::support::HEAD, deployment("a", a), deployment("b", b))
    };
    set_up(&world, &both("one", "two"), &one("environment.etc.greeting.text = arguments.greeting;"));
    let greeting = |name: &str| world.lab.host(name).exec(&["cat", "/etc/greeting"]).unwrap().stdout;
    succeeds(&apply(&world));
    assert_eq!((greeting("a"), greeting("b")), ("one".to_owned(), "two".to_owned()));
    world.write("main.tf", &both("three", "four")).unwrap();
    succeeds(&apply(&world));
    assert_eq!((greeting("a"), greeting("b")), ("three".to_owned(), "four".to_owned()));
    no_changes(&world);
}

#[test]
fn a_saved_plan_is_applied_as_it_was_or_not_at_all() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    let saved = ["plan", "-input=false", "-out=saved.plan"];
    succeeds(&world.terraform(&saved));
    succeeds(&world.terraform(&["apply", "-input=false", "saved.plan"]));
    no_changes(&world);

    // The source changes between plan and apply: what was never planned is not deployed.
    let before = world.current_system("web");
    world.write("network.nix", &one(crate::support::SLEEPER)).unwrap();
    succeeds(&world.terraform(&saved));
    world.write("network.nix", &one("environment.etc.other.text = \"other\";")).unwrap();
    let run = world.terraform(&["apply", "-input=false", "saved.plan"]);
    let ours = ["has changed since it was planned", "Machine \"web\": planned /nix/store/", "They differ in"];
    fails_saying(&run, &ours);
    assert!(!run.text.contains("bug in the provider"), "{}", run.text);
    assert_eq!(world.current_system("web"), before);

    // An older plan that is true again is applied, whatever was planned since.
    let one_file = |text: &str| one(&format!("environment.etc.word.text = \"{text}\";"));
    world.write("network.nix", &one_file("first")).unwrap();
    succeeds(&world.terraform(&saved));
    world.write("network.nix", &one_file("second")).unwrap();
    succeeds(&plan(&world));
    world.write("network.nix", &one_file("first")).unwrap();
    succeeds(&world.terraform(&["apply", "-input=false", "saved.plan"]));
    no_changes(&world);

    // One that was made on another computer is applied, too, whatever was planned here.
    world.write("network.nix", &one_file("theirs")).unwrap();
    let elsewhere = [("XDG_STATE_HOME", "/tmp/elsewhere")];
    succeeds(&world.terraform_with(&elsewhere, &["plan", "-input=false", "-out=theirs.plan"]));
    succeeds(&world.terraform(&["apply", "-input=false", "theirs.plan"]));
    no_changes(&world);

    // The same while somebody thinks about the answer to "Do you want to perform these actions?".
    let before = world.current_system("web");
    world.write("network.nix", &one_file("third")).unwrap();
    let mut apply = world
        .terraform_command(&[], &["apply"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = std::io::BufReader::new(apply.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("Only 'yes' will be accepted") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "terraform asks");
    }
    world.write("network.nix", &one_file("fourth")).unwrap();
    apply.stdin.take().unwrap().write_all(b"yes\n").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    let output = apply.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("has changed since it was planned"), "{text}");
    assert!(text.contains("word (text)"), "{text}");
    assert_eq!(world.current_system("web"), before);
}

#[test]
fn old_generations_go_but_never_the_last_or_anothers() {
    let world = world(&["web"]);
    let main = site(&world, &["web"], "keep_generations = 2");
    set_up(&world, &main, &one(""));
    let web = world.lab.host("web");
    let generations = || {
        let list = web.exec(&["sh", "-c", "ls /nix/var/nix/profiles | grep -c '^system-.*-link$'"]).unwrap();
        list.stdout.trim().parse::<u32>().unwrap()
    };
    assert_eq!(generations(), 1, "the installer's");
    for n in 0..5 {
        world.write("network.nix", &one(&format!("environment.etc.n.text = \"{n}\";"))).unwrap();
        succeeds(&apply(&world));
        no_changes(&world);
        assert_eq!(generations(), (2 + n).min(3), "the installer's, and two of ours, after {n}");
    }
    let first = web.exec(&["readlink", "/nix/var/nix/profiles/system-1-link"]).unwrap().stdout;
    assert!(first.starts_with("/nix/store/"), "what others made stays");
    world.write("main.tf", &site(&world, &["web"], "keep_generations = 1")).unwrap();
    fails_saying(&world.terraform(&["validate"]), &["keep_generations", "whole number from 2"]);
}
