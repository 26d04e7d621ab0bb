# What Terraform knows about machines, as NixOps gave it to modules.
request:
{
  name,
  platform,
  network,
}:
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkIf mkOption mkOverride types;
  inherit (request) facts;

  peers = facts.peers name;
  enabled = what: config.deployment.peers.${what}.enable or true;
  lines = about: builtins.concatStringsSep "\n" (builtins.attrValues about);
  # NixOps' networks may look up all names in the same way.
  hosts = peers.hosts // (if network then facts.own name else { });
in
{
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
    networking.hostName = mkOverride 900 name;
    networking.extraHosts = mkIf (peers.hosts != { } && enabled "hosts") (lines hosts);
    # The file rather than `programs.ssh.knownHosts`: an option for each pair of machines is what large networks would spend their
    # time on.
    environment.etc = mkIf (peers.knownHosts != { } && enabled "knownHosts") {
      "ssh/ssh_known_hosts".text = lines peers.knownHosts;
    };
    system.stateVersion = mkIf (facts.has name "state_version") (mkDefault (facts.get name "state_version"));
    nixpkgs = if platform then { system = mkDefault (facts.get name "system"); } else { };
  };
}
