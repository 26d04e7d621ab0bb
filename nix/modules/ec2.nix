# What NixOps gave the machines it made on EC2: the module of nixpkgs' own images. Where that does not fit,
# `disabledModules = [ "virtualisation/amazon-image.nix" ]` leaves it out.
request: name:
{ modulesPath, ... }:
let
  inherit (request) facts;
  image = "${toString modulesPath}/virtualisation/amazon-image.nix";
in
{
  imports =
    if facts.has name "target_env" && facts.get name "target_env" == "ec2" && builtins.pathExists image then
      [ image ]
    else
      [ ];
}
