# Evaluates all nodes of a specification in one pass.
#
# `input` is the path of a JSON file: the specification, what is known about its machines, arguments, and which nodes are
# wanted. A value that is not known yet stands there as { "__unknown": ORIGIN } and becomes a `throw` that fires only when
# something looks at it; so a node that does not depend on it evaluates exactly. See `lib/input.nix`.
#
# Attributes of the result: `names`, `nodes` and `network` catch errors; `node` evaluates the node called `node` alone and
# does not, so that Nix prints what is wrong.
{
  input,
  node ? null,
}:
let
  request = import ./lib/input.nix input;
  spec = import (./lib + "/${request.spec.kind}.nix") request;
  system = import ./lib/system.nix;

  wanted = if request.nodes == null then builtins.attrNames spec.nodes else request.nodes;

  /* `{ ok = value; }`, or `{ failed = true; }` when evaluating it throws. */
  caught =
    value:
    let
      result = builtins.tryEval (builtins.deepSeq value value);
    in
    if result.success then { ok = result.value; } else { failed = true; };

  /* A node by name. A name that is not there is the caller's to report. */
  get =
    name:
    spec.nodes.${name} or (throw "the specification has no node `${name}`");

  forWanted =
    f:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value = f name (get name);
      }) wanted
    );
in
{
  names = caught (builtins.attrNames spec.nodes);
  nodes = forWanted (_: evaluated: caught (system.describe evaluated));
  node = system.describe (get node);
  network = forWanted (_: evaluated: system.options request.options evaluated);
}
