//! `nixos-activator` on a deployed directory.

use e2e::{DIRECTORY, World};
use lab::Finished;

use crate::support::{SLEEPER, TWO, apply, one, plan, says, set_up, site, succeeds, world};

fn activator(world: &World, arguments: &[&str]) -> Finished {
    let words = [&["nixos-activator", "-C", DIRECTORY][..], arguments].concat();
    world.lab.control().exec(&words).unwrap()
}

#[track_caller]
fn prints(finished: &Finished, texts: &[&str]) {
    let all = format!("{}{}", finished.stdout, finished.stderr);
    for text in texts {
        assert!(all.contains(text), "it was to print {text:?}:\n{all}");
    }
}

#[test]
fn machines_are_looked_after_from_the_command_line() {
    let world = world(&["web", "db"]);
    set_up(&world, &site(&world, &["web", "db"], ""), TWO);
    let nothing = activator(&world, &["status"]);
    assert_eq!(nothing.code, Some(1));
    prints(&nothing, &["has no nixos_deployment"]);
    succeeds(&apply(&world));

    let status = activator(&world, &["status"]);
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    prints(&status, &["MACHINE", "web", "db", "up", "as deployed", "ok"]);
    let web = world.lab.host("web");
    web.exec(&["systemd-run", "--unit=unlucky", "false"]).unwrap();
    world.lab.host("db").link_down().unwrap();
    let status = activator(&world, &["status"]);
    assert_eq!(status.code, Some(2 + 16), "one is down, one has failed units");
    prints(&status, &["down", "failed: unlucky.service", "db: ", "cannot be reached"]);
    let json = activator(&world, &["status", "--json", "--on", "web"]);
    let seen: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(seen[0]["flags"], 16);
    assert_eq!(seen[0]["status"]["facts"]["failed_units"][0], "unlucky.service");
    assert_eq!(seen.as_array().map(Vec::len), Some(1));
    world.lab.host("db").link_up().unwrap();
    web.exec(&["systemctl", "reset-failed"]).unwrap();

    let all = activator(&world, &["exec", "--", "sh", "-c", "hostname; echo oh >&2; exit 3"]);
    assert_eq!(all.code, Some(3));
    prints(&all, &["web: web\n", "db: db\n", "web: oh\n"]);
    let one = activator(&world, &["exec", "--on", "db", "hostname"]);
    assert_eq!((one.code, one.stdout.as_str()), (Some(0), "db: db\n"));
    let login = activator(&world, &["ssh", "web", "--", "echo $((6 * 7)); exit 5"]);
    assert_eq!((login.code, login.stdout.as_str()), (Some(5), "42\n"));
    let typo = activator(&world, &["ssh", "wbe", "true"]);
    assert_eq!(typo.code, Some(1));
    prints(&typo, &["no machine \"wbe\"", "db, web"]);

    let id = || web.exec(&["cat", "/proc/sys/kernel/random/boot_id"]).unwrap().stdout;
    let (before, system) = (id(), world.current_system("web"));
    let reboot = activator(&world, &["reboot", "--on", "web"]);
    assert_eq!(reboot.code, Some(0), "{}", reboot.stderr);
    prints(&reboot, &["web: is back", &system]);
    assert_ne!(id(), before);

    // Secrets are listed by name. A reboot empties /run.
    world.lab.control().write_file("/root/token", "word").unwrap();
    let with_secret = site(
        &world,
        &["web", "db"],
        "secrets = { token = { file = \"/root/token\", machines = [\"web\"] } }",
    );
    world.write("main.tf", &with_secret).unwrap();
    succeeds(&apply(&world));
    let secrets = activator(&world, &["secrets"]);
    assert_eq!(secrets.code, Some(0), "{}", secrets.stderr);
    prints(&secrets, &["web      token   as it was sent"]);
    web.exec(&["sh", "-c", "echo other > /run/keys/token"]).unwrap();
    let secrets = activator(&world, &["secrets"]);
    assert_eq!(secrets.code, Some(1));
    prints(&secrets, &["web      token   missing or altered"]);
    let garbage = activator(&world, &["gc", "--on", "web", "--older-than", "30"]);
    assert_eq!(garbage.code, Some(0), "{}{}", garbage.stdout, garbage.stderr);
    prints(&garbage, &["web: ", "freed"]);
    assert_eq!(world.current_system("web"), system, "what runs is not garbage");

    for shell in ["bash", "zsh", "fish"] {
        let script = activator(&world, &["completions", shell]);
        prints(&script, &["nixos-activator", "rollback"]);
    }
    prints(&activator(&world, &["man"]), &[".TH nixos-activator", "generations"]);
}

#[test]
fn an_earlier_generation_is_activated() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    set_up(&world, &site(&world, &["web"], ""), &one(SLEEPER));
    succeeds(&apply(&world));
    let first = world.current_system("web");
    world.write("network.nix", &one("")).unwrap();
    succeeds(&apply(&world));
    let second = world.current_system("web");

    let list = activator(&world, &["generations", "web"]);
    prints(&list, &[&first, &second, "boots, runs"]);
    let missing = activator(&world, &["rollback", "web", "--to", "77"]);
    assert_eq!(missing.code, Some(1));
    prints(&missing, &["has no generation 77", "1, 2, 3"]);
    assert_eq!(world.current_system("web"), second);

    let back = activator(&world, &["rollback", "web"]);
    assert_eq!(back.code, Some(0), "{}", back.stderr);
    prints(&back, &["runs generation 2 again", "AwaitingConfirmation", &first]);
    assert_eq!(world.current_system("web"), first);
    assert_eq!(web.read_file("/boot/default-system").unwrap().trim(), first);
    // Terraform sees it, and the configuration wins.
    says(&plan(&world), &["1 to change", &second]);

    // What cannot run is not kept, here as in a deployment.
    let broken = "systemd.services.broken = { wantedBy = [ \"multi-user.target\" ]; serviceConfig = { Type = \"oneshot\"; \
                  ExecStart = \"${pkgs.busybox}/bin/busybox test -e /root/well\"; }; };";
    web.write_file("/root/well", "").unwrap();
    world.write("network.nix", &one(broken)).unwrap();
    succeeds(&apply(&world));
    world.write("network.nix", &one("")).unwrap();
    succeeds(&apply(&world));
    web.exec(&["rm", "/root/well"]).unwrap();
    let before = world.current_system("web");
    let failed = activator(&world, &["rollback", "web"]);
    assert_eq!(failed.code, Some(1));
    prints(&failed, &["Units failed", "went back to"]);
    assert_eq!(world.current_system("web"), before);
}
