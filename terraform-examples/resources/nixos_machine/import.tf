# A machine that is there.
import {
  to = nixos_machine.web
  id = "root@192.0.2.11"
}

# An instance on EC2: its id, with the region where it is not the provider's.
import {
  to = nixos_machine.db
  id = "eu-west-1:i-0123456789abcdef0"
}
