resource "nixos_machine" "web" {
  name = "web"
  ssh  = { host = "192.0.2.10" }
}

# For people and programs that log in to the same machines.
output "known_hosts" {
  value = provider::nixos::known_hosts({ web = nixos_machine.web.target })
}
