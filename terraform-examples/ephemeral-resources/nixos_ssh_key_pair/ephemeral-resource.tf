ephemeral "nixos_ssh_key_pair" "backup" {}

resource "nixos_machine" "db" {
  name = "db"
  ssh  = { host = "192.0.2.20" }
}

# The machine gets a key of its own, which no state and no plan has. A higher version gives it a new one.
resource "nixos_deployment" "prod" {
  network  = "${path.module}/network.nix"
  machines = { db = nixos_machine.db.target }
  secrets = {
    backup-key = {
      machines = ["db"]
      value_wo = ephemeral.nixos_ssh_key_pair.backup.private_key
      version  = 1
    }
  }
}
