# Two NixOS machines that exist already, and the network that runs on them.

terraform {
  required_providers {
    nixos = { source = "terraform-provider-nixos/nixos" }
  }
}

variable "machines" {
  description = "Where the machines are, and the SSH host keys they must show."
  type        = map(object({ host = string, host_public_key = string }))
}

variable "domain" {
  description = "What the site is called."
  type        = string
  default     = "example.org"
}

resource "nixos_machine" "this" {
  for_each = var.machines

  name = each.key
  ssh  = { host = each.value.host, host_public_key = each.value.host_public_key }
}

resource "nixos_deployment" "quickstart" {
  network   = "${path.module}/network.nix"
  machines  = { for name, machine in nixos_machine.this : name => machine.target }
  arguments = { domain = var.domain }
}

output "systems" {
  description = "What each machine runs."
  value       = { for name, system in nixos_deployment.quickstart.systems : name => system.toplevel }
}
