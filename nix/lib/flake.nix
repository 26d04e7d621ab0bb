# Flakes: `nixosConfigurations`, each extended by our modules.
request:
let
  flake = builtins.getFlake request.spec.ref;
  configurations =
    flake.nixosConfigurations
      or (throw "the flake ${request.spec.ref} has no `nixosConfigurations`");

  extend =
    name: configuration:
    if !(configuration ? extendModules) then
      throw "`nixosConfigurations.${name}` cannot be extended: it needs nixpkgs 21.11 or later"
    else
      configuration.extendModules {
        modules = [
          # A flake says itself for which platform its systems are.
          (import ../modules request { inherit name; platform = false; })
          {
            # Not special arguments: those are fixed by the flake. They cannot be used in `imports`.
            _module.args = {
              inherit name nodes;
              inherit (request) arguments resources;
              inherit (request.deployment) uuid;
              deploymentName = request.deployment.name;
            };
          }
        ];
      };

  nodes = builtins.mapAttrs extend configurations;
in
{
  inherit nodes;
}
