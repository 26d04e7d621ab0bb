//! Every fault in every phase: whatever dies, the machine runs the old system or the confirmed new one, can be
//! reached, and the next apply brings it where it should be. Each test prints its row of the table in
//! `docs/guides/activation.md`.

use std::io::Write as _;
use std::time::{Duration, Instant};

use e2e::World;
use lab::{BootLoader, Host, HostOptions};

use crate::support::{no_changes, one, runs, set_up, site, start_apply, succeeds};

/// Phases that can be held up, and so be hit.
const PHASES: [&str; 6] =
    ["activating", "awaiting_confirmation", "checking_health", "holding", "committing", "rolling_back"];

/// Run at every place where a phase can be held up: waits there when that is the phase in `/root/slow`.
const PAUSE: &str = r#"PATH=/usr/sbin:/usr/bin:/sbin:/bin
want="$(cat /root/slow 2>/dev/null)" || exit 0
last="$(cd /var/lib/nixos-agent/deployments && for record in *; do echo "$(cat "$record/number") $record"; done | sort -n | tail -n 1)"
events="/var/lib/nixos-agent/deployments/${last#* }/events.ndjson"
now="$(grep -o '"phase":"[a-z_]*"' "$events" | tail -n 1 | cut -d '"' -f 4)"
[ "$now" = "$want" ] || exit 0
rm /root/slow; : > /root/reached
"#;

/// What becomes of one machine and one terraform.
struct Scene {
    world: World,
    row: Vec<String>,
    /// Whether a phase is held up until the fault is over, however long that takes.
    waits: bool,
}

impl Scene {
    fn new(options: HostOptions) -> Self {
        // An emulated machine may take long for everything: there the test alone decides when something goes on.
        let waits = options.virtual_machine.is_some();
        let [window, deadline, unwell, pause] = if waits { [1200, 900, 60, 600] } else { [12, 12, 8, 30] };
        // What was not let go in time is not held up any more.
        let pause = format!(
            "n=0; while [ -e /root/reached ] && [ $n -lt {} ]; do sleep 0.1; n=$((n + 1)); done; rm -f \
             /root/reached",
            10 * pause
        );
        let world = World::boot_with(&[("web", options)], &|_| {}).expect("the lab boots");
        let web = world.lab.host("web");
        web.write_file("/root/pause", format!("{PAUSE}{pause}\n")).unwrap();
        // Every login runs this; ours must not wait.
        let control = world.lab.control().address();
        let rc = format!("case $SSH_CONNECTION in \"{control} \"*) sh /root/pause ;; esac\n");
        web.write_file("/root/.ssh/rc", rc).unwrap();
        let here = format!("if [ -e /root/slow ]; then rm /root/slow; : > /root/reached; {pause}; fi");
        let main = format!(
            "confirm_timeout = \"{window}s\"\n  activation_timeout = \"{}s\"\n  health_checks = {{\n    \
             there = {{ command = [\"sh\", \"/root/pause\"], deadline = \"{deadline}s\", timeout = \
             \"{deadline}s\" }}\n    well = {{ command = [\"sh\", \"-c\", \"[ ! -e /root/unhealthy ]\"], \
             deadline = \"{unwell}s\", interval = \"500ms\" }}\n    here = {{ command = [\"sh\", \"-c\", \
             \"{here}\"], from = \"here\", deadline = \"{deadline}s\", timeout = \"{deadline}s\" }}\n  }}",
            5 * window
        );
        let provider =
            if waits { "provider \"nixos\" { ssh = { connect_timeout = \"60s\" } }\n" } else { "" };
        set_up(&world, &(site(&world, &["web"], &main) + provider), &system("start"));
        succeeds(&crate::support::apply(&world));
        Self { world, row: vec![], waits }
    }

    /// One line of the table.
    fn print(&self, what: &str) {
        // Not through `print!`, which the harness keeps to itself.
        let _ = writeln!(std::io::stderr(), "| {what} | {} |", self.row.join(" | "));
    }

    /// Waits until this phase is held up.
    fn comes_to(&self, phase: &str) {
        let host = self.place(phase);
        // Looking is work for an emulated machine, too.
        let [limit, pause] = if self.waits { [600_000, 1000] } else { [180_000, 50] };
        let start = Instant::now();
        while !host.exec(&["test", "-e", "/root/reached"]).is_ok_and(|found| found.success) {
            if start.elapsed() > Duration::from_millis(limit) {
                let events =
                    self.web().exec(&["sh", "-c", "cat /var/lib/nixos-agent/deployments/*/events.ndjson"]);
                let events = events.map_or_else(|error| error.to_string(), |events| events.stdout);
                panic!("apply did not come to {phase}\n{events}\n{}", self.web().console());
            }
            std::thread::sleep(Duration::from_millis(pause));
        }
    }

