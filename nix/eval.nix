# Evaluates nodes of a specification.
#
# `request` says which specification, what is known about its machines, and the arguments. A value that is not known yet
# stands there as { __unknown = ORIGIN; } and becomes a `throw` that fires only when something looks at it; so a node that
# does not depend on it evaluates exactly. See `lib/input.nix`.
#
# Attributes of the result: `names`, `nodes` and `descriptions` catch what can be caught; `outline` (the names), `network` (what is said besides
# nodes), `node` and `description` (of the only wanted node) and `texts` (secrets that the specification contains) do not, so that Nix
# prints what is wrong.
{
  request,
  # Names of the wanted nodes.
  nodes,
  # Where somebody watches what is read: the beginning of the names of files that are not there, and are looked for to say something.
  # `done-HASH`: the node whose name has that hash is done.
  marks ? null,
}:
let
  input = import ./lib/input.nix request;
  spec = import (./lib + "/${input.spec.kind}.nix") (input // { inherit marks; });
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
    builtins.deepSeq value (
      if marks == null then
        value
      else
        builtins.seq (builtins.pathExists "${marks}done-${builtins.hashString "sha256" name}") value
    );

  /* A node by name. A name that is not there is the caller's to report. */
  get =
    name:
    spec.nodes.${name} or (throw "the specification has no node `${name}`");

  # One after the other in their order: when an error that cannot be caught ends that, Nix' trace has the name of the node it was in.
  inOrder =
    f:
    map (name: {
      inherit name;
      value = builtins.addErrorContext "nixos-node:${name}:" (done name (f (get name)));
    }) nodes;

  forWanted = f: import ./lib/gen-attrs.nix nodes (name: f (get name));
in
{
  names = caught (builtins.attrNames spec.nodes);
  nodes = inOrder (evaluated: caught (system.describe evaluated));
  outline = builtins.attrNames spec.nodes;
  node = system.describe (get (builtins.head nodes));
  # Where options that are asked for have no value, they are null; where there are no options at all something is wrong, or not known.
  descriptions = inOrder (evaluated: {
    description = system.options input.options evaluated;
    failed = !(builtins.tryEval (evaluated.config.deployment or { })).success;
  });
  description = (get (builtins.head nodes)).config.deployment or { };
  # For whoever sends them, and for nothing else.
  texts = forWanted system.texts;
  network = {
    names = builtins.attrNames spec.nodes;
    description = caught spec.description;
    resources = system.resources spec.resources;
  };
}
