# A machine that is there already, wherever it runs.
resource "nixos_machine" "web" {
  name = "web"
  ssh = {
    host            = "192.0.2.11"
    host_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"
  }
}

# Behind another host, by a user who has to become root.
resource "nixos_machine" "db" {
  name = "db"
  ssh = {
    host             = "10.0.0.12"
    user             = "deploy"
    private_key_file = "~/.ssh/deploy"
    elevate          = ["sudo", "-n"]
    bastion          = { host = "bastion.example.org", user = "jump" }
    host_key_policy  = "accept_new"
  }
}

# Their `target` is what a deployment takes.
resource "nixos_deployment" "site" {
  network  = "${path.module}/network.nix"
  machines = { web = nixos_machine.web.target, db = nixos_machine.db.target }
}
