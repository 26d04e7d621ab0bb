# nixpkgs' `lib.genAttrs`, for where it is not known yet which nixpkgs a specification wants.
names: f:
builtins.listToAttrs (
  map (name: {
    inherit name;
    value = f name;
  }) names
)
