# Needs Nix, but no machine: only the specification is read.

variables {
  host_public_keys = {
    db  = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    web = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"
  }
}

run "the_physical_specification_is_read" {
  command = plan

  plan_options {
    target = [data.nixos_network.site]
  }

  assert {
    condition     = data.nixos_network.site.deployment["web"].ec2.instanceType == "t3.small"
    error_message = "deployment.* of the network is available in Terraform."
  }

  assert {
    condition     = join(",", data.nixos_network.site.deployment["db"].owners) == "ops@example.org"
    error_message = "Arguments reach the network."
  }
}
