# The evaluator's input, with markers of unknown values made lazy.
raw:
let
  /* A throw that is no mistake of the specification. It says so on standard error, too, where who reads can tell it from a mistake even
     when it is caught. */
  missing = message: builtins.trace "nixos-fact:" (throw message);
  # Nix quotes the places that lead to an error: the mark in front of a message must be nowhere but there.
  marked = mark: message: missing "nixos-${mark}:${message}";

  /* Replaces every marker, at any depth, by a throw that names its origin. */
  lazy =
    value:
    if builtins.isAttrs value then
      if value ? __unknown then
        marked "unknown" "${value.__unknown}: the value is known only after apply"
      else
        builtins.mapAttrs (_: lazy) value
    else if builtins.isList value then
      map lazy value
    else
      value;

  /* A fact about a machine. What is known to be absent throws with advice; whether it is present can be asked first. */
  fact =
    name: key: value:
    if value == null then
      missing "node `${name}` has no ${key}: set it in its nixos_machine"
    else
      lazy value;

  facts = {
    /* Whether the network's node has a machine at all. */
    hasMachine = name: raw.machines ? ${name};

    machines = builtins.attrNames raw.machines;

    /* Whether there is such a fact, known already or not. */
    has = name: key: raw.machines ? ${name} && raw.machines.${name}.${key} or null != null;

    /* The fact; throws when it is not known yet, does not exist, or the node has no machine. */
    get =
      name: key:
      if raw.machines ? ${name} then
        fact name key (raw.machines.${name}.${key} or null)
      else
        marked "missing" "${name}:${key}: node `${name}` has no machine";
  };

  /* What a node says about itself may need packages where it has no machine yet. They are then those for this computer, as with NixOps;
     a pure evaluation does not know which that is. */
  assumed = facts // {
    get =
      name: key:
      if key == "system" && !(facts.has name key) && builtins ? currentSystem then
        builtins.currentSystem
      else
        facts.get name key;
  };

  input = raw // {
    deployment = lazy raw.deployment;
    arguments = lazy raw.arguments;
    resources = lazy raw.resources;
    specialisations = lazy raw.specialisations;
  };
  with' =
    facts:
    let
      peers = import ./peers.nix facts;
    in
    input
    // {
      facts = facts // {
        peers = peers.of;
        inherit (peers) own;
      };
    };
in
{
  /* For systems: every fact is one. */
  exact = with' facts;
  /* For what nodes say about themselves. */
  assuming = with' assumed;
}
