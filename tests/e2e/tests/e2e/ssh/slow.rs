//! A link that is slow, and on which packets are lost.

use crate::support::{SLEEPER, apply, fails_saying, no_changes, one, set_up, site, succeeds, world};

/// Leads to a host and port: 150 ms in each direction, 200 kB/s, and three seconds of silence now and then, which is
/// what lost packets look like from above TCP. The kernel here has no `netem`.
const RELAY: &str = r"#!/usr/bin/perl
use strict; use Socket; use Time::HiRes qw(sleep);
my ($host, $port) = @ARGV;
socket(my $server, PF_INET, SOCK_STREAM, 0) or die;
connect($server, sockaddr_in($port, inet_aton($host))) or die qq(connect: $!\n);
sub pass {
  my ($from, $to) = @_;
  my $pieces = 0;
  while (sysread($from, my $bytes, 32768)) {
    sleep(0.15 + length($bytes) / 200000);
    sleep(3) if ++$pieces % 40 == 0;
    while (length $bytes) { my $n = syswrite($to, $bytes) or return; substr($bytes, 0, $n) = ''; }
  }
}
if (my $there = fork) {
  pass($server, \*STDOUT); kill 'TERM', $there;
} else {
  pass(\*STDIN, $server); shutdown($server, 1);
}
";

#[test]
fn a_slow_link_with_losses_only_takes_longer() {
    let world = world(&["web"]);
    let control = world.lab.control();
    control.write_file("/root/relay", RELAY).unwrap();
    assert!(control.exec(&["chmod", "755", "/root/relay"]).unwrap().success);
    let address = world.lab.host("web").address();
    let config = format!("Host {address}\n  ProxyCommand /root/relay %h %p\n");
    control.write_file("/root/.ssh/config", config).unwrap();
    set_up(&world, &site(&world, &["web"], "reboot = \"never\""), &one(SLEEPER));
    let run = apply(&world);
    succeeds(&run);
    assert!(run.took.as_secs() > 5, "it went through the slow link: {:?}", run.took);
    no_changes(&world);
    let before = world.current_system("web");
    let broken = SLEEPER.replace("sleep 1000000", "false").replace("sleeper", "broken");
    world.write("network.nix", &one(&broken)).unwrap();
    fails_saying(&apply(&world), &["broken.service", "rolled back"]);
    assert_eq!(world.current_system("web"), before, "the way back needs no connection");
}
