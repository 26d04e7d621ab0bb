# One NixOS configuration, for every machine that is given.
request:
import ./nodes.nix request (
  let
    nixpkgs = <nixpkgs>;
  in
  {
    files = [
      (builtins.listToAttrs (
        map (name: {
          inherit name;
          value = {
            imports = [ (/. + request.spec.file) ];
          };
        }) request.facts.machines
      ))
    ];
    lib = import (nixpkgs + "/lib");
    evalConfig = import (nixpkgs + "/nixos/lib/eval-config.nix");
    pkgs = import nixpkgs { };
  }
)
