# One `resources.TYPE.NAME` of a network. Which attributes it may have is the business of the Terraform resource that makes
# it, so any are allowed: its definitions are merged attribute by attribute, not by nixpkgs' module system, which would want
# them declared.
{
  lib,
  type,
  name,
  # The deployment it belongs to: name, uuid and arguments.
  deployment,
  # Its definitions: sets, or functions that take `arguments`, `config` or `lib`.
  parts,
  arguments,
}:
let
  given = arguments // {
    inherit lib name;
    # It knows its deployment, but that is not what is declared.
    config = resource // { inherit deployment; };
  };

  /* A definition as a set. */
  opened =
    part:
    let
      wanted = builtins.functionArgs part;
      called = if builtins.isFunction part then part (if wanted == { } then given else builtins.intersectAttrs wanted given) else part;
    in
    called.config or called;

  /* `mkIf`, `mkOverride` and `mkMerge` as lists of [ priority value ]. */
  settled =
    priority: value:
    let
      kind = value._type or null;
    in
    if !(builtins.isAttrs value) then
      [ { inherit priority value; } ]
    else if kind == "if" then
      (if value.condition then settled priority value.content else [ ])
    else if kind == "override" then
      settled value.priority value.content
    else if kind == "merge" then
      builtins.concatMap (settled priority) value.contents
    else
      [ { inherit priority value; } ];

  sets = map opened parts;

  attribute =
    key:
    let
      all = builtins.concatMap (set: if set ? ${key} then settled 100 set.${key} else [ ]) sets;
      strongest = builtins.foldl' (best: one: if one.priority < best then one.priority else best) 9999 all;
      values = map (one: one.value) (builtins.filter (one: one.priority == strongest) all);
    in
    # As the options of NixOps' resources: lists and sets add up, of anything else there can be one.
    if values == [ ] then
      null
    else if builtins.all builtins.isList values then
      builtins.concatLists values
    else if builtins.all builtins.isAttrs values then
      builtins.foldl' (below: above: below // above) { } values
    else if builtins.all (value: value == builtins.head values) values then
      builtins.head values
    else
      throw "`resources.${type}.${name}.${key}` has conflicting definitions";

  # NixOps was called Charon when it had only these.
  named = [
    "cloudwatchLogGroups"
    "cloudwatchLogStreams"
    "ec2KeyPairs"
    "ec2PlacementGroups"
    "ec2SecurityGroups"
    "iamRoles"
    "s3Buckets"
    "snsTopics"
    "sqsQueues"
  ];

  resource = {
    _name = name;
    _type = type;
    name = "${if builtins.elem type named then "charon" else "nixops"}-${deployment.uuid}-${name}";
  }
  // (if type == "s3Buckets" then { arn = "arn:aws:s3:::${resource.name}"; } else { })
  // import ./gen-attrs.nix (builtins.attrNames (builtins.foldl' (all: set: all // set) { } sets)) attribute;
in
resource
