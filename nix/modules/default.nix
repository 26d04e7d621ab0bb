# The modules every node gets: what is known about machines, and the options of NixOps' `deployment`.
request:
{
  # The node's name.
  name,
  # Whether to tell nixpkgs the platform by a default.
  platform,
  # Whether to declare `deployment.*`, which nobody else has declared.
  options ? true,
  # Whether it is one of NixOps' networks, where machines know each other by name, and a machine's table of hosts has the machine itself, too.
  network ? false,
  # Whether the machine's host name is the node's name, unless its configuration says otherwise. A flake's systems are as the flake builds them.
  named,
}:
{
  # What messages say instead of the name of a file of ours.
  _file = "Terraform's provider nixos";

  imports = [
    (import ./facts.nix request { inherit name platform network named; })
  ]
  ++ (
    if options then
      [
        (import ./deployment.nix request name)
        (import ./places.nix request name)
        (import ./keys.nix)
        (import ./legacy.nix)
      ]
    else
      [ ]
  );
}
