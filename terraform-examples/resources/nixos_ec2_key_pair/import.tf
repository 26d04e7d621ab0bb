import {
  to = nixos_ec2_key_pair.admin
  id = "admin" # or REGION:NAME
}
