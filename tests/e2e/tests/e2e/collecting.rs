//! Garbage collectors that run in the middle of a deployment, here and on machines.

use lab::Host;

use crate::support::{apply, apply_until, no_changes, one, set_up, site, succeeds, world};

/// Something that a garbage collection takes, so that it is known to have happened.
fn garbage(host: &Host) -> String {
    host.write_file("/root/garbage", "garbage").unwrap();
    host.exec(&["nix-store", "--add", "/root/garbage"]).unwrap().stdout.trim().to_owned()
}

/// Collects all the garbage there is.
#[track_caller]
fn collect(host: &Host) {
    let garbage = garbage(host);
    let done = host.exec(&["nix-store", "--gc"]).unwrap();
    assert!(done.success, "{}", done.stderr);
    assert!(!is_valid(host, &garbage), "nothing was collected: {}", done.stderr);
}

fn is_valid(host: &Host, path: &str) -> bool {
    host.exec(&["nix-store", "--check-validity", path]).unwrap().success
}

/// What a script prints; nothing where it fails.
fn told(host: &Host, script: &str) -> String {
    host.exec(&["sh", "-c", script]).unwrap().stdout.trim().to_owned()
}

const PUSHED: &str = "readlink /nix/var/nix/gcroots/nixos-agent/pushed";

#[test]
fn a_collection_while_a_machine_waits_for_its_wave_takes_nothing() {
    let world = world(&["a", "b"]);
    let (a, b) = (world.lab.host("a"), world.lab.host("b"));
    let network = "{ defaults = { nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \
                   \"24.11\"; }; a = { }; b = { }; }";
    // The first wave ends when it is told to.
    let more = "rollout = { waves = [[\"a\"]] }\n  health_checks = { told = { command = [\"sh\", \"-c\", \
                \"test $(cat /proc/sys/kernel/hostname) != a || test -e /run/go\"], deadline = \"10m\" } }";
    set_up(&world, &site(&world, &["a", "b"], more), network);
    let has_arrived = || {
        let system = told(b, PUSHED);
        !system.is_empty() && is_valid(b, &system)
    };
    let applying = apply_until(&world, || {
        has_arrived() && told(a, "systemctl list-units 'nixos-agent-*.service'").contains("running")
    });
    let (waiting, before) = (told(b, PUSHED), world.current_system("b"));
    assert!(!waiting.is_empty() && waiting != before, "{waiting}");
    collect(b);
    assert!(is_valid(b, &waiting), "its new system was collected while it waited");
    a.exec(&["touch", "/run/go"]).unwrap();
    let output = applying.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(world.current_system("b"), waiting);
    assert_eq!(told(b, PUSHED), "", "what is activated is kept by its profile");
}

#[test]
fn what_was_only_pushed_stays_until_something_newer_comes() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let mut pushed = vec![];
    for text in ["one", "two"] {
        set_up(
            &world,
            &site(&world, &["web"], "action = \"push\""),
            &one(&format!("environment.etc.x.text = \"{text}\";")),
        );
        succeeds(&apply(&world));
        collect(web);
        pushed.push(told(web, PUSHED));
    }
    assert!(pushed[0] != pushed[1] && !is_valid(web, &pushed[0]), "only the last one is kept: {pushed:?}");
    assert!(is_valid(web, &pushed[1]));
    assert_ne!(world.current_system("web"), pushed[1]);
    set_up(&world, &site(&world, &["web"], ""), &one("environment.etc.x.text = \"two\";"));
    succeeds(&apply(&world));
    assert_eq!(world.current_system("web"), pushed[1]);
    assert_eq!(told(web, PUSHED), "");
    no_changes(&world);
}

#[test]
fn a_collection_between_build_and_push_takes_nothing() {
    let world = world(&["web"]);
    let (control, web) = (world.lab.control(), world.lab.host("web"));
    let built = "readlink /root/.local/state/nixos-activator/roots/*/built/set-*/*";
    for text in ["one", "two"] {
        let before = told(control, built);
        set_up(&world, &site(&world, &["web"], ""), &one(&format!("environment.etc.x.text = \"{text}\";")));
        if text == "two" {
            // Its machine cannot be reached until its system has been built.
            web.link_down().unwrap();
        }
        let applying = apply_until(&world, || {
            let now = told(control, built);
            now != before && now.lines().count() == 1
        });
        let system = told(control, built);
        collect(control);
        assert!(is_valid(control, &system), "what was built was collected before it was pushed");
        web.link_up().unwrap();
        let output = applying.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(world.current_system("web"), system);
    }
    // A set for each kind of root, and none that is left over.
    let sets = told(control, "ls -d /root/.local/state/nixos-activator/roots/*/*/set-* | wc -l");
    assert_eq!(sets, "3");
}
