//! File systems that are not as usual on machines: mounted so that nothing can be run or written there, or gone at
//! every boot.

use lab::Host;

use crate::support::{apply, cat, fails_saying, no_changes, one, set_up, site, succeeds, world};

/// Runs a script on a host.
#[track_caller]
fn run(host: &Host, script: &str) -> String {
    let done = host.exec(&["sh", "-ec", script]).unwrap();
    assert!(done.success, "{script}: {}{}", done.stdout, done.stderr);
    done.stdout.trim().to_owned()
}

/// A secret that outlives a reboot.
fn persistent(word: &str) -> String {
    format!("secrets = {{ token = {{ command = [\"echo\", \"{word}\"], persist = true }} }}")
}

/// Mounts `/var/lib` without the right to run what is there, at every boot.
const NOEXEC: &str = "cd /etc/systemd; mkdir -p system.control/local-fs.target.wants; cd system.control
    printf '[Unit]\\nDefaultDependencies=no\\nBefore=local-fs.target\\n[Mount]\\nWhat=/var/lib\\nWhere=/var/lib\\nType=none\\nOptions=bind,noexec\\n' >var-lib.mount
    ln -s ../var-lib.mount local-fs.target.wants/var-lib.mount
    systemctl daemon-reload; systemctl start var-lib.mount
    printf '#!/bin/sh\\n' >/var/lib/x; chmod 755 /var/lib/x; ! /var/lib/x 2>/dev/null";

#[test]
fn nothing_has_to_be_run_from_var() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    run(web, NOEXEC);
    for word in ["one", "two"] {
        set_up(
            &world,
            &site(&world, &["web"], &persistent(word)),
            &one(&format!("environment.etc.word.text = \"{word}\";")),
        );
        succeeds(&apply(&world));
        no_changes(&world);
        assert_eq!(cat(&world, "web", "/etc/word"), word);
        run(web, "nix-store --gc");
        web.power_cycle().unwrap();
        assert_eq!(cat(&world, "web", "/run/keys/token"), format!("{word}\n"));
    }
    let agents = run(web, "nix-store --gc --print-roots | grep -c 'nixos-agent/.*-nixos-agent$' || true");
    assert!(agents.parse::<u32>().unwrap() <= 3, "roots of agents do not pile up: {agents}");
    assert_eq!(run(web, "find /var/lib/nixos-agent/bin -type f | wc -l"), "0");
}

#[test]
fn what_would_be_gone_after_a_reboot_is_refused() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let main = site(&world, &["web"], &persistent("one"));
    set_up(&world, &main, &one(""));
    for (mount, place, needed) in [
        (
            "mount -t tmpfs tmpfs /var/lib/nixos-agent",
            "/var/lib/nixos-agent",
            "a /var/lib/nixos-agent that survives a reboot",
        ),
        (
            "mkdir /run/u /run/w; mount -t overlay -o lowerdir=/etc,upperdir=/run/u,workdir=/run/w overlay \
             /etc",
            "/etc",
            "an /etc that survives a reboot",
        ),
    ] {
        let before = world.current_system("web");
        run(web, &format!("mkdir -p /var/lib/nixos-agent; {mount}"));
        fails_saying(
            &apply(&world),
            &["`persist`", needed.trim_start_matches("an ").trim_start_matches("a ")],
        );
        assert_eq!(world.current_system("web"), before, "nothing was changed");
        // Nothing else needs it.
        set_up(&world, &site(&world, &["web"], ""), &one("environment.etc.x.text = \"x\";"));
        succeeds(&apply(&world));
        run(web, &format!("umount -l {place}"));
        set_up(&world, &main, &one(""));
    }
    run(
        web,
        "mkdir -p /var/lib/nixos-agent; mount --bind /var/lib/nixos-agent /var/lib/nixos-agent; mount -o \
         remount,bind,ro /var/lib/nixos-agent; rm -rf /run/nixos-agent",
    );
    set_up(&world, &site(&world, &["web"], ""), &one("environment.etc.x.text = \"y\";"));
    let before = world.current_system("web");
    fails_saying(&apply(&world), &["Read-only file system", "The machine still runs what it ran before"]);
    assert_eq!(world.current_system("web"), before);
}

/// As on machines whose root is empty after every boot, but for `/nix`.
#[test]
fn generations_are_pruned_where_var_is_wiped() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    for n in 0..4 {
        set_up(
            &world,
            &site(&world, &["web"], "keep_generations = 2"),
            &one(&format!("environment.etc.x.text = \"{n}\";")),
        );
        succeeds(&apply(&world));
        run(web, "rm -rf /var/lib/nixos-agent");
    }
    // The one that was there before is not ours.
    let left = run(web, "ls -d /nix/var/nix/profiles/system-*-link | wc -l");
    assert_eq!(left, "3");
}
