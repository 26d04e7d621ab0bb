# Two machines: `db` serves some data, `web` shows a page that tells where it found it.
{ domain, ... }:
{
  network.description = "quickstart";

  # For every machine. A real one also needs what its hardware needs, an SSH server and root's key: see README.md.
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
    { nodes, pkgs, ... }:
    let
      # Known to Terraform, used in Nix: the address of the other machine.
      db = nodes.db.config.networking.privateIPv4;
    in
    {
      environment.etc."www/index.html".text = ''
        Welcome to ${domain}.
        The database is at ${db}.
      '';

      systemd.services.web = {
        description = "The web server of ${domain}";
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.busybox}/bin/busybox httpd -f -p 80 -h /etc/www";
      };
    };
}
