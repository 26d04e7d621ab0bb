# `deployment.*`: the options that networks of NixOps and colmena set, but for those about kinds of places (`places.nix`), keys
# (`keys.nix`) and what is left from older times (`legacy.nix`). Where they say how to reach a machine they are for
# `data.nixos_network`: Terraform decides that now.
request: name:
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  option = type: default: description: mkOption { inherit type default description; };
  strings = types.listOf types.str;
in
{
  options.deployment = {
    name = option types.str request.deployment.name "Name of the deployment.";
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
    targetEnv = option types.str "none" "The kind of place the machine is meant for.";
    targetHost = option (types.nullOr types.str) name "Where the machine is reached.";
    targetUser = option (types.nullOr types.str) "root" "Who logs in there.";
    targetPort = mkOption {
      type = types.nullOr types.int;
      default = builtins.head (config.services.openssh.ports or [ 22 ]);
      defaultText = "the first of services.openssh.ports";
      description = "The port of its SSH server.";
    };
    hasFastConnection = option types.bool (builtins.elem config.deployment.targetEnv [
      "libvirtd"
      "virtualbox"
    ]) "Whether the connection to the machine is fast.";
    alwaysActivate =
      option types.bool true
        "Accepted for old networks; a machine is activated when its system changes.";
    owners = option strings [ ] "Who is responsible for the machine.";
    sshOptions = option strings [ ] "Accepted for old networks; connections are configured in Terraform.";
    provisionSSHKey = option types.bool true "Accepted for old networks; keys are configured in Terraform.";
    privilegeEscalationCommand = option strings [
      "sudo"
      "-H"
      "--"
    ] "Accepted for old networks; see `elevate` of the machine.";
    storeKeysOnMachine =
      option types.bool false
        "Accepted for old networks, and not done: keys do not belong into the store.";

    # Colmena's.
    tags = option strings [ ] "Labels of the machine.";
    buildOnTarget = option (types.nullOr types.bool) null "Accepted for colmena's networks.";
    allowLocalDeployment = option types.bool false "Accepted for colmena's networks.";
    replaceUnknownProfiles = option types.bool true "Accepted for colmena's networks.";
  };
}
