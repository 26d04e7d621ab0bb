# A network that says what machines do, on machines of which Terraform knows where they are.
variable "machines" {
  description = "Where the machines are, and the SSH host keys they must show."
  type        = map(object({ host = string, host_public_key = string }))
}

resource "nixos_machine" "this" {
  for_each = var.machines

  name = each.key
  ssh  = { host = each.value.host, host_public_key = each.value.host_public_key }
}

resource "nixos_deployment" "site" {
  network   = "${path.module}/network.nix"
  machines  = { for name, machine in nixos_machine.this : name => machine.target }
  arguments = { domain = "example.org" }
}

output "systems" {
  description = "What each machine runs; in a plan, what it will run."
  value       = { for name, system in nixos_deployment.site.systems : name => system.toplevel }
}
