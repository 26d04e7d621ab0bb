//! `nixos-activator` on a deployed directory.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};

use e2e::{DIRECTORY, World};
use lab::{Finished, HostOptions};

use crate::reboots::kernel;
use crate::support::{
    SLEEPER, TWO, apply, apply_until, fails_saying, one, plan, runs, says, set_up, site, succeeds, world,
};

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
    // Disks of their own: how full the disk of this computer is does not count.
    let own_disk = HostOptions { disk_bytes: Some(512 << 20), ..HostOptions::default() };
    let hosts = ["web", "db"].map(|name| (name, own_disk.clone()));
    let world = World::boot_with(&hosts, &|step| eprintln!("{step}")).unwrap();
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
        prints(&script, &["nixos-activator", "rollback", "diff", "watch"]);
    }
    prints(&activator(&world, &["man"]), &[".TH nixos-activator", "generations", "diff", "watch"]);
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
    let broken = "systemd.services.broken = { wantedBy = [ \"multi-user.target\" ]; serviceConfig = { Type = \
                  \"oneshot\"; ExecStart = \"${pkgs.busybox}/bin/busybox test -e /root/well\"; }; };";
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

#[test]
fn a_command_is_heard_while_it_runs() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    let script = "echo first; until test -e /root/go; do sleep 0.1; done; echo last";
    let words = ["timeout", "60", "nixos-activator", "-C", DIRECTORY, "exec", "--", "sh", "-c", script];
    let mut child = world.lab.control().command(&words).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "web: first");
    world.lab.host("web").write_file("/root/go", "").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "web: last");
    assert!(child.wait().unwrap().success());
}

#[test]
fn two_generations_are_compared() {
    let world = world(&["web"]);
    let unit = |name: &str, text: &str| {
        format!(
            "environment.etc.\"systemd/system/{name}.service\".text = \"[Unit]\\nDescription={text}\\n\";"
        )
    };
    let before = [
        "environment.systemPackages = [ pkgs.hello (pkgs.makePackage \"htop\" \"3.3.0\") ];".to_owned(),
        "environment.etc.motd.text = \"one\"; environment.etc.one.text = \"\";".to_owned(),
        unit("backup", "every day"),
        unit("old", "it goes"),
    ];
    let after = [
        "environment.systemPackages = [ (pkgs.makePackage \"hello\" \"2.13\") (pkgs.makePackage \"curl\" \
         \"8.11.0\") ];"
            .to_owned(),
        "environment.etc.motd.text = \"two\"; environment.etc.two.text = \"\";".to_owned(),
        unit("backup", "every night"),
        unit("new", "it comes"),
        kernel("6.6.70"),
    ];
    set_up(&world, &site(&world, &["web"], ""), &one(&before.join("\n")));
    succeeds(&apply(&world));
    let first = world.current_system("web");
    world.write("network.nix", &one(&after.join("\n"))).unwrap();
    succeeds(&apply(&world));
    let second = world.current_system("web");

    let diff = activator(&world, &["diff", "web"]);
    assert_eq!(diff.code, Some(0), "{}", diff.stderr);
    prints(
        &diff,
        &[
            &format!("from  generation 2  {first}\n"),
            &format!("to    generation 3  {second}  (runs)\n"),
            "\n\nkernel 6.6.63 -> 6.6.70\n\n",
            "\n\npackages\n  + curl 8.11.0\n  ~ hello 2.12.1 -> 2.13\n  - htop 3.3.0\n\n",
            "\n\nunits\n  ~ backup.service\n  + new.service\n  - old.service\n\n",
            "\n\nfiles\n  ~ /etc/motd\n  - /etc/one\n  + /etc/two\n\n",
            "\n\nstore paths: ",
        ],
    );
    let backwards = activator(&world, &["diff", "web", "--from", "3", "--to", "2"]);
    prints(
        &backwards,
        &["kernel 6.6.70 -> 6.6.63", "  - curl 8.11.0\n  ~ hello 2.13 -> 2.12.1\n  + htop 3.3.0\n"],
    );
    let same = activator(&world, &["diff", "web", "--from", "2", "--to", "2"]);
    assert_eq!(same.code, Some(0), "{}", same.stderr);
    prints(&same, &["They are the same system."]);
    for (arguments, expected) in [
        (["--from", "77"], "has no generation 77; it has 1, 2, 3"),
        (["--to", "77"], "has no generation 77; it has 1, 2, 3"),
        (["--to", "1"], "has no generation before 1; it has 1, 2, 3"),
    ] {
        let missing = activator(&world, &[&["diff", "web"][..], &arguments].concat());
        assert_eq!(missing.code, Some(1), "{arguments:?}");
        prints(&missing, &[expected]);
    }
    assert_eq!(world.current_system("web"), second, "nothing was changed");
}

