# What NixOps gave the machines it made on EC2: the module of nixpkgs' own images, and that they are not paravirtual. Where it does not
# fit, `disabledModules = [ "virtualisation/amazon-image.nix" ]` leaves it out.
request: name:
{
  lib,
  modulesPath,
  options,
  ...
}:
let
  inherit (request) facts;
  image = "${toString modulesPath}/virtualisation/amazon-image.nix";
  isThere =
    facts.has name "target_env" && facts.get name "target_env" == "ec2" && builtins.pathExists image;
in
{
  imports = if isThere then [ image ] else [ ];
  # Machines that were installed before 17.03 would be taken for paravirtual by their `system.stateVersion`.
  config = if isThere && options ? ec2.hvm then { ec2.hvm = lib.mkDefault true; } else { };
}
