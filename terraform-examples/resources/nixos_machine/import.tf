# A machine that is there. The next apply adds to the state what else the configuration says of it.
import {
  to = nixos_machine.web
  id = "root@192.0.2.11"
}

# What the configuration says: then the plan is empty, and the host key is checked from the beginning.
import {
  to = nixos_machine.build
  id = jsonencode({
    name = "build"
    ssh = {
      host            = "192.0.2.12"
      host_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2Q3hG0m3c0v1T0p2v5qv3kq4wq3c5b5n5m5k5j5h5g"
    }
  })
}

# An instance on EC2: its id, with the region where it is not the provider's.
import {
  to = nixos_machine.db
  id = "eu-west-1:i-0123456789abcdef0"
}
