# Secrets that are in place before the services that need them, and in no state, plan, log or store.
variable "db_password" {
  description = "The database's password; better an ephemeral resource of your password store."
  type        = string
  ephemeral   = true
  sensitive   = true
}

resource "nixos_machine" "db" {
  name = "db"
  ssh  = { host = "db.example.org" }
}

resource "nixos_deployment" "db" {
  configuration = "${path.module}/configuration.nix"
  machines      = { db = nixos_machine.db.target }

  secrets = {
    db-password = {
      value_wo = var.db_password
      version  = "3" # another one when the password is
      user     = "postgres"
      restart  = ["postgresql.service"]
    }
    tls-key = {
      command     = ["sops", "--decrypt", "--extract", "[\"tls\"]", "${path.module}/secrets.yaml"]
      path        = "/var/lib/nginx/tls.key"
      group       = "nginx"
      permissions = "0440"
      reload      = ["nginx.service"]
    }
  }
}