    /// Where a phase is held up.
    fn place(&self, phase: &str) -> &Host {
        if phase == "holding" { self.world.lab.control() } else { self.web() }
    }

    fn web(&self) -> &Host {
        self.world.lab.host("web")
    }

    /// The phase is held up: nothing has gone on since it was reached.
    #[track_caller]
    fn is_held_up(&self, phase: &str) {
        let held = self.place(phase).exec(&["test", "-e", "/root/reached"]).is_ok_and(|found| found.success);
        assert!(held, "{phase} was over before the fault struck");
    }

    /// Applies, hits the machine in each of these phases, waits until all is quiet, looks, and applies again.
    fn hit(&mut self, phases: &[&str], fault: &Fault<'_>) {
        let Fault { strike, then, after, .. } = fault;
        let (web, control) = (self.web(), self.world.lab.control());
        let label = phases.join(", ");
        let old = self.world.current_system("web");
        let hold_up = |phase: &str| self.place(phase).write_file("/root/slow", phase).unwrap();
        let let_go = |phase: &str| self.place(phase).exec(&["rm", "-f", "/root/reached"]).unwrap();
        let_go(phases[0]);
        hold_up(phases[0]);
        if phases.contains(&"rolling_back") {
            web.write_file("/root/unhealthy", "").unwrap();
        }
        self.world.write("network.nix", &system(&format!("{label} {}", self.row.len()))).unwrap();
        let child = start_apply(&self.world);
        self.comes_to(phases[0]);
        for (n, phase) in phases.iter().enumerate() {
            if let Some(next) = phases.get(n + 1) {
                hold_up(next);
            }
            strike(&self.world);
            // A power cut leaves nothing to look at.
            if fault.can_be_seen {
                self.is_held_up(phase);
            }
            let_go(phase);
            then(&self.world);
            if let Some(next) = phases.get(n + 1) {
                self.comes_to(next);
            }
        }
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let start = Instant::now();
        while runs(web, "nixos-agent run") || runs(web, "switch-to-configuration") {
            let limit = Duration::from_mins(if self.waits { 10 } else { 3 });
            assert!(start.elapsed() < limit, "{label}: the machine comes to rest\n{said}");
            std::thread::sleep(Duration::from_millis(200));
        }
        after(&self.world);
        let found = self.world.current_system("web");
        let boots = self.web().read_file("/boot/default-system").unwrap().trim().to_owned();
        for (host, file) in [(web, "/root/unhealthy"), (web, "/root/slow"), (control, "/root/slow")] {
            host.exec(&["rm", "-f", file]).unwrap();
        }

        let again = self.world.terraform(&["apply", "-auto-approve", "-lock=false"]);
        assert_eq!(
            again.code, 0,
            "{label}: the next apply converges; the first said\n{said}\n{}",
            again.text
        );
        no_changes(&self.world);
        let new = self.world.current_system("web");
        let name = |system: &str| if system == new { "new" } else { "old" };
        assert!(found == old || found == new, "{label}: it runs {found}\n{said}");
        assert!(boots == old || boots == new, "{label}: it boots {boots}\n{said}");
        let verdict = match output.status.code() {
            Some(0) => "success",
            Some(_) => "error",
            None => "–",
        };
        if verdict == "success" {
            assert_eq!((name(&found), name(&boots)), ("new", "new"), "{label}: success means that it stays");
        }
        let boots =
            if name(&boots) == name(&found) { String::new() } else { format!(", boots {}", name(&boots)) };
        self.row.extend(phases.iter().map(|_| format!("{}{boots}; {verdict}", name(&found))));
    }
}

/// Something that goes wrong.
struct Fault<'a> {
    /// It happens at once.
    strike: &'a dyn Fn(&World),
    /// Whether the machine can still be looked at right after that.
    can_be_seen: bool,
    /// What follows.
    then: &'a dyn Fn(&World),
    /// What is done once all is quiet.
    after: &'a dyn Fn(&World),
}

impl<'a> Fault<'a> {
    fn new(strike: &'a dyn Fn(&World)) -> Self {
        Self { strike, can_be_seen: true, then: &nothing, after: &nothing }
    }
}

/// A machine that is hit in every phase, each time by another apply.
fn row(what: &str, options: HostOptions, fault: &Fault<'_>) {
    let mut scene = Scene::new(options);
    for phase in PHASES {
        scene.hit(&[phase], fault);
    }
    scene.print(what);
}

fn system(mark: &str) -> String {
    one(&format!(
        "environment.etc.mark.text = \"{mark}\"; system.activationScripts.pause = \"/bin/sh /root/pause\"; \
         testing.bootLoader = \"/bin/sh /root/pause\";"
    ))
}

fn on_control(world: &World, command: &[&str]) {
    world.lab.control().exec(command).unwrap();
}

fn on_web(world: &World, command: &[&str]) {
    world.lab.host("web").exec(command).unwrap();
}

