# What Terraform knows about machines, as NixOps gave it to modules.
request:
{
  name,
  platform,
  network,
  named,
}:
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkIf mkOption mkOverride types;
  inherit (request) facts;

  about = facts.peers name;
  inherit (config.deployment) peers;
  lines = all: builtins.concatStringsSep "\n" (builtins.attrValues all);
  enable =
    description:
    mkOption {
      type = types.bool;
      # Where each machine has a line about every other one, a new machine changes them all. NixOps' networks count on it.
      default = network;
      inherit description;
    };
  # NixOps' networks may look up all names in the same way.
  hosts = about.hosts // (if network then facts.own name else { });
in
{
  options.deployment.peers = {
    hosts.enable = enable "Whether the names of the other machines are in /etc/hosts.";
    knownHosts.enable = enable "Whether the SSH host keys of the other machines are known.";
  };
  options.networking = {
    privateIPv4 = mkOption {
      type = types.str;
      default = facts.get name "private_ipv4";
      defaultText = "the machine's private_ipv4";
      description = "The machine's address in its own network.";
    };
    publicIPv4 = mkOption {
      type = types.nullOr types.str;
      default = if !(facts.hasMachine name) || facts.has name "public_ipv4" then facts.get name "public_ipv4" else null;
      defaultText = "the machine's public_ipv4";
      description = "The machine's address on the internet.";
    };
    publicIPv6 = mkOption {
      type = types.nullOr types.str;
      default = if !(facts.hasMachine name) || facts.has name "public_ipv6" then facts.get name "public_ipv6" else null;
      defaultText = "the machine's public_ipv6";
      description = "The machine's IPv6 address on the internet.";
    };
  };

  config = {
    networking.hostName = mkIf named (mkOverride 900 name);
    networking.extraHosts = mkIf (about.hosts != { } && peers.hosts.enable) (lines hosts);
    # The file rather than `programs.ssh.knownHosts`: an option for each pair of machines is what large networks would spend their
    # time on.
    environment.etc = mkIf (about.knownHosts != { } && peers.knownHosts.enable) {
      "ssh/ssh_known_hosts".text = lines about.knownHosts;
    };
    system.stateVersion = mkIf (facts.has name "state_version") (mkDefault (facts.get name "state_version"));
    nixpkgs = if platform then { system = mkDefault (facts.get name "system"); } else { };
  };
}
