# Needs Nix, but neither machines nor AWS: with images given, a first plan asks nobody.

variables {
  amis = { eu-west-1 = "ami-00000000000000001", us-east-1 = "ami-00000000000000002" }
  networks = {
    eu-west-1 = { subnet_id = "subnet-00000001" }
    us-east-1 = { subnet_id = "subnet-00000002" }
  }
  rack = { host = "10.0.0.12", host_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }
}

run "each_machine_is_where_it_is_to_be" {
  command = plan

  assert {
    condition     = nixos_machine.cloud["db"].ec2.region == "eu-west-1" && nixos_machine.cloud["web"].ec2.region == "us-east-1"
    error_message = "Each machine is in its region."
  }

  assert {
    condition     = nixos_machine.cloud["db"].power_state == "running"
    error_message = "Machines run unless told otherwise."
  }
}
