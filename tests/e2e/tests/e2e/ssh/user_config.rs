//! An `ssh_config` that is made for somebody who sits at a terminal.

use crate::support::{
    HEAD, apply, fails_saying, machine, no_changes, one, says, set_up, site, succeeds, world,
};

/// All that people have there, and that would break a connection which is not for a terminal.
const SURPRISES: &str = "Host *
  LogLevel QUIET
  ControlMaster auto
  ControlPath /root/mine-%C
  ControlPersist 10m
  RemoteCommand tmux attach
  RequestTTY force
  SessionType none
  StdinNull yes
  ForkAfterAuthentication yes
  VisualHostKey yes
  SendEnv LANG LC_*
  SetEnv FOO=bar
  CanonicalizeHostname always
  CanonicalDomains example.org
  EscapeChar ~
  LocalForward 7001 localhost:22
  RemoteForward 7002 localhost:22
  DynamicForward 7003
  ExitOnForwardFailure yes
  PermitLocalCommand yes
  LocalCommand echo local; exit 1
  BatchMode no
  ConnectionAttempts 3
  ForwardAgent yes
  ForwardX11 yes
  Tunnel no
  UpdateHostKeys ask
  VerifyHostKeyDNS yes
  AddKeysToAgent yes
  ProxyUseFdpass yes
  LogVerbose *
  ChannelTimeout session=1s
  IdentitiesOnly yes
Match exec \"true\"
  Compression yes
";

#[test]
fn settings_for_a_terminal_do_not_reach_our_connections() {
    let world = world(&["jump", "web"]);
    let (control, jump) = (world.lab.control(), world.lab.host("jump"));
    // More keys than the server lets anybody try; the right one is named.
    let keys = "cd /root/.ssh; mv id_ed25519 /root/right; for n in 1 2 3 4 5 6 7 8; do ssh-keygen -q -t \
                ed25519 -N '' -f key$n; echo \"  IdentityFile ~/.ssh/key$n\" >>keys; done; cat keys; eval \
                $(ssh-agent -a /root/agent) >/dev/null; ssh-add -q key?";
    let files = control.exec(&["sh", "-c", keys]).unwrap().stdout;
    control
        .write_file("/root/.ssh/config", SURPRISES.replacen("Host *\n", &format!("Host *\n{files}"), 1))
        .unwrap();
    let bastion = format!(
        "bastion = {{ host = \"{}\", user = \"root\", private_key_file = \"/root/right\", host_public_key \
         = \"{}\" }}",
        jump.address(),
        jump.host_public_key()
    );
    let provider = |more: &str| {
        format!(
            "provider \"nixos\" {{ ssh = {{ private_key_file = \"/root/right\", connect_timeout = \"4s\", \
             {more} }} }}\n"
        )
    };
    let main =
        |more: &str| format!("{}{}", site(&world, &["web"], "copy = { compress = true }"), provider(more));
    let agent = [
        ("SSH_AUTH_SOCK", "/root/agent"),
        ("LC_ALL", "de_DE.UTF-8"),
        ("TMPDIR", "/root/tmp with 50% blanks"),
    ];
    control.exec(&["mkdir", "/root/tmp with 50% blanks"]).unwrap();
    let applies = |text: &str| {
        world.write("network.nix", &one(&format!("environment.etc.motd.text = \"{text}\";"))).unwrap();
        succeeds(&world.terraform_with(&agent, &["apply", "-auto-approve", "-input=false"]));
    };
    set_up(&world, &main(""), "");
    applies("straight");
    world.write("main.tf", &main(&bastion)).unwrap();
    applies("around");
    let run = world.terraform_with(&agent, &["plan", "-input=false"]);
    says(&run, &["No changes."]);
    let left = control.exec(&[
        "sh",
        "-c",
        "ls /root/mine-* 2>/dev/null; pgrep -x ssh; ls -A '/root/tmp with 50% blanks'",
    ]);
    assert_eq!(left.unwrap().stdout, "", "nothing is left behind");

    // What went wrong is known all the same: a machine that is away is a warning, and is waited for.
    let web = world.lab.host("web");
    world.write("main.tf", &main("")).unwrap();
    web.link_down().unwrap();
    let run = world.terraform_with(&agent, &["plan", "-input=false"]);
    succeeds(&run);
    says(&run, &["Warning: Machine \"web\" cannot be reached"]);
    web.link_up().unwrap();
    web.exec(&["systemctl", "stop", "ssh"]).unwrap();
    let run = world.terraform_with(&agent, &["plan", "-input=false"]);
    says(&run, &["Warning: Machine \"web\" cannot be reached", "Connection refused"]);
    web.exec(&["systemctl", "start", "ssh"]).unwrap();
    web.exec(&["mv", "/root/.ssh/authorized_keys", "/root/late"]).unwrap();
    let run = world.terraform_with(&agent, &["plan", "-input=false"]);
    says(&run, &["Warning: Machine \"web\" refused the login", "`ssh.private_key_file`"]);
    web.exec(&["mv", "/root/late", "/root/.ssh/authorized_keys"]).unwrap();
    web.exec(&["sh", "-c", "rm /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh"]).unwrap();
    let run = world.terraform_with(&agent, &["plan", "-input=false"]);
    says(&run, &["Warning: The host key of machine \"web\" is not the expected one"]);
}

#[test]
fn an_option_that_cannot_have_an_effect_is_an_error() {
    let world = world(&["web"]);
    let with = |option: &str| {
        let machine =
            machine(&world, "web", "").replace("ssh = {", &format!("ssh = {{ options = [\"{option}\"],"));
        format!("{HEAD}{machine}")
    };
    set_up(&world, &with("ForwardAgent=yes"), "");
    fails_saying(
        &apply(&world),
        &["`ForwardAgent=yes`, which has no effect", "every connection has `ForwardAgent no`"],
    );
    world.write("main.tf", &with("StrictHostKeyChecking=no")).unwrap();
    fails_saying(&apply(&world), &["set `host_key_policy` instead"]);
    world.write("main.tf", &with("ServerAliveInterval=60")).unwrap();
    succeeds(&apply(&world));
    no_changes(&world);
}

#[test]
fn a_system_travels_compressed_where_that_is_asked_for() {
    let world = world(&["web"]);
    let web = world.lab.host("web");
    let received = || {
        let said = web.exec(&["awk", "/eth0:/ { print $2 }", "/proc/net/dev"]).unwrap().stdout;
        said.trim().parse::<u64>().unwrap()
    };
    let network = |seed: u32| {
        one(&format!(
            "environment.etc.big.source = pkgs.runCommand \"big\" {{}} ''/bin/busybox yes {seed} | \
             /bin/busybox head -c 8000000 >$out'';"
        ))
    };
    let cost = |compress: bool, seed: u32| {
        world
            .write("main.tf", &site(&world, &["web"], &format!("copy = {{ compress = {compress} }}")))
            .unwrap();
        world.write("network.nix", &network(seed)).unwrap();
        let before = received();
        succeeds(&apply(&world));
        received() - before
    };
    set_up(&world, &site(&world, &["web"], ""), &one(""));
    succeeds(&apply(&world));
    assert!(cost(false, 1) > 8_000_000);
    let compressed = cost(true, 2);
    assert!(compressed < 4_000_000, "{compressed} bytes");
}
