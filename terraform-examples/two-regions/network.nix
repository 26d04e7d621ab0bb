# Three machines: `db` and `web` in the cloud, `rack` here. What they do, not where they are.
{ bucket, ... }:
{
  network.description = "two regions and a rack";

  # For every machine. On EC2 each gets what the machines there need; what `rack` needs is its own to import.
  defaults = {
    nixpkgs.hostPlatform = "x86_64-linux";
    system.stateVersion = "24.11";
  };

  db =
    { pkgs, ... }:
    {
      environment.etc."data/index.html".text = "42 rows";
      systemd.services.db = {
        description = "A database, as small as they get";
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox httpd -f -p 5432 -h /etc/data";
      };
    };

  web =
    { nodes, ... }:
    {
      # Given by AWS when `db` is made, in the configuration of `web`.
      environment.etc."www/database".text = "${nodes.db.config.networking.privateIPv4}:5432";
    };

  rack =
    { nodes, ... }:
    {
      # A real one also needs `imports = [ ./hardware-rack.nix ]`, `services.openssh.enable` and root's key: see README.md.
      environment.etc."backup".text = ''
        from=${nodes.db.config.networking.publicIPv4}
        to=s3://${bucket}
      '';
    };
}
