# What a specification says, as plain values for Terraform.
#
# Everything that is reported ends up in Terraform's plan and state, so only what was meant gets there: a machine, or a resource inside of
# another one, stands for its name. Packages, options, functions and nixpkgs' library have no value there: they are null.
#
# A value that cannot be evaluated is null, too, and its path is in `unsaid`: Nix cannot tell why it was not evaluated, but the log can (`probe`).
let
  /* A string that does not make Nix build what it mentions. */
  plain = builtins.unsafeDiscardStringContext;

  /* Deeper than anything that means something to Terraform: a value that contains itself. */
  depth = 40;
  /* More names than that are nixpkgs, or something like it. */
  width = 5000;

  try =
    default: value:
    let
      result = builtins.tryEval value;
    in
    if result.success then result.value else default;

  typeOf = value: try null (value._type or null);

  isDerivation = value: try null (value.type or null) == "derivation";

  /* A machine's configuration, or the whole evaluation that it comes from. */
  isConfiguration =
    value:
    typeOf value == "machine"
    || typeOf value == "configuration"
    || try false (value ? config && value ? options._module)
    || try false (value ? system.build && value ? networking.hostName);

  nameOf =
    value: value._name or value.config._name or value.config.networking.hostName or value.networking.hostName or null;

  /* What is no value for anybody but Nix. */
  isOpaque =
    value:
    value ? __functor
    # A tree of options.
    || try null (value._module.args._type or null) == "option"
    || builtins.elem (typeOf value) [
      "option"
      "option-type"
      "pkgs"
    ]
    || value ? stdenv && value ? lib
    || value ? mkOption && value ? types;

  /* `mkIf` and `mkOverride` that nothing has looked into. */
  isWrapped =
    value:
    builtins.elem (typeOf value) [
      "if"
      "override"
      "order"
    ];
  unwrapped = value: if value._type == "if" && !value.condition then null else value.content;

  /* What is secret at a path, whose first part is a node. */
  secrets = [
    "text"
    "passphrase"
    "password"
    "masterPassword"
    "robotPass"
    "authToken"
    "accessKey"
    "appKey"
    "apiKey"
    "vaultToken"
    "secretId"
    "sharedKey"
  ];
  isSecret =
    path: name:
    let
      kind = builtins.elemAt path 1;
      length = builtins.length path;
    in
    length > 2
    && (
      # Names of keys and of resources may be any.
      if kind == "deployment" then
        length > (if builtins.elemAt path 2 == "keys" then 3 else 2) && builtins.elem name secrets
      # A machine's `privateKey` is the name of a file; a resource's is the key itself.
      else if kind == "resources" then
        length > 3 && builtins.elem name (secrets ++ [ "privateKey" ])
      else
        false
    );

  shown = path: builtins.concatStringsSep "." (builtins.tail path);
  of = path: if builtins.head path == "" then "" else " of node `${builtins.head path}`";

  at = value: { inherit value; unsaid = [ ]; };

  /* The path. Whether a fact is missing for the value there can be read in the log. Nix 2.34 remembers how an evaluation failed, and says
     it only the first time. */
  probe =
    path: value:
    builtins.trace "nixos-probe:${builtins.toJSON path}" (
      builtins.seq (builtins.tryEval value) (builtins.trace "nixos-probed:" path)
    );

  /* What is left of a value, and the paths of what could not be evaluated. `isUnset path`: whether an option has no value there, which is
     no mistake. */
  report =
    isUnset: path: value:
    let
      seen = builtins.tryEval value;
      known = seen.value;
      again = report isUnset path;
      # In older versions of nixpkgs the module system's own is part of every submodule.
      names = builtins.filter (name: name != "_module" && !(isSecret path name)) (builtins.attrNames known);
      parts = f: builtins.genList f (builtins.length known);
      undefinedOf = children: builtins.filter (name: children.${name}.isUndefined or false) (builtins.attrNames children);
      together = children: builtins.concatMap (child: child.unsaid) children;
    in
    if !seen.success then
      {
        value = null;
        unsaid = if isUnset path then [ ] else [ (probe path value) ];
      }
    else if builtins.isAttrs known then
      if typeOf known == "undefined" then
        at null // { isUndefined = true; }
      else if isDerivation known then
        again (plain known.outPath)
      else if isConfiguration known then
        again (nameOf known)
      else if isOpaque known then
        at null
      else if isWrapped known then
        again (unwrapped known)
      else if known ? _name && known ? _type && isInner path then
        again known._name
      else if known ? __toString || known ? outPath then
        again (plain (toString (known.outPath or known)))
      else if builtins.length path > depth then
        throw "`${shown path}`${of path} is nested too deeply to be reported: does it contain itself?"
      else if builtins.length names > width then
        throw "`${shown path}`${of path} has ${toString (builtins.length names)} attributes: it is too large to be reported"
      else
        let
          children = builtins.listToAttrs (
            map (name: {
              inherit name;
              value = report isUnset (path ++ [ name ]) known.${name};
            }) names
          );
        in
        {
          value = builtins.mapAttrs (_: child: child.value) (builtins.removeAttrs children (undefinedOf children));
          unsaid = together (builtins.attrValues children);
        }
    else if builtins.isList known then
      if builtins.length path > depth then
        throw "`${shown path}`${of path} is nested too deeply to be reported: does it contain itself?"
      else
        let
          children = parts (n: report isUnset (path ++ [ (toString n) ]) (builtins.elemAt known n));
        in
        {
          value = map (child: child.value) children;
          unsaid = together children;
        }
    else if builtins.isFunction known then
      at null
    else if builtins.isPath known then
      at (toString known)
    else if builtins.isString known then
      at (plain known)
    else
      at known;

  /* Whether a resource here is one inside of another value, and not one of the network's. */
  isInner = path: builtins.elemAt path 1 != "resources" || builtins.length path > 4;

  /* The names in a dotted path, e.g. `services.openssh.ports`. Quoted ones may have dots in them. */
  parse =
    path:
    let
      pieces = builtins.filter builtins.isString (builtins.split "\"" path);
      names = piece: builtins.filter (name: builtins.isString name && name != "") (builtins.split "\\." piece);
    in
    builtins.concatLists (
      builtins.genList (
        n:
        let
          piece = builtins.elemAt pieces n;
        in
        if n / 2 * 2 == n then names piece else [ piece ]
      ) (builtins.length pieces)
    );

  /* The value there; null where there is none. */
  step = value: name: if builtins.isAttrs value && value ? ${name} then value.${name} else null;

  places = [
    "azure"
    "container"
    "digitalOcean"
    "droplet"
    "ec2"
    "gce"
    "hetzner"
    "libvirtd"
    "virtualbox"
  ];

  /* What is reported about a node, as it is. */
  rootOf = options: evaluated: {
    deployment =
      let
        deployment = builtins.removeAttrs (evaluated.config.deployment or { }) [ "arguments" ];
        place = try null (deployment.targetEnv or null);
      in
      # NixOps asked only about the place that a machine is meant for. What is said of others may be wrong there, as are resources
      # that are declared for another place only.
      if builtins.elem place places then
        builtins.mapAttrs (name: value: if name != place && builtins.elem name places then { } else value) deployment
      else
        deployment;
    options = import ./gen-attrs.nix options (path: builtins.foldl' step evaluated.config (parse path));
  };

  /* Whether something stands at a path without a value, as its default is none. */
  isUnsetIn =
    evaluated: path:
    let
      kind = builtins.elemAt path 1;

      rest = builtins.tail (builtins.tail path);
      names =
        if kind == "deployment" then
          [ kind ] ++ rest
        else
          parse (builtins.head rest) ++ builtins.tail rest;
      option = builtins.foldl' step (evaluated.options or { }) names;
    in
    builtins.length path > 2 && try false (typeOf option == "option" && !(option.isDefined or true));

  flat = { value, unsaid }: value // { inherit unsaid; };
in
{
  /* `deployment.*` and chosen options, without evaluating the system. */
  node =
    name: options: evaluated:
    flat (report (isUnsetIn evaluated) [ name ] (rootOf options evaluated));

  /* `resources.TYPE.NAME`. */
  resources = resources: flat (report (_: false) [ "" ] { inherit resources; });

  inherit probe;

  /* What stands for the value at a path. */
  valueAt =
    options: path: root:
    let
      into =
        value: name:
        if builtins.isList value then
          builtins.elemAt value (builtins.fromJSON name)
        else if isWrapped value then
          into (unwrapped value) name
        else
          value.${name};
      start = if builtins.head path == "" then root else rootOf options root;
      value = builtins.foldl' into start (builtins.tail path);
    in
    if !(builtins.isAttrs value) then
      value
    else if isDerivation value then
      plain value.outPath
    else if isConfiguration value then
      nameOf value
    else if isWrapped value then
      unwrapped value
    else if value ? __toString || value ? outPath then
      toString (value.outPath or value)
    else
      value;
}
