# Colmena's `colmena` output: `meta`, `defaults` and nodes.
request: hive:
let
  meta = hive.meta or hive.network or { };

  /* nixpkgs as colmena takes it: a path, or already imported. */
  imported =
    nixpkgs:
    if builtins.isAttrs nixpkgs && nixpkgs ? path then
      nixpkgs
    else if builtins.isFunction nixpkgs then
      nixpkgs { }
    else
      import nixpkgs { };
  pkgsFor =
    name:
    imported (
      meta.nodeNixpkgs.${name} or meta.nixpkgs or (throw "`colmena.meta.nixpkgs` is needed to evaluate a flake's `colmena`")
    );

  names = builtins.filter (
    name:
    !(builtins.elem name [
      "meta"
      "network"
      "defaults"
    ])
  ) (builtins.attrNames hive);

  evaluate =
    name:
    let
      pkgs = pkgsFor name;
      modern = builtins.compareVersions (pkgs.lib.trivial.release or "0") "22.05" >= 0;
    in
    import (pkgs.path + "/nixos/lib/eval-config.nix") {
      system = if modern then null else pkgs.system;
      modules = [
        (
          { lib, ... }:
          {
            nixpkgs = {
              overlays = lib.mkBefore (pkgs.overlays or [ ]);
              config = lib.mkBefore (pkgs.config or { });
            }
            // (if modern then { hostPlatform = lib.mkDefault (pkgs.stdenv.hostPlatform.system or pkgs.system); } else { });
          }
        )
        (hive.defaults or { })
        hive.${name}
        (import ../modules request {
          inherit name;
          platform = false;
          named = false;
        })
      ];
      specialArgs = {
        inherit name nodes;
        inherit (request) arguments resources;
        inherit (request.deployment) uuid;
        deploymentName = request.deployment.name;
      }
      // (meta.specialArgs or { })
      // (meta.nodeSpecialArgs.${name} or { });
    };

  nodes = import ./gen-attrs.nix names (name: evaluate name // { _name = name; });
in
{
  inherit nodes;
  description = meta.description or null;
}
