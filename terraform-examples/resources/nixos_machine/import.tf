# What the configuration says: nothing is left to change. An import does not see the configuration, so the host key has to be in the id, or in
# known_hosts.
import {
  to = nixos_machine.web
  id = jsonencode({
    name = "web"
    ssh = {
      host            = "192.0.2.11"
      host_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2Q3hG0m3c0v1T0p2v5qv3kq4wq3c5b5n5m5k5j5h5g"
    }
  })
}

# Or where the machine is: [user@]host[:port]. The next apply adds to the state what else the configuration says.
import {
  to = nixos_machine.build
  id = "192.0.2.12"
}

# An instance on EC2: its id, with the region where it is not the provider's.
import {
  to = nixos_machine.db
  id = "eu-west-1:i-0123456789abcdef0"
}
