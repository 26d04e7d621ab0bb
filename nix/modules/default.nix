# The modules every node gets: what is known about machines, and the options of NixOps' `deployment`.
request:
{
  # The node's name.
  name,
  # Whether to tell nixpkgs the platform by a default.
  platform,
  # Whether to declare `deployment.*`, which nobody else has declared.
  options ? true,
}:
{
  imports = [
    (import ./facts.nix request { inherit name platform; })
  ]
  ++ (
    if options then
      [
        (import ./deployment.nix request name)
        ./places.nix
        ./keys.nix
        ./legacy.nix
      ]
    else
      [ ]
  );
}
