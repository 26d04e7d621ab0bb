# NixOps network files: one or several, functions of arguments or plain sets, merged node by node.
request:
let
  inherit (request) arguments facts;

  /* Attributes of a network file that are not nodes. */
  reserved = [
    "network"
    "defaults"
    "resources"
    "require"
    "nixpkgs"
  ];

  /* Calls a network file with the arguments it takes. */
  load =
    path:
    let
      file = import path;
      taken = builtins.functionArgs file;
      required = builtins.filter (name: !taken.${name} && !(arguments ? ${name})) (builtins.attrNames taken);
      given = if taken == { } then arguments else builtins.intersectAttrs taken arguments;
    in
    if !builtins.isFunction file then
      file
    else if required != [ ] then
      throw "the network file ${toString path} takes the argument `${builtins.head required}`, which `arguments` does not give"
    else
      file given;

  /* All files with what they require, each once. */
  files = map (item: item.network) (
    builtins.genericClosure {
      startSet = map item request.spec.files;
      operator = { network, ... }: map item (network.require or [ ]);
    }
  );

  item = path: {
    key = toString path;
    network = load (/. + toString path);
  };

  having = name: builtins.filter (file: file ? ${name}) files;

  names = builtins.filter (name: !(builtins.elem name reserved)) (
    builtins.attrNames (builtins.foldl' (all: file: all // file) { } files)
  );

  /* `network.nixpkgs`: a path, or nixpkgs already imported. */
  declared = builtins.concatMap (
    file: if file.network ? nixpkgs then [ file.network.nixpkgs ] else [ ]
  ) (having "network");
  nixpkgs =
    if declared == [ ] then
      <nixpkgs>
    else
      let
        last = builtins.elemAt declared (builtins.length declared - 1);
      in
      if builtins.isAttrs last then last.path or last.outPath else last;

  resources = builtins.foldl' (all: file: all // file.resources) { } (having "resources") // request.resources;

  lib = import (nixpkgs + "/lib");

  /* Until 22.05 `eval-config.nix` wanted to be told the platform; later ones leave it to the configuration. */
  telling = !(lib ? trivial.release) || builtins.compareVersions lib.trivial.release "22.05" < 0;

  evaluate =
    name:
    import (nixpkgs + "/nixos/lib/eval-config.nix") (
      {
        modules =
          builtins.concatMap (file: [ file.defaults ]) (having "defaults")
          ++ map (file: file.${name}) (having name)
          ++ [ (import ../modules request { inherit name; platform = !telling; }) ];
        specialArgs = {
          inherit name nodes resources;
          inherit (request) arguments;
          inherit (request.deployment) uuid;
          deploymentName = request.deployment.name;
        };
      }
      // (if telling then { system = facts.get name "system"; } else { system = null; })
    );

  nodes = builtins.listToAttrs (
    map (name: {
      inherit name;
      value = evaluate name;
    }) names
  );
in
{
  inherit nodes;
}
