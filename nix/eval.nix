# Evaluates nodes of a specification.
#
# `request` says which specification, what is known about its machines, and the arguments. A value that is not known yet
# stands there as { __unknown = ORIGIN; } and becomes a `throw` that fires only when something looks at it; so a node that
# does not depend on it evaluates exactly. See `lib/input.nix`.
#
# Attributes of the result: `names`, `nodes`, `descriptions` and `network` (what is said besides nodes) catch what can be caught; `outline`
# (the names), `node` (the only wanted one), `reason` (why a value could not be reported; `probes` only asks whether a fact is missing) and `texts` (secrets that the specification
# contains) do not, so that Nix prints what is wrong.
{
  request,
  # Names of the wanted nodes.
  nodes,
  # Where somebody watches what is read: the beginning of the names of files that are not there, and are looked for to say something.
  # `done-HASH`: the node whose name has that hash is done.
  marks ? null,
  # For `reason` and `probes`: where values are, the name of the node first ("" for what belongs to none).
  paths ? [ ],
}:
let
  input = import ./lib/input.nix request;
  load = input: import (./lib + "/${request.spec.kind}.nix") (input // { inherit marks; });
  spec = load input.exact;
  said = load input.assuming;
  system = import ./lib/system.nix;
  report = import ./lib/report.nix;

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
    spec: name:
    spec.nodes.${name} or (throw "the specification has no node `${name}`");

  /* A node as it is to run: one of its specialisations, where one is asked for. */
  wanted =
    name:
    let
      evaluated = get spec name;
      specialisation = input.exact.specialisations.${name} or null;
      available = evaluated.config.specialisation or { };
    in
    if specialisation == null then
      system.of evaluated
    else if available ? ${specialisation} then
      system.specialised specialisation evaluated
    else
      throw "`specialisations` names `${specialisation}` for machine `${name}`, whose configuration has ${
        if available == { } then
          "no specialisations"
        else
          "only ${builtins.concatStringsSep ", " (map (one: "`${one}`") (builtins.attrNames available))}"
      }: set one in its NixOS option `specialisation`, or name another";

  # One after the other in their order: when an error that cannot be caught ends that, Nix' trace has the name of the node it was in.
  inOrder =
    f:
    map (name: {
      inherit name;
      value = builtins.addErrorContext "nixos-node:${name}:" (done name (f name));
    }) nodes;

  /* What could not be reported; fails as it did. */
  valueAt =
    path:
    report.valueAt request.options path (
      if builtins.head path == "" then { inherit (said) resources; } else get said (builtins.head path)
    );

  /* What the log says until then is about this node, or about those before it. */
  logged = name: value: builtins.deepSeq value (builtins.trace "nixos-done:${name}:" value);
in
{
  names = caught (builtins.attrNames spec.nodes);
  nodes = inOrder (name: logged name (caught (system.describe (wanted name))));
  outline = builtins.attrNames spec.nodes;
  node = system.describe (wanted (builtins.head nodes));
  descriptions = inOrder (name: report.node name request.options (get said name));
  network = {
    names = builtins.attrNames said.nodes;
    description = caught said.description;
  }
  // report.resources said.resources;
  probes = map (path: report.probe path (valueAt path)) paths;
  reason = builtins.seq (valueAt (builtins.head paths)) true;
  # For the agent that sends them, and for nothing else.
  texts = import ./lib/gen-attrs.nix nodes (name: system.texts (wanted name));
}
