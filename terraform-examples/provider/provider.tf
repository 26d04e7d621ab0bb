terraform {
  required_version = ">= 1.8"
  required_providers {
    nixos = { source = "terraform-provider-nixos/nixos" }
  }
}

# Every setting has a default: the SSH, Nix and AWS configuration of the user who runs Terraform.
provider "nixos" {
  ssh = {
    user             = "deploy"
    private_key_file = "~/.ssh/deploy"
    elevate          = ["sudo", "-n"]
    bastion          = { host = "bastion.example.org", user = "jump" }
  }

  nix = {
    nix_path   = ["nixpkgs=/srv/nixpkgs"]
    evaluation = { cache = "read_set", memory = "8GiB" }
  }

  aws = {
    region       = "eu-west-1"
    profile      = "production"
    default_tags = { team = "infra" }
  }
}

variable "host_public_key" {
  description = "The SSH host key that the machine must show."
  type        = string
}

resource "nixos_machine" "web" {
  name = "web"
  ssh  = { host = "192.0.2.11", host_public_key = var.host_public_key }
}

resource "nixos_deployment" "site" {
  network  = "${path.module}/network.nix"
  machines = { web = nixos_machine.web.target }
}
