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

  short = text: builtins.substring 0 12 (builtins.hashString "sha256" text);

  /* Installed packages by name: something about each. */
  aboutPackages =
    about: config:
    let
      entry =
        package:
        let
          parsed = builtins.parseDrvName (plain (package.name or ""));
        in
        {
          name = plain (package.pname or parsed.name);
          value = about package parsed;
        };
      named = builtins.filter (package: builtins.isAttrs package && (package ? pname || package ? name)) (
        config.environment.systemPackages or [ ]
      );
    in
    builtins.listToAttrs (map entry named);

  /* name -> version of installed packages. */
  packages = aboutPackages (package: parsed: text (package.version or parsed.version));

  /* name -> short hash of where it is: another build of the same version is at another place. */
  builds = aboutPackages (package: _: short (text (package.outPath or "")));

  /* Where files come from: what is in `/etc`, by name. */
  sources =
    config:
    let
      # A path is where it is copied to, as it is for the system: a flake's own path changes with every other file in it.
      place = source: plain (if builtins.isPath source then "${source}" else toString source);
    in
    builtins.mapAttrs (_: file: {
      place = place file.source;
      # What it is built from, as far as the derivation says itself.
      recipe = if file.source.type or null == "derivation" then plain (builtins.toJSON (file.source.drvAttrs or { })) else "";
    }) (removeDisabled (config.environment.etc or { }));

  /* A text without the places that change with every package: all packages are linked into one tree, and of some files in /etc (D-Bus'
     configuration, terminfo) only the place of that tree changes. What is made of it stays in: it is compared without that place. */
  settled =
    config: sources:
    let
      tree = or' "" (plain config.system.path.outPath);
      withoutTree = if tree == "" then (text: text) else builtins.replaceStrings [ tree ] [ "/run/current-system/sw" ];
      ofTree = builtins.filter (source: source.recipe != "" && withoutTree source.recipe != source.recipe) (
        builtins.attrValues sources
      );
      from = map (source: source.place) ofTree;
      to = map (source: short (withoutTree source.recipe)) ofTree;
    in
    text: withoutTree (builtins.replaceStrings from to text);

  /* unit -> short hash of its text. */
  units =
    settled: config:
    builtins.mapAttrs (_: unit: short (settled (text (unit.text or "")))) (removeDisabled (config.systemd.units or { }));

  /* file in /etc -> short hash of where it comes from. */
  files = settled: builtins.mapAttrs (_: source: short (settled source.place));

  /* name -> short hash of a part of the activation script. What it does with /etc is said of the files there. */
  scripts =
    settled: config:
    let
      etc = or' "" (plain config.system.build.etc.outPath);
      withoutEtc = if etc == "" then (text: text) else builtins.replaceStrings [ etc ] [ "/etc" ];
      content = script: text (if builtins.isAttrs script then script.text or "" else script);
      # The whole of them, which NixOS puts among its parts.
      parts = builtins.removeAttrs (config.system.activationScripts or { }) [ "script" ];
    in
    builtins.mapAttrs (_: script: short (settled (withoutEtc (content script)))) parts;

  /* name -> short hash of where a specialisation is. */
  specialisations =
    config:
    builtins.mapAttrs (_: one: short (plain one.configuration.system.build.toplevel.outPath)) (
      config.specialisation or { }
    );

  /* A container has the kernel of its host. */
  kernel =
    config:
    let
      version = config.boot.kernelPackages.kernel.version or null;
    in
    if config.boot.isContainer or false || !(config.boot.kernel.enable or true) || version == null then
      null
    else
      plain version;

  removeDisabled =
    all:
    builtins.removeAttrs all (builtins.filter (name: !(all.${name}.enable or true)) (builtins.attrNames all));

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
  /* The system of an evaluated node. */
  of = evaluated: {
    inherit evaluated;
    inherit (evaluated) config;
    specialisation = null;
  };

  /* One of its specialisations, which is a whole system of its own. */
  specialised = specialisation: evaluated: {
    inherit evaluated specialisation;
    config = evaluated.config.specialisation.${specialisation}.configuration;
  };

  /* The system itself and what is in it. Only the derivation and its secrets may fail; the rest is left out where it does. */
  describe =
    {
      evaluated,
      config,
      specialisation,
    }:
    let
      inherit (config.system.build) toplevel;
      found = sources config;
      without = settled config found;
    in
    # When it does not evaluate, its own error is the one to show, and not that of a part which is reported about.
    builtins.seq toplevel.drvPath {
      drv = plain toplevel.drvPath;
      # Not `outPath`: an attribute of that name would make the whole set print as a string.
      toplevel = plain toplevel.outPath;
      # The platform it runs on, which need not be the one it is built on.
      system = or' null (plain (evaluated.pkgs.stdenv.hostPlatform.system or toplevel.system));
      nixosVersion = or' null (plain (config.system.nixos.version or config.system.nixosVersion));
      kernel = or' null (kernel config);
      packages = or' { } (packages config);
      builds = or' { } (builds config);
      units = or' { } (units without config);
      files = or' { } (files without found);
      scripts = or' { } (scripts without config);
      inherit specialisation;
      specialisations = or' { } (specialisations evaluated.config);
      users = or' { } (users config);
      ports = or' { } (ports config);
      # NixOS also prints them, but not where it remembers the system.
      warnings = or' [ ] (map text (config.warnings or [ ]));
      # A secret that is silently left out would be missed by a service.
      keys = keys config;
    };

  /* The contents of those keys that have them in the specification. */
  texts =
    { config, ... }:
    let
      keys = config.deployment.keys or { };
      isText = name: keys.${name}.text != null && keys.${name}.keyFile == null && keys.${name}.keyCommand == null;
    in
    genAttrs (builtins.filter isText (builtins.attrNames keys)) (name: plain keys.${name}.text);
}