fn nothing(_: &World) {}

#[test]
fn terraform_is_killed() {
    let kill = |world: &World| on_control(world, &["pkill", "-KILL", "-x", "terraform"]);
    row("`kill -9` of terraform", HostOptions::default(), &Fault::new(&kill));
}

#[test]
fn the_provider_is_killed() {
    let kill = |world: &World| on_control(world, &["pkill", "-KILL", "-f", "terraform-provider-nixos"]);
    row("`kill -9` of the provider", HostOptions::default(), &Fault::new(&kill));
}

#[test]
fn ssh_is_killed() {
    let kill = |world: &World| on_control(world, &["pkill", "-KILL", "-x", "ssh"]);
    row("`kill -9` of ssh", HostOptions::default(), &Fault::new(&kill));
}

#[test]
fn the_agent_is_killed() {
    let kill = |world: &World| on_web(world, &["pkill", "-KILL", "-f", "nixos-agent run"]);
    row("`kill -9` of the agent", HostOptions::default(), &Fault::new(&kill));
}

#[test]
fn the_switch_is_killed() {
    let kill = |world: &World| on_web(world, &["pkill", "-KILL", "-f", "bin/switch-to-configuration"]);
    row("`kill -9` of `switch-to-configuration`, where it runs", HostOptions::default(), &Fault::new(&kill));
}

#[test]
fn the_network_is_cut() {
    for seconds in [5, 15] {
        let cut = |world: &World| world.lab.host("web").link_down().unwrap();
        let mend = |world: &World| {
            std::thread::sleep(Duration::from_secs(seconds));
            world.lab.host("web").link_up().unwrap();
        };
        let fault = Fault { then: &mend, ..Fault::new(&cut) };
        row(&format!("network cut for {seconds} s"), HostOptions::default(), &fault);
    }
}

#[test]
fn the_power_is_cut() {
    let cut = |world: &World| world.lab.host("web").power_cut().unwrap();
    let back = |world: &World| world.lab.host("web").power_on().unwrap();
    let fault = Fault { can_be_seen: false, then: &back, ..Fault::new(&cut) };
    row("power cycle", HostOptions::default(), &fault);
}

#[test]
fn the_disk_is_full() {
    let small = HostOptions { disk_bytes: Some(64 << 20), ..HostOptions::default() };
    let fill = |world: &World| on_web(world, &["sh", "-c", "cat /dev/zero > /root/fill 2>/dev/null; true"]);
    let free = |world: &World| on_web(world, &["rm", "-f", "/root/fill"]);
    row("disk full", small, &Fault { after: &free, ..Fault::new(&fill) });
}

#[test]
fn emergency_mode_is_entered() {
    let enter = |world: &World| on_web(world, &["systemctl", "start", "--no-block", "emergency.target"]);
    row("emergency mode", HostOptions::default(), &Fault::new(&enter));
}

#[test]
fn the_message_bus_is_lost() {
    let kill = |world: &World| on_web(world, &["systemctl", "kill", "-s", "KILL", "dbus.service"]);
    row("`kill -9` of D-Bus", HostOptions::default(), &Fault::new(&kill));
}

#[test]
fn the_login_manager_is_lost() {
    // Hosts boot without it, because it takes long.
    let start = "systemctl unmask systemd-logind.service && systemctl start systemd-logind.service";
    let kill = format!("{start} && systemctl kill -s STOP systemd-logind.service");
    let strike = |world: &World| on_web(world, &["sh", "-c", &kill]);
    let quiet = |world: &World| on_web(world, &["systemctl", "restart", "systemd-logind.service"]);
    row(
        "systemd-logind does not answer",
        HostOptions::default(),
        &Fault { after: &quiet, ..Fault::new(&strike) },
    );
}

#[test]
fn the_clock_jumps() {
    // A container has the clock of the machine it runs on.
    let machine = HostOptions { virtual_machine: Some(BootLoader::SystemdBoot), ..HostOptions::default() };
    let jump = |world: &World| {
        let days = || {
            let told = world.lab.host("web").exec(&["date", "+%s"]).unwrap().stdout;
            told.trim().parse::<u64>().unwrap() / 86400
        };
        let before = days();
        on_web(world, &["sh", "-c", "date -s '+1 day' && sleep 1 && date -s '-2 days'"]);
        assert!(days() < before, "the clock was set");
    };
    let mut scene = Scene::new(machine);
    // It takes long to boot and to deploy: one activation sees all the phases there are on the way, another the way
    // back.
    let (there, back) = PHASES.split_at(5);
    let fault = Fault::new(&jump);
    scene.hit(there, &fault);
    scene.hit(back, &fault);
    scene.print("clock set a day forward, then two back");
    let expected = [&["new; success"; 5][..], &["old; error"]].concat();
    assert_eq!(scene.row, expected, "nothing that decides reads the clock");
}
