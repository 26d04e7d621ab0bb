# One NixOS configuration, for every machine that is given.
request:
import ./nodes.nix request (
  let
    nixpkgs = <nixpkgs>;
  in
  {
    files = [
      (import ./gen-attrs.nix request.facts.machines (_: {
        imports = [ (/. + request.spec.file) ];
      }))
    ];
    lib = import (nixpkgs + "/lib");
    evalConfig = import (nixpkgs + "/nixos/lib/eval-config.nix");
    pkgs = import nixpkgs { };
    # It says itself what it needs.
    places = false;
  }
)
