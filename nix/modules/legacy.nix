# Options of NixOps 1 that are declared so that networks evaluate, and refused where ignoring them would be dangerous.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  option = type: default: description: mkOption { inherit type default description; };
  text = option types.str;
  attributes = types.attrsOf types.unspecified;
  inherit (config) deployment;

  /* Disks of a place whose encryption NixOps made an `autoLuks` of. Where the machine is meant for another place they are not its own. */
  encrypted =
    place:
    let
      disks = deployment.${place}.blockDeviceMapping or { };
      isEncrypted = disk: disk.encrypt or false && disk.encryptionType or "luks" == "luks";
    in
    if deployment.targetEnv == place || deployment.targetEnv == "none" then
      builtins.filter (device: isEncrypted disks.${device}) (builtins.attrNames disks)
    else
      [ ];
  refusedDisks =
    place:
    let
      devices = encrypted place;
    in
    refused (devices != [ ])
      "`encrypt` of ${builtins.concatStringsSep ", " devices} (`deployment.${place}.blockDeviceMapping`, or `fileSystems.*.${place}`) is not supported: nothing would open the disk, as `deployment.autoLuks` is not built in any more. Let the place encrypt it where it is made, or use boot.initrd.luks or nixos-modules-contrib.";

  refused = condition: message: {
    assertion = !condition;
    inherit message;
  };
in
{
  options = {
    deployment = {
      encryptedLinksTo = option (types.listOf types.str) [ ] "Machines to have an encrypted link to.";
      autoLuks = option (types.attrsOf attributes) { } "Encrypted disks by the service that opens them.";
      autoRaid0 = option (types.attrsOf attributes) { } "Striped disks by the service that makes them.";
      route53 = {
        accessKeyId = text "" "Accepted for old networks; use aws_route53_record.";
        hostName = text "" "Accepted for old networks; use aws_route53_record.";
        ttl = option types.int 300 "Accepted for old networks; use aws_route53_record.";
        usePublicDNSName = option types.bool false "Accepted for old networks; use aws_route53_record.";
        private = option types.bool false "Accepted for old networks; use aws_route53_record.";
      };
    };
    networking.vpnPublicKey = option (types.nullOr types.str) null "Accepted for old networks.";
    networking.p2pTunnels = option attributes { } "Accepted for old networks.";
  };

  config.assertions = [
    (refused (deployment.encryptedLinksTo != [ ])
      "`deployment.encryptedLinksTo` is not supported: without the link, traffic would go in the clear. Use networking.wireguard."
    )
    (refused (config.networking.p2pTunnels != { })
      "`networking.p2pTunnels` is not supported. Use networking.wireguard."
    )
    (refused (
      deployment.autoLuks != { }
    ) "`deployment.autoLuks` is not built in any more. Use boot.initrd.luks or import nixos-modules-contrib.")
    (refused (
      deployment.autoRaid0 != { }
    ) "`deployment.autoRaid0` is not built in any more. Use boot.swraid, disko or import nixos-modules-contrib.")
    (refusedDisks "ec2")
    (refusedDisks "gce")
    (refusedDisks "azure")
  ];
}
