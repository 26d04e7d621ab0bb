# What a specification says about its nodes decides which machines there are.
data "nixos_network" "site" {
  network   = "${path.module}/network.nix"
  arguments = { domain = "example.org" }
  options   = ["networking.firewall.allowedTCPPorts"]
}

resource "nixos_machine" "this" {
  for_each = data.nixos_network.site.nodes

  name = each.key
  ssh  = { host = each.value.target_host, port = each.value.target_port, user = each.value.target_user }
}

output "open_ports" {
  description = "The ports that each machine's firewall will let in."
  value       = { for name, values in data.nixos_network.site.values : name => values["networking.firewall.allowedTCPPorts"] }
}

output "buckets" {
  description = "The names of the buckets that the network declares in `resources.s3Buckets`."
  value       = [for bucket in data.nixos_network.site.network_resources.s3Buckets : bucket.name]
}
