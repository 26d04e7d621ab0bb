# A network that NixOps deployed, taken over as it is: the same Nix files, the machines that exist, nothing installed anew.

terraform {
  required_version = ">= 1.8"
  required_providers {
    nixos = { source = "terraform-provider-nixos/nixos" }
  }
}

variable "host_public_keys" {
  description = "The SSH host keys that the machines must show, by machine."
  type        = map(string)
}

variable "domain" {
  description = "An argument of the network, as in `nixops set-args --argstr domain …`."
  type        = string
  default     = "example.org"
}

locals {
  # What `nixops export` printed: one deployment, by its uuid.
  nixops = one(values(jsondecode(file("${path.module}/nixops-export.json"))))

  # Its machines. Other resources, such as buckets, have Terraform resources of their own to be imported into.
  kinds    = ["none", "ec2", "virtualbox", "libvirtd", "hetzner", "gce", "digital-ocean"]
  machines = { for name, old in local.nixops.resources : name => old if contains(local.kinds, old.type) }
  hosts = {
    for name, old in local.machines :
    name => try(coalesce(old.publicIpv4), coalesce(old.targetHost), coalesce(old.privateIpv4), name)
  }
}

# What the network says about its machines: `deployment.targetUser`, `deployment.ec2.instanceType`, …
data "nixos_network" "site" {
  network   = "${path.module}/network.nix"
  arguments = { domain = var.domain }
}

resource "nixos_machine" "this" {
  for_each = local.machines

  name = each.key
  ssh = {
    host            = local.hosts[each.key]
    user            = data.nixos_network.site.deployment[each.key].targetUser
    host_public_key = var.host_public_keys[each.key]
  }
  private_ipv4 = try(each.value.privateIpv4, null)
  # The release the machine was installed with, which must never change: NixOps remembered it, so it has to be told.
  state_version = try(each.value.stateVersion, null)
  # NixOps gave machines on EC2 the module of nixpkgs' images.
  target_env = each.value.type == "ec2" ? "ec2" : null
}

import {
  for_each = local.hosts
  to       = nixos_machine.this[each.key]
  id = jsonencode({
    name = each.key
    ssh = {
      host            = each.value
      user            = data.nixos_network.site.deployment[each.key].targetUser
      host_public_key = var.host_public_keys[each.key]
    }
  })
}

resource "nixos_deployment" "site" {
  name      = local.nixops.name
  network   = "${path.module}/network.nix"
  machines  = { for name, machine in nixos_machine.this : name => machine.target }
  arguments = { domain = var.domain }
}

import {
  to = nixos_deployment.site
  id = jsonencode({
    # NixOps' own: `uuid` in modules stays what it was.
    id        = one(keys(jsondecode(file("${path.module}/nixops-export.json"))))
    name      = local.nixops.name
    network   = "${path.module}/network.nix"
    machines  = { for name, machine in nixos_machine.this : name => machine.target }
    arguments = { domain = var.domain }
  })
}

output "instance_types" {
  description = "How a physical specification drives other providers' resources."
  value       = { for name, deployment in data.nixos_network.site.deployment : name => deployment.ec2.instanceType if deployment.targetEnv == "ec2" }
}
