# Flakes. Which output is the specification can be said after `#`; else the first of these that there is.
request:
let
  locked = builtins.getFlake request.spec.ref;

  /* Where somebody watches which files of the flake are read, whoever asks which tree they are in has to be seen, too. Where it is can
     be seen in what is made of it. */
  watched =
    let
      seen = value: builtins.seq (builtins.pathExists "${request.marks}self") value;
      sourceInfo = builtins.mapAttrs (name: value: if name == "outPath" then value else seen value) locked.sourceInfo;
      flake = import (locked.sourceInfo.outPath + "/${request.spec.dir}/flake.nix");
      outputs = flake.outputs (locked.inputs // { self = self; });
      self =
        outputs
        // sourceInfo
        // {
          inherit (locked) inputs outPath;
          inherit outputs sourceInfo;
        }
        // (if locked ? _type then { inherit (locked) _type; } else { });
    in
    self;

  flake =
    if request.marks != null && request.spec ? dir then
      builtins.seq (builtins.pathExists "${request.marks}begin") watched
    else
      locked;

  kinds = {
    nixosConfigurations = configurations: {
      nodes = builtins.mapAttrs (extend { options = true; }) configurations;
    };

    # What colmena made of its own set: evaluated nodes that declare `deployment.*` themselves.
    colmenaHive = hive: {
      nodes = builtins.mapAttrs (extend { options = false; }) hive.nodes;
      description = hive.metaConfig.description or null;
    };

    colmena = hive: import ./hive.nix request hive;

    nixopsConfigurations =
      configurations:
      let
        network = configurations.${request.deployment.output or "default"} or configurations.default;
        nixpkgs =
          network.nixpkgs
            or (throw "`nixopsConfigurations.default` of ${request.spec.shown} has no `nixpkgs`, the flake its machines are made of");
      in
      import ./nodes.nix request {
        files = [ ({ _file = "nixopsConfigurations of ${request.spec.shown}"; } // network) ];
        inherit (nixpkgs) lib;
        evalConfig = nixpkgs.lib.nixosSystem or (import (nixpkgs + "/nixos/lib/eval-config.nix"));
        pkgs = import nixpkgs { };
      };
  };

  order = [
    "nixosConfigurations"
    "nixopsConfigurations"
    "colmenaHive"
    "colmena"
  ];
  there = builtins.filter (name: flake ? ${name}) order;
  wanted = request.spec.output;

  output =
    if wanted != null then
      if !(kinds ? ${wanted}) then
        throw "`#${wanted}` is not a specification: expected one of ${builtins.concatStringsSep ", " order}"
      else if !(flake ? ${wanted}) then
        throw "the flake ${request.spec.shown} has no `${wanted}`"
      else
        wanted
    else if there == [ ] then
      throw "the flake ${request.spec.shown} has none of ${builtins.concatStringsSep ", " order}"
    else
      builtins.head there;

  extend =
    { options }:
    name: configuration:
    if !(configuration ? extendModules) then
      throw "`${output}.${name}` cannot be extended: it needs nixpkgs 21.11 or later"
    else
      configuration.extendModules {
        modules = [
          # A flake says itself for which platform its systems are.
          (import ../modules request {
            inherit name options;
            platform = false;
            named = false;
          })
          {
            # Not special arguments: those are fixed by the flake. They cannot be used in `imports`.
            _module.args =
              {
                inherit (request) arguments resources;
                inherit (request.deployment) uuid;
                deploymentName = request.deployment.name;
              }
              # Colmena has given these already.
              // (if options then { inherit name; nodes = builtins.mapAttrs (_name: node: node // { inherit _name; }) spec.nodes; } else { });
          }
        ];
      };

  spec = {
    inherit (request) resources;
    description = null;
  }
  // kinds.${output} flake.${output};
in
spec
