# NixOps network files: one or several, functions of arguments or plain sets, merged node by node.
request:
let
  inherit (request) arguments;

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
      located path file
    else if required != [ ] then
      throw "the network file ${toString path} takes the argument `${builtins.head required}`, which `arguments` does not give"
    else
      located path (file given);

  /* With the name that messages of the module system have for it. */
  located =
    path: network:
    if builtins.isAttrs network then
      network // { _file = toString path; }
    else
      throw "the network file ${toString path} is a ${builtins.typeOf network}: expected a set of machines, or a function that gives one";

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

  /* `network.nixpkgs`: a path, or nixpkgs already imported; the first one counts. */
  declared = builtins.concatMap (file: if file ? network.nixpkgs then [ file.network.nixpkgs ] else [ ]) files;
  first = if declared == [ ] then <nixpkgs> else builtins.head declared;
  nixpkgs = if builtins.isAttrs first then first.path or first.outPath else first;
in
import ./nodes.nix request {
  inherit files;
  lib = import (nixpkgs + "/lib");
  evalConfig = import (nixpkgs + "/nixos/lib/eval-config.nix");
  pkgs = if builtins.isAttrs first && first ? lib then first else import nixpkgs { };
}
