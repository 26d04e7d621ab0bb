# What is reported about an evaluated node.
let
  genAttrs = import ./gen-attrs.nix;

  /* The value, or `default` when evaluating it throws. */
  or' =
    default: value:
    let
      result = builtins.tryEval (builtins.deepSeq value value);
    in
    if result.success then result.value else default;

  /* Reporting a path must not mean building it. */
  plain = builtins.unsafeDiscardStringContext;

  /* A string without its context; "" for what is none, as null units are. */
  text = value: if builtins.isString value then plain value else "";

  /* name -> version of installed packages. */
  packages =
    config:
    let
      entry =
        package:
        let
          parsed = builtins.parseDrvName (plain (package.name or ""));
        in
        {
          name = plain (package.pname or parsed.name);
          value = text (package.version or parsed.version);
        };
      named = builtins.filter (package: builtins.isAttrs package && (package ? pname || package ? name)) (
        config.environment.systemPackages or [ ]
      );
    in
    builtins.listToAttrs (map entry named);

  /* unit -> short hash of its text. */
  units =
    config:
    builtins.mapAttrs (_: unit: builtins.substring 0 12 (builtins.hashString "sha256" (text (unit.text or "")))) (
      removeDisabled (config.systemd.units or { })
    );

  /* file in /etc -> short hash of where it comes from. */
  files =
    config:
    let
      # A path is where it is copied to, as it is for the system: a flake's own path changes with every other file in it.
      place = source: plain (if builtins.isPath source then "${source}" else toString source);
    in
    builtins.mapAttrs (_: file: builtins.substring 0 12 (builtins.hashString "sha256" (place file.source))) (
      removeDisabled (config.environment.etc or { })
    );

  removeDisabled =
    all:
    builtins.removeAttrs all (builtins.filter (name: !(all.${name}.enable or true)) (builtins.attrNames all));

  /* The value at a dotted path, e.g. `services.openssh.ports`; null where it is not there or cannot be said. */
  lookup =
    config: path:
    let
      # Quoted names may have dots in them.
      pieces = builtins.filter builtins.isString (builtins.split "\"" path);
      names = piece: builtins.filter (name: builtins.isString name && name != "") (builtins.split "\\." piece);
      parts = builtins.concatLists (
        builtins.genList (
          n:
          let
            piece = builtins.elemAt pieces n;
          in
          if n / 2 * 2 == n then names piece else [ piece ]
        ) (builtins.length pieces)
      );
      step = value: name: if builtins.isAttrs value && value ? ${name} then value.${name} else null;
    in
    toJSONable (builtins.foldl' step config parts);

  /* Values that JSON has no form for, and those that cannot be evaluated (yet), become null; derivations their path. */
  toJSONable =
    value:
    let
      seen = builtins.tryEval value;
      known = seen.value;
    in
    if !seen.success || builtins.isFunction known then
      null
    else if builtins.isAttrs known then
      if or' null (known.type or null) == "derivation" then
        or' null (plain known.outPath)
      else
        builtins.mapAttrs (_: toJSONable) known
    else if builtins.isList known then
      map toJSONable known
    else if builtins.isPath known then
      toString known
    else if builtins.isString known then
      plain known
    else
      known;

  /* What NixOps calls secrets that are written in a specification. */
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
  ];

  /* Without those: what is reported ends up in Terraform's state. */
  without =
    names: value:
    if builtins.isAttrs value then
      builtins.mapAttrs (_: without names) (builtins.removeAttrs value names)
    else if builtins.isList value then
      map (without names) value
    else
      value;

  /* What is below names, which may be any. */
  below = f: value: if builtins.isAttrs value then builtins.mapAttrs f value else value;

  /* name -> "" of users. */
  users = config: builtins.mapAttrs (_: _: "") (config.users.users or { });

  /* What the firewall lets in, e.g. `tcp/443`, as names of a set. */
  ports =
    config:
    let
      firewall = config.networking.firewall or { };
      entry = name: {
        inherit name;
        value = "";
      };
      single = protocol: map (port: entry "${protocol}/${toString port}");
      ranges = protocol: map ({ from, to }: entry "${protocol}/${toString from}-${toString to}");
    in
    if firewall.enable or false then
      builtins.listToAttrs (
        single "tcp" (firewall.allowedTCPPorts or [ ])
        ++ single "udp" (firewall.allowedUDPPorts or [ ])
        ++ ranges "tcp" (firewall.allowedTCPPortRanges or [ ])
        ++ ranges "udp" (firewall.allowedUDPPortRanges or [ ])
      )
    else
      { "all (no firewall)" = ""; };

  /* Secrets to send: where they come from and where they go, not what they are. */
  keys =
    config:
    builtins.mapAttrs (_: key: {
      path = toString key.path;
      inherit (key) user group permissions;
      file = if key.keyFile == null then null else toString key.keyFile;
      command = if key.keyCommand == null then null else map plain key.keyCommand;
      text = key.text != null;
    }) (config.deployment.keys or { });
in
{
  /* The system itself and what is in it. Only the derivation and its secrets may fail; the rest is left out where it does. */
  describe =
    evaluated:
    let
      inherit (evaluated) config;
      inherit (config.system.build) toplevel;
    in
    {
      drv = plain toplevel.drvPath;
      # Not `outPath`: an attribute of that name would make the whole set print as a string.
      toplevel = plain toplevel.outPath;
      # The platform it runs on, which need not be the one it is built on.
      system = or' null (plain (evaluated.pkgs.stdenv.hostPlatform.system or toplevel.system));
      nixosVersion = or' null (plain (config.system.nixos.version or config.system.nixosVersion));
      kernel = or' null (plain (config.boot.kernelPackages.kernel.version or null));
      packages = or' { } (packages config);
      units = or' { } (units config);
      files = or' { } (files config);
      users = or' { } (users config);
      ports = or' { } (ports config);
      # A secret that is silently left out would be missed by a service.
      keys = keys config;
    };

  /* The contents of those keys that have them in the specification. */
  texts =
    evaluated:
    let
      keys = evaluated.config.deployment.keys or { };
      isText = name: keys.${name}.text != null && keys.${name}.keyFile == null && keys.${name}.keyCommand == null;
    in
    genAttrs (builtins.filter isText (builtins.attrNames keys)) (name: plain keys.${name}.text);

  /* `deployment.*` and chosen options, without evaluating the system. */
  options =
    paths: evaluated:
    let
      inherit (evaluated) config;
    in
    {
      # `arguments` are the values Terraform gave itself.
      deployment = below (name: if name == "keys" then below (_: without secrets) else without secrets) (
        toJSONable (builtins.removeAttrs (config.deployment or { }) [ "arguments" ])
      );
      options = genAttrs paths (lookup config);
    };

  # A machine's `privateKey` is the name of a file; a resource's is the key itself.
  resources = all: below (_: below (_: without (secrets ++ [ "privateKey" ]))) (toJSONable all);
}
