# The modules every node gets: what is known about machines, and the options of NixOps' `deployment`.
request:
{
  # The node's name.
  name,
  # Whether to tell nixpkgs the platform by a default.
  platform,
}:
{
  imports = [
    (import ./deployment.nix request name)
    (import ./facts.nix request { inherit name platform; })
  ];
}
