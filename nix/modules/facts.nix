# What Terraform knows about machines, as NixOps gave it to modules.
request:
{ name, platform }:
{ config, lib, ... }:
let
  inherit (lib) mkDefault mkIf mkOption mkOverride types;
  inherit (request) facts;

  peers = builtins.filter (peer: peer != name) facts.machines;

  /* How this node reaches a peer: inside a common network, else through the internet. */
  address =
    peer:
    if facts.has name "private_ipv4" && facts.has peer "private_ipv4" then
      facts.get peer "private_ipv4"
    else if facts.has peer "public_ipv4" then
      facts.get peer "public_ipv4"
    else
      null;

  /* Whether there is an address can be told before it is known which. */
  hasAddress =
    peer:
    (facts.has name "private_ipv4" && facts.has peer "private_ipv4") || facts.has peer "public_ipv4";
  reachable = builtins.filter hasAddress peers;
  identified = builtins.filter (peer: facts.has peer "host_public_key") peers;
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
  };

  config = {
    networking.hostName = mkOverride 900 name;
    networking.extraHosts = mkIf (reachable != [ ] && (config.deployment.peers.hosts.enable or true)) (
      builtins.concatStringsSep "\n" (map (peer: "${address peer} ${peer} ${peer}-unencrypted") reachable)
    );
    services.openssh.knownHosts = mkIf (config.deployment.peers.knownHosts.enable or true) (
      builtins.listToAttrs (
        map (peer: {
          name = peer;
          value = {
            hostNames = [
              peer
              "${peer}-unencrypted"
            ]
            ++ (if hasAddress peer then [ (address peer) ] else [ ]);
            publicKey = facts.get peer "host_public_key";
          };
        }) identified
      )
    );
    system.stateVersion = mkIf (facts.has name "state_version") (mkDefault (facts.get name "state_version"));
    nixpkgs = if platform then { system = mkDefault (facts.get name "system"); } else { };
  };
}
