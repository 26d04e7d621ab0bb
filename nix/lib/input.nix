# The evaluator's input, with markers of unknown values made lazy.
raw:
let
  /* Replaces every marker, at any depth, by a throw that names its origin. */
  lazy =
    value:
    if builtins.isAttrs value then
      if value ? __unknown then
        throw "nixos-unknown:${value.__unknown}: the value is known only after apply"
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
      throw "node `${name}` has no ${key}: set it in its nixos_machine"
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
        throw "nixos-missing:${name}:${key}: node `${name}` has no machine";
  };
in
raw
// {
  deployment = lazy raw.deployment;
  arguments = lazy raw.arguments;
  resources = lazy raw.resources;
  facts = facts // {
    peers = import ./peers.nix facts;
  };
}
