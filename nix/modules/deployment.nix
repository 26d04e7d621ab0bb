# `deployment.*`: the options NixOps networks set. The ones about places are for `data.nixos_network`; what they used to do
# is Terraform's part now.
request: name:
{ lib, ... }:
let
  inherit (lib) mkOption types;
  text = default: description: mkOption {
    type = types.nullOr types.str;
    inherit default description;
  };
in
{
  options.deployment = {
    name = mkOption {
      type = types.str;
      default = request.deployment.name;
      description = "Name of the deployment.";
    };
    uuid = mkOption {
      type = types.str;
      default = request.deployment.uuid;
      defaultText = "the deployment's id";
      description = "Identity of the deployment.";
    };
    arguments = mkOption {
      type = types.raw or types.unspecified;
      default = request.arguments;
      defaultText = "the deployment's arguments";
      description = "Arguments of the deployment.";
    };
    targetEnv = text "none" "The kind of place the machine is meant for.";
    targetHost = text name "Where the machine is reached.";
    targetUser = text "root" "Who logs in there.";
    targetPort = mkOption {
      type = types.int;
      default = 22;
      description = "The port of its SSH server.";
    };
    hasFastConnection = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the connection to the machine is fast.";
    };
    alwaysActivate = mkOption {
      type = types.bool;
      default = true;
      description = "Accepted for old networks; a machine is activated when its system changes.";
    };
    owners = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Who is responsible for the machine.";
    };
    sshOptions = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Accepted for old networks; connections are configured in Terraform.";
    };
    provisionSSHKey = mkOption {
      type = types.bool;
      default = false;
      description = "Accepted for old networks; keys are configured in Terraform.";
    };
    privilegeEscalationCommand = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Accepted for old networks; see `elevate` of the machine.";
    };
    peers.hosts.enable = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the names of the other machines are in /etc/hosts.";
    };
    peers.knownHosts.enable = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the SSH host keys of the other machines are known.";
    };
  };
}
