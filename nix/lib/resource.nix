# One `resources.TYPE.NAME` of a network. Which attributes it may have is the business of the Terraform resource that makes
# it, so any are allowed. nixpkgs' module system wants them declared, so what modules say is merged here by the same rules.
{
  lib,
  type,
  name,
  # The deployment it belongs to: name, uuid and arguments.
  deployment,
  # Its definitions: modules, i.e. sets, functions that take `arguments`, `config` or `lib`, or files with one of these.
  parts,
  arguments,
}:
let
  given = arguments // {
    inherit lib name;
    # It knows its deployment, but that is not what is declared.
    config = resource // { inherit deployment; };
  };

  isFunction = value: builtins.isFunction value || builtins.isAttrs value && value ? __functor;

  /* A module as { imports, config }. A file is known by its path, so that one that is imported twice counts once. */
  opened =
    part:
    let
      isFile = builtins.isPath part || builtins.isString part;
      written = if isFile then import part else part;
      wanted = written.__functionArgs or (builtins.functionArgs written);
      called =
        if isFunction written then
          written (if wanted == { } then given else builtins.intersectAttrs wanted given)
        else
          written;
    in
    if builtins.isAttrs called then
      {
        key = if isFile then toString part else null;
        imports = called.imports or [ ] ++ called.require or [ ];
        config =
          called.config or (builtins.removeAttrs called [
            "_file"
            "imports"
            "key"
            "require"
          ]);
      }
    else
      throw "`resources.${type}.${name}` is a ${builtins.typeOf called}: expected a set such as { region = \"…\"; }";

  /* Modules and all that they import, level by level, as nixpkgs has them. */
  closure =
    seen: parts:
    let
      level = builtins.foldl' (
        { found, keys }:
        part:
        let
          module = opened part;
        in
        if module.key != null && builtins.elem module.key keys then
          { inherit found keys; }
        else
          {
            found = found ++ [ module ];
            keys = if module.key == null then keys else keys ++ [ module.key ];
          }
      ) { found = [ ]; keys = seen; } parts;
      imports = builtins.concatMap (module: module.imports) level.found;
    in
    level.found ++ (if imports == [ ] then [ ] else closure level.keys imports);

  usual = {
    priority = 100;
    order = 1000;
  };

  /* What a value defines once `mkIf`, `mkMerge`, `mkOverride` and `mkOrder` are taken off. */
  settled =
    how: value:
    let
      kind = value._type or null;
    in
    if !(builtins.isAttrs value) then
      [ (how // { inherit value; }) ]
    else if kind == "if" then
      (if value.condition then settled how value.content else [ ])
    else if kind == "override" then
      settled (how // { inherit (value) priority; }) value.content
    else if kind == "order" then
      settled (how // { order = value.priority; }) value.content
    else if kind == "merge" then
      builtins.concatMap (settled how) value.contents
    else
      [ (how // { inherit value; }) ];

  /* The same around a whole module, brought to its attributes. */
  spread =
    config:
    let
      wrap = content: builtins.mapAttrs (_: content: config // { inherit content; }) content;
    in
    if config._type or null == "merge" then
      builtins.concatMap spread config.contents
    else if config ? _type && config ? content then
      map wrap (spread config.content)
    else
      [ config ];

  /* A set that only holds others, as opposed to a package, a machine or another resource. */
  isPlain =
    value:
    builtins.isAttrs value && !(value ? _type || value ? _name || value ? outPath || value ? __functor || value ? __toString);

  names = sets: builtins.attrNames (builtins.foldl' (all: set: all // set) { } sets);

  /* The definitions of a name in some sets. */
  under = sets: key: builtins.concatMap (set: if set ? ${key} then settled usual set.${key} else [ ]) sets;

  /* The value of definitions: the strongest of them, and those of one strength merged. */
  merged =
    path: definitions:
    let
      strongest = builtins.foldl' (best: one: if one.priority < best then one.priority else best) 9999 definitions;
      chosen = builtins.filter (one: one.priority == strongest) definitions;
      values = map (one: one.value) chosen;
    in
    if builtins.all builtins.isList values then
      builtins.concatMap (one: one.value) (builtins.sort (one: other: one.order < other.order) chosen)
    else if builtins.all isPlain values then
      mergedSets path values
    else if builtins.all (value: value == builtins.head values) (builtins.tail values) then
      builtins.head values
    else
      throw "`resources.${type}.${name}.${path}` has conflicting definitions";

  /* Whether a name is defined at all (`mkIf`) may depend on what is not known yet. So it is asked where the value is, and `report.nix`
     leaves out what is not. */
  mergedSets =
    path: sets:
    import ./gen-attrs.nix (names sets) (
      key:
      let
        definitions = under sets key;
      in
      if definitions == [ ] then { _type = "undefined"; } else merged "${path}.${key}" definitions
    );

  # nixpkgs merges the last module first.
  sets = builtins.concatMap (module: spread module.config) (reverse (closure [ ] parts));
  reverse =
    list:
    let
      last = builtins.length list - 1;
    in
    builtins.genList (n: builtins.elemAt list (last - n)) (last + 1);

  attribute =
    key:
    let
      definitions = under sets key;
    in
    if definitions == [ ] then null else merged key definitions;

  # NixOps was called Charon when it had only these.
  old = [
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
  # Google takes short names only.
  short = [
    "gceDisks"
    "gceForwardingRules"
    "gceHTTPHealthChecks"
    "gceImages"
    "gceNetworks"
    "gceStaticIPs"
    "gceTargetPools"
    "gseBuckets"
  ];
  shortUuid = builtins.replaceStrings [ "-" ] [ "" ] deployment.uuid;
  others = {
    azureTables = "nixops${shortUuid}${name}";
    datadogMonitors = "datadog-monitor-${deployment.uuid}-${name}";
    gceRoutes = "route-${deployment.uuid}-${name}";
    vaultApprole = "vault-approle-${deployment.uuid}-${name}";
  };

  resource = {
    _name = name;
    _type = type;
    name =
      others.${type} or (
        if builtins.elem type short then
          "n-${shortUuid}-${name}"
        else if builtins.elem type old then
          "charon-${deployment.uuid}-${name}"
        else
          "nixops-${deployment.uuid}-${name}"
      );
  }
  // (if type == "s3Buckets" then { arn = "arn:aws:s3:::${resource.name}"; } else { })
  // import ./gen-attrs.nix (names sets) attribute;
in
resource
