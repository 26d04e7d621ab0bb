//! What the tests share: a world with some hosts, and configurations for it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use e2e::{Run, World};

/// The two-machine network that most tests deploy.
pub(crate) const TWO: &str = include_str!("../../../fixtures/networks/two.nix");

/// A network of one machine, `web`, with `body` as its configuration.
pub(crate) fn one(body: &str) -> String {
    format!(
        "{{ ... }}: {{ web = {{ config, lib, pkgs, nodes, resources, arguments, ... }}: {{\n\
         nixpkgs.hostPlatform = \"x86_64-linux\"; system.stateVersion = \"24.11\";\n{body}\n}}; }}"
    )
}

/// A unit that serves nothing and never ends.
pub(crate) const SLEEPER: &str = "systemd.services.sleeper = { wantedBy = [ \"multi-user.target\" ]; \
    serviceConfig.ExecStart = \"${pkgs.busybox}/bin/busybox sleep 1000000\"; };";

/// Boots these hosts.
pub(crate) fn world(hosts: &[&str]) -> World {
    World::boot(hosts, &|step| eprintln!("{step}")).expect("the lab boots")
}

/// A configuration with a machine for each of `hosts` and a deployment of `network.nix`.
pub(crate) fn site(world: &World, hosts: &[&str], deployment: &str) -> String {
    let machines: String = hosts.iter().map(|name| machine(world, name, "")).collect();
    let targets: Vec<String> =
        hosts.iter().map(|name| format!("{name} = nixos_machine.{name}.target")).collect();
    format!(
        "{HEAD}{machines}\nresource \"nixos_deployment\" \"site\" {{\n  network = \
         \"${{path.module}}/network.nix\"\n  machines = {{ {} }}\n  {deployment}\n}}\n",
        targets.join(", ")
    )
}

/// What every configuration begins with.
pub(crate) const HEAD: &str =
    "terraform {\n  required_providers { nixos = { source = \"terraform-provider-nixos/nixos\" } }\n}\n";

/// A machine whose host key is pinned.
pub(crate) fn machine(world: &World, name: &str, more: &str) -> String {
    let host = world.lab.host(name);
    format!(
        "resource \"nixos_machine\" \"{name}\" {{\n  name = \"{name}\"\n  ssh = {{ host = \"{}\", \
         host_public_key = \"{}\" }}\n  {more}\n}}\n",
        host.address(),
        host.host_public_key()
    )
}

/// Writes configuration and network, and initialises.
pub(crate) fn set_up(world: &World, main: &str, network: &str) {
    world.write("main.tf", main).unwrap();
    world.write("network.nix", network).unwrap();
    succeeds(&world.terraform(&["init"]));
}

pub(crate) fn apply(world: &World) -> Run {
    world.terraform(&["apply", "-auto-approve", "-input=false"])
}

pub(crate) fn plan(world: &World) -> Run {
    world.terraform(&["plan", "-input=false"])
}

/// Fails the test with everything Terraform said.
#[track_caller]
pub(crate) fn succeeds(run: &Run) {
    assert_eq!(run.code, 0, "terraform was to succeed:\n{}", run.text);
}

/// The run failed, and said each of `texts`. Line breaks and the frame Terraform draws do not count.
#[track_caller]
pub(crate) fn fails_saying(run: &Run, texts: &[&str]) {
    assert_eq!(run.code, 1, "terraform was to fail:\n{}", run.text);
    says(run, texts);
}

#[track_caller]
pub(crate) fn says(run: &Run, texts: &[&str]) {
    let flat = run.text.replace(['│', '╷', '╵'], " ").split_whitespace().collect::<Vec<_>>().join(" ");
    for text in texts {
        assert!(flat.contains(text), "terraform was to say {text:?}:\n{}", run.text);
    }
}

#[track_caller]
pub(crate) fn no_changes(world: &World) {
    let run = plan(world);
    succeeds(&run);
    says(&run, &["No changes."]);
}

/// Starts an apply.
pub(crate) fn start_apply(world: &World) -> std::process::Child {
    let mut command = world.terraform_command(&[], &["apply", "-auto-approve", "-input=false"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Starts an apply and returns once `until` holds.
#[track_caller]
pub(crate) fn apply_until(world: &World, until: impl Fn() -> bool) -> std::process::Child {
    let mut child = start_apply(world);
    let start = Instant::now();
    while !until() {
        if child.try_wait().unwrap().is_some() && !until() {
            let said = child.wait_with_output().unwrap();
            let text =
                [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            panic!("apply ended before it got that far:\n{text}");
        }
        assert!(start.elapsed() < Duration::from_mins(3), "apply did not get that far");
        std::thread::sleep(Duration::from_millis(50));
    }
    child
}

/// Whether a process whose command line matches runs there, as far as anybody knows.
pub(crate) fn runs(host: &lab::Host, pattern: &str) -> bool {
    host.exec(&["pgrep", "-f", pattern]).map_or(true, |found| found.success)
}

/// A data source of `network`, and outputs of what it says.
pub(crate) fn survey(spec: &str) -> String {
    format!(
        "{HEAD}data \"nixos_network\" \"site\" {{\n  {spec}\n}}\n\
         output \"all\" {{ value = data.nixos_network.site }}\n"
    )
}

/// An output's value.
pub(crate) fn output(world: &World, name: &str) -> serde_json::Value {
    let run = world.terraform(&["output", "-json", name]);
    serde_json::from_str(&run.text).unwrap_or_else(|_| panic!("{}", run.text))
}

/// A file of a host, which may be a link into its store.
pub(crate) fn cat(world: &World, host: &str, path: &str) -> String {
    world.lab.host(host).exec(&["cat", path]).unwrap().stdout
}

/// A world in which `web` runs a first system, and that system.
pub(crate) fn deployed(more: &str, body: &str) -> (World, String) {
    let world = world(&["web"]);
    set_up(&world, &site(&world, &["web"], more), &one(body));
    succeeds(&apply(&world));
    let before = world.current_system("web");
    (world, before)
}

/// What changes with every boot of `web`.
pub(crate) fn boot_id(world: &World) -> String {
    world.lab.host("web").exec(&["cat", "/proc/sys/kernel/random/boot_id"]).unwrap().stdout
}
