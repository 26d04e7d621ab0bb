# As it was deployed by NixOps, unchanged.
{ domain, ... }:
{
  network.description = "Shop";

  defaults =
    { config, ... }:
    {
      nixpkgs.hostPlatform = "x86_64-linux";
      deployment.owners = [ "ops@${domain}" ];
      environment.etc."release".text = config.system.stateVersion;
    };

  db = {
    deployment.targetEnv = "none";
    deployment.targetHost = "192.0.2.10";
  };

  web =
    { nodes, ... }:
    {
      deployment.targetEnv = "ec2";
      deployment.ec2.region = "eu-west-1";
      deployment.ec2.instanceType = "t3.small";
      environment.etc."database".text = nodes.db.config.networking.privateIPv4;
    };
}
