# `deployment.keys`, as NixOps and colmena declare them, and a unit for each to wait for: `NAME-key.service`.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  option = type: default: description: mkOption { inherit type default description; };
  maybe = type: option (types.nullOr type) null;

  key =
    { name, config, ... }:
    {
      options = {
        text = maybe types.str "Its content. Who can read the specification can read it; what a flake contains is in the Nix store.";
        keyFile = mkOption {
          type = types.nullOr types.path;
          default = null;
          # A path would be copied into the store.
          apply = value: if value == null then null else toString value;
          description = "A file where Terraform runs.";
        };
        keyCommand = maybe (types.listOf types.str) "A command, run where Terraform runs, that prints it.";
        name = option types.str name "The name of its file.";
        destDir = option types.path "/run/keys" "The directory of its file.";
        path = mkOption {
          type = types.path;
          default = "${toString config.destDir}/${config.name}";
          defaultText = "destDir/name";
          description = "Where it is.";
        };
        user = option types.str "root" "Whom the file belongs to.";
        group = option types.str "root" "Which group it belongs to.";
        permissions = option types.str "0600" "Its mode, in octal digits.";
        # Colmena's.
        uploadAt = option types.str "pre-activation" "Accepted for colmena's networks.";
      };
    };

  # NixOps 1.4 and older wrote the content alone.
  bare = types.either types.str (types.submodule key);
in
{
  options.deployment.keys = mkOption {
    type = types.attrsOf bare;
    default = { };
    apply = builtins.mapAttrs (
      name: value:
      if builtins.isString value then
        {
          inherit name;
          text = value;
          keyFile = null;
          keyCommand = null;
          destDir = "/run/keys";
          path = "/run/keys/${name}";
          user = "root";
          group = "root";
          permissions = "0600";
          uploadAt = "pre-activation";
        }
      else
        value
    );
    description = "Secrets of the machine.";
  };

  # Started by whoever wants it (`after` and `wants`), it is active once the secret is there.
  config.systemd.services = lib.mapAttrs' (
    name: key:
    lib.nameValuePair "${name}-key" {
      description = "Secret ${name}";
      wantedBy = [ "keys.target" ];
      unitConfig = {
        Before = "keys.target";
        DefaultDependencies = false;
      };
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        TimeoutStartSec = "infinity";
      };
      # The account that it belongs to may come with the same deployment, so that the file is given to it after it was written.
      script = ''
        path=${lib.escapeShellArg key.path}
        owner=${lib.escapeShellArg key.user}
        group=${lib.escapeShellArg key.group}
        until [ -e "$path" ]; do sleep 0.2; done
        for try in $(seq 150); do
          case "$(stat -L -c ' %U %u / %G %g ' "$path")" in
            *" $owner "*"/"*" $group "*) exit 0 ;;
          esac
          sleep 0.2
        done
        echo "$path does not belong to $owner:$group"
      '';
    }
  ) config.deployment.keys;
}
