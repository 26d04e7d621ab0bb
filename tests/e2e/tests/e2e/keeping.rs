//! What has to be true before a new system is kept: health checks, and the other machines of a rollout.

use crate::support::{
    SLEEPER, apply, fails_saying, no_changes, one, plan, says, set_up, site, succeeds, world,
};

/// A web server on `place` that shows `page`.
fn server(place: &str, page: &str) -> String {
    format!(
        "environment.etc.\"www/index.html\".text = \"{page}\";\nsystemd.services.web = {{ wantedBy = [ \
         \"multi-user.target\" ]; serviceConfig = {{ ExecStart = \"${{pkgs.busybox}}/bin/busybox httpd -f \
         -p {place} -h /etc/www\"; Restart = \"always\"; }}; }};"
    )
}

#[test]
fn an_unhealthy_system_goes_back() {
    let world = world(&["web"]);
    let main = |checks: &str| site(&world, &["web"], &format!("health_checks = {{ {checks} }}"));
    set_up(&world, &main(""), &one(""));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    let quick = "interval = \"200ms\", deadline = \"4s\"";
    let address = world.lab.host("web").address();
    let cases = [
        // Nobody listens there.
        (
            format!("front = {{ http = {{ url = \"http://127.0.0.1:81/\" }}, {quick} }}"),
            server("80", "hello"),
            vec!["Health check \"front\"", "127.0.0.1:81", "Connection refused"],
        ),
        (
            format!(
                "front = {{ http = {{ url = \"http://127.0.0.1/\", contains = \"good day\" }}, {quick} }}"
            ),
            server("80", "hello"),
            vec!["the answer does not contain \"good day\"", "hello"],
        ),
        (
            format!("front = {{ http = {{ url = \"http://127.0.0.1/none\" }}, {quick} }}"),
            server("80", "hello"),
            vec!["status 404"],
        ),
        // Systemd is content with a unit that ends and is started again; for it to be well it has to live.
        (
            format!("web = {{ units = [\"web.service\"], stable_for = \"2s\", {quick} }}"),
            server("80", "hello").replace("httpd -f -p 80 -h /etc/www", "sleep 1"),
            vec!["Health check \"web\"", "web.service"],
        ),
        (
            format!("ask = {{ command = [\"sh\", \"-c\", \"echo I saw it; exit 3\"], {quick} }}"),
            server("80", "hello"),
            vec!["Health check \"ask\"", "exit status: 3", "I saw it"],
        ),
        // On the machine it answers, from here it does not.
        (
            format!(
                "there = {{ tcp = \"127.0.0.1:80\", {quick} }}, here = {{ tcp = \"{address}:80\", from = \
                 \"here\", {quick} }}"
            ),
            server("127.0.0.1:80", "hello"),
            vec!["as seen from where Terraform runs", "Health check \"here\"", "Connection refused"],
        ),
    ];
    for (checks, network, expected) in cases {
        world.write("main.tf", &main(&checks)).unwrap();
        world.write("network.nix", &one(&network)).unwrap();
        let run = apply(&world);
        fails_saying(&run, &["was rolled back on machine \"web\"", "went back to"]);
        fails_saying(&run, &expected);
        assert_eq!(world.current_system("web"), before, "{checks}");
    }

    let all = format!(
        "front = {{ http = {{ url = \"http://127.0.0.1/\", status = [200], contains = \"hello\" }}, \
         successes = 3, {quick} }}\nunits = {{ units = [\"web.service\"], stable_for = \"1s\", {quick} \
         }}\nport = {{ tcp = \"127.0.0.1:80\", machines = [\"web\"], {quick} }}\ncommand = {{ command = \
         [\"true\"], {quick} }}\nhere = {{ http = {{ url = \"http://${{nixos_machine.web.host}}/\" }}, \
         from = \"here\", {quick} }}"
    );
    world.write("main.tf", &main(&all)).unwrap();
    world.write("network.nix", &one(&server("80", "hello"))).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn health_checks_that_make_no_sense_are_refused() {
    let world = world(&[]);
    let main = |checks: &str| {
        format!(
            "{}resource \"nixos_deployment\" \"site\" {{\n  network = \"network.nix\"\n  machines = {{}}\n  \
             health_checks = {{ a = {{ {checks} }} }}\n}}\n",
            crate::support::HEAD
        )
    };
    set_up(&world, &main("tcp = \"a:1\""), &one(""));
    for (checks, expected) in [
        ("", "exactly one of `units`, `command`, `http`, `tcp` is expected"),
        ("tcp = \"a:1\", command = [\"true\"]", "Found `command`, `tcp`"),
        ("tcp = \"a\"", "`host:port`"),
        ("units = [\"a.service\"], from = \"here\"", "Units can only be looked at on the machine"),
        ("http = { url = \"https://a\" }", "expected http:// (or `from = \"here\"`)"),
        ("command = []", "The list is empty"),
        ("tcp = \"a:1\", machines = [\"web\"]", "Found \"web\", which is not a key of `machines`"),
        ("tcp = \"a:1\", interval = \"often\"", "a duration such as"),
    ] {
        world.write("main.tf", &main(checks)).unwrap();
        fails_saying(&world.terraform(&["validate"]), &[expected]);
    }
}

/// Three machines with a body each.
fn three([a, b, c]: [&str; 3]) -> String {
    let node = |name: &str, body: &str| {
        format!(
            "{name} = {{ pkgs, ... }}: {{ nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \
             \"24.11\"; {body} }};"
        )
    };
    format!("{{ ... }}: {{ {} {} {} }}", node("a", a), node("b", b), node("c", c))
}

const BROKEN: &str = "systemd.services.broken = { wantedBy = [ \"multi-user.target\" ]; serviceConfig = { \
                      Type = \"oneshot\"; ExecStart = \"${pkgs.busybox}/bin/busybox false\"; }; };";

#[test]
fn a_failing_wave_stops_those_behind_it() {
    let world = world(&["a", "b", "c"]);
    let hosts = ["a", "b", "c"];
    let main = site(&world, &hosts, "rollout = { waves = [[\"b\"], [\"c\"]] }");
    set_up(&world, &main, &three([""; 3]));
    succeeds(&apply(&world));
    let before = hosts.map(|host| world.current_system(host));
    world.write("network.nix", &three([SLEEPER, SLEEPER, BROKEN])).unwrap();
    let run = apply(&world);
    fails_saying(
        &run,
        &[
            "was rolled back on machine \"c\"",
            "Not deployed: machine \"a\"",
            "because others failed (c) and `rollout` allows no more",
        ],
    );
    let now = hosts.map(|host| world.current_system(host));
    assert_eq!(now[0], before[0], "a is in the last wave and was not begun");
    assert_ne!(now[1], before[1], "b was in the first wave");
    assert_eq!(now[2], before[2], "c went back");
    let systems = &world.resource("nixos_deployment.site")["systems"];
    for (host, system) in hosts.iter().zip(&now) {
        assert_eq!(systems[host]["toplevel"], system.as_str(), "the state says what {host} runs");
    }

    // With one failure allowed the others go on.
    world
        .write("main.tf", &main.replace("rollout = {", "rollout = { max_failures = 1, max_parallel = 1,"))
        .unwrap();
    let run = apply(&world);
    fails_saying(&run, &["was rolled back on machine \"c\""]);
    assert!(!run.text.contains("Not deployed"), "{}", run.text);
    assert_ne!(world.current_system("a"), before[0]);

    world.write("network.nix", &three([SLEEPER; 3])).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn an_atomic_rollout_changes_all_machines_or_none() {
    let world = world(&["a", "b", "c"]);
    let hosts = ["a", "b", "c"];
    let main = site(&world, &hosts, "rollout = { atomic = true, waves = [[\"a\"]], max_parallel = 1 }");
    set_up(&world, &main, &three([""; 3]));
    succeeds(&apply(&world));
    let before = hosts.map(|host| world.current_system(host));
    let generation =
        |host: &str| world.lab.host(host).exec(&["readlink", "/nix/var/nix/profiles/system"]).unwrap().stdout;
    let generations = hosts.map(generation);
    for failing in 0..3 {
        let mut bodies = [SLEEPER; 3];
        bodies[failing] = BROKEN;
        world.write("network.nix", &three(bodies)).unwrap();
        let run = apply(&world);
        fails_saying(&run, &[&format!("was rolled back on machine \"{}\"", hosts[failing])]);
        assert_eq!(hosts.map(|host| world.current_system(host)), before, "{failing} failed");
        assert_eq!(hosts.map(generation), generations, "no machine got as far as its profile");
    }
    world.write("network.nix", &three([SLEEPER, SLEEPER, BROKEN])).unwrap();
    fails_saying(&apply(&world), &["Machine \"c\" failed, and all were to succeed or none"]);

    world.write("network.nix", &three([SLEEPER; 3])).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);

    for (rollout, expected) in [
        ("atomic = true, max_failures = 1", "`max_failures` lets some machines fail"),
        ("waves = [[\"a\"], [\"a\"]]", "A machine is in two waves"),
        ("waves = [[\"d\"]]", "Found \"d\", which is not a key of `machines`"),
        ("max_parallel = 0", "whole number from 1"),
    ] {
        world.write("main.tf", &site(&world, &hosts, &format!("rollout = {{ {rollout} }}"))).unwrap();
        fails_saying(&world.terraform(&["validate"]), &[expected]);
    }
}

#[test]
fn a_machine_that_was_changed_after_the_plan_is_left_alone() {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    let first = world.current_system("web");
    world.write("network.nix", &one(SLEEPER)).unwrap();
    succeeds(&apply(&world));
    world.write("network.nix", &one("environment.etc.a.text = \"a\";")).unwrap();
    succeeds(&world.terraform(&["plan", "-out=plan"]));
    // Meanwhile somebody else goes back.
    let switch = format!("{first}/bin/switch-to-configuration");
    world.lab.host("web").exec(&[&switch, "test"]).unwrap();
    let run = world.terraform(&["apply", "plan"]);
    fails_saying(&run, &["Someone else has changed machine \"web\"", &first, "Plan again"]);
    assert_eq!(world.current_system("web"), first);
    let run = plan(&world);
    says(&run, &["not what was deployed last"]);
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn twenty_machines_go_in_waves_and_one_fails() {
    let names: Vec<String> = (0..20).map(|n| format!("h{n:02}")).collect();
    let hosts: Vec<&str> = names.iter().map(String::as_str).collect();
    let world = world(&hosts);
    let (waves, failing) = (["h00", "h01"], "h07");
    let second: Vec<String> = hosts[2..10].iter().map(|name| format!("\"{name}\"")).collect();
    let rollout = format!(
        "rollout = {{ waves = [[\"{}\", \"{}\"], [{}]], max_parallel = 8 }}",
        waves[0],
        waves[1],
        second.join(", ")
    );
    let network = |change: &dyn Fn(&str) -> &'static str| {
        let nodes: String = hosts
            .iter()
            .map(|name| {
                format!(
                    "{name} = {{ pkgs, ... }}: {{ nixpkgs.hostPlatform = \"x86_64-linux\"; \
                     system.stateVersion = \"24.11\"; {} }};\n",
                    change(name)
                )
            })
            .collect();
        format!("{{ ... }}: {{ {nodes} }}")
    };
    set_up(&world, &site(&world, &hosts, ""), &network(&|_| ""));
    succeeds(&apply(&world));
    no_changes(&world);
    let before: Vec<String> = hosts.iter().map(|host| world.current_system(host)).collect();

    world.write("main.tf", &site(&world, &hosts, &rollout)).unwrap();
    world.write("network.nix", &network(&|name| if name == failing { BROKEN } else { SLEEPER })).unwrap();
    let run = apply(&world);
    fails_saying(&run, &["was rolled back on machine \"h07\"", "Not deployed: machine \"h19\""]);
    let systems = &world.resource("nixos_deployment.site")["systems"];
    for (n, host) in hosts.iter().enumerate() {
        let now = world.current_system(host);
        assert_eq!(systems[host]["toplevel"], now.as_str(), "the state says what {host} runs");
        match n {
            7 | 10.. => assert_eq!(now, before[n], "{host} keeps its system"),
            _ => assert_ne!(now, before[n], "{host} has its new system"),
        }
    }
    world.write("network.nix", &network(&|_| SLEEPER)).unwrap();
    let run = apply(&world);
    succeeds(&run);
    no_changes(&world);
}
