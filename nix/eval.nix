# Evaluates nodes of a specification.
#
# `request` says which specification, what is known about its machines, and the arguments. A value that is not known yet
# stands there as { __unknown = ORIGIN; } and becomes a `throw` that fires only when something looks at it; so a node that
# does not depend on it evaluates exactly. See `lib/input.nix`.
#
# Attributes of the result: `names`, `nodes` and `descriptions` catch errors; `outline` (the names), `network` (what is said besides
# nodes), `node` (the only wanted node) and `texts` (secrets that the specification contains) do not, so that Nix prints what is wrong.
{
  request,
  # Names of the wanted nodes.
  nodes,
  # Where somebody watches what is read and wants to know when a node is done: the beginning of the name of a file that is looked
  # for then, which the hash of the node's name ends.
  announced ? null,
}:
let
  input = import ./lib/input.nix request;
  spec = import (./lib + "/${input.spec.kind}.nix") input;
  system = import ./lib/system.nix;

  /* `{ ok = value; }`, or `{ failed = true; }` when evaluating it throws. */
  caught =
    value:
    let
      result = builtins.tryEval (builtins.deepSeq value value);
    in
    if result.success then { ok = result.value; } else { failed = true; };

  /* The same value; whoever watches has seen everything by then that it was made from. */
  done =
    name: value:
    if announced == null then
      value
    else
      builtins.deepSeq value (
        builtins.seq (builtins.pathExists (announced + builtins.hashString "sha256" name)) value
      );

  /* A node by name. A name that is not there is the caller's to report. */
  get =
    name:
    spec.nodes.${name} or (throw "the specification has no node `${name}`");

  forWanted = f: import ./lib/gen-attrs.nix nodes (name: f (get name));
in
{
  names = caught (builtins.attrNames spec.nodes);
  nodes = builtins.mapAttrs done (forWanted (evaluated: caught (system.describe evaluated)));
  outline = builtins.attrNames spec.nodes;
  node = system.describe (get (builtins.head nodes));
  descriptions = builtins.mapAttrs done (forWanted (system.options input.options));
  # For whoever sends them, and for nothing else.
  texts = forWanted system.texts;
  network = {
    names = builtins.attrNames spec.nodes;
    description = caught spec.description;
    resources = system.toJSONable spec.resources;
  };
}