/// A unit of which systemd waits until `script` has ended.
fn job(name: &str, script: &str) -> String {
    one(&format!(
        "systemd.services.{name} = {{ wantedBy = [ \"multi-user.target\" ]; serviceConfig.Type = \
         \"oneshot\"; script = \"{script}\"; }};"
    ))
}

/// A `watch` that runs on control.
struct Watch {
    child: Child,
    stdout: BufReader<ChildStdout>,
    text: String,
}

impl Watch {
    /// Returns once it has looked at the machine and found nothing.
    fn start(world: &World, more: &[&str]) -> Self {
        // It ends in any case, or the test would not.
        let words = [&["timeout", "400", "nixos-activator", "-C", DIRECTORY, "watch"], more].concat();
        let mut child = world.lab.control().command(&words).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut watch = Self { child, stdout, text: String::new() };
        watch.until("web: waiting\n");
        watch
    }

    /// Waits until it has printed this.
    #[track_caller]
    fn until(&mut self, text: &str) {
        while !self.text.contains(text) {
            let read = self.stdout.read_line(&mut self.text).unwrap();
            assert!(read > 0, "watch was to print {text:?}:\n{}", self.text);
        }
    }

    /// Waits for its end.
    fn end(mut self) -> Finished {
        self.stdout.read_to_string(&mut self.text).unwrap();
        let status = self.child.wait().unwrap();
        Finished { success: status.success(), code: status.code(), stdout: self.text, stderr: String::new() }
    }
}

#[test]
fn an_apply_is_watched() {
    let world = world(&["web"]);
    let (web, control) = (world.lab.host("web"), world.lab.control());
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    // A machine without an agent has nothing to say.
    web.exec(&["rm", "-r", "/var/lib/nixos-agent/bin"]).unwrap();

    let mut watch = Watch::start(&world, &[]);
    world.write("network.nix", &job("slow", "sleep 8")).unwrap();
    let applying = apply_until(&world, || runs(web, "sleep 8"));
    let starting = "web: Activating: starting the following units: slow.service\n";
    watch.until(starting);
    // It loses its connection in the middle.
    let kill = control.exec(&["sh", "-c", "pkill -P \"$(pgrep -x nixos-activator)\" -x ssh"]).unwrap();
    assert!(kill.success, "it has a connection: {}", kill.stderr);
    let applied = applying.wait_with_output().unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let watched = watch.end();
    assert_eq!(watched.code, Some(0), "{}", watched.stdout);
    prints(
        &watched,
        &[
            "web: Activating\n",
            starting,
            "web: the connection to ",
            "web: AwaitingConfirmation\n",
            "web: Committing\n",
            "web: Activated: The machine runs the system, and boots it.\n",
        ],
    );
    assert_eq!(watched.stdout.matches(starting).count(), 1, "nothing is shown twice:\n{}", watched.stdout);

    // One that does not end well.
    let before = world.current_system("web");
    let watch = Watch::start(&world, &[]);
    world.write("network.nix", &job("broken", "sleep 3; exit 1")).unwrap();
    fails_saying(&apply(&world), &["was rolled back on machine \"web\""]);
    let watched = watch.end();
    assert_eq!(watched.code, Some(1), "{}", watched.stdout);
    prints(
        &watched,
        &[
            "web: Activating: starting the following units: broken.service\n",
            "web: RollingBack\n",
            &format!("web: RolledBack: Units failed. The machine went back to {before}.\n"),
        ],
    );

    // Two, one after the other, by somebody who waits for more.
    let watch = Watch::start(&world, &["--quiet", "90"]);
    for (name, script) in [("first", "exit 1"), ("second", "exit 0")] {
        world.write("network.nix", &job(name, script)).unwrap();
        assert_eq!(apply(&world).code, i32::from(name == "first"), "{name}");
    }
    let watched = watch.end();
    assert_eq!(watched.code, Some(1), "one of them did not end well:\n{}", watched.stdout);
    prints(&watched, &["web: RolledBack: ", "web: Activated: "]);

    // Nothing comes, and somebody has seen enough.
    let watch = Watch::start(&world, &[]);
    assert!(control.exec(&["pkill", "-INT", "-x", "nixos-activator"]).unwrap().success);
    let watched = watch.end();
    assert_eq!(watched.code, Some(130), "{}", watched.stdout);
}
