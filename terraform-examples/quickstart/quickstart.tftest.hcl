# Needs Nix, but no machine: a first plan contacts nobody.

variables {
  machines = {
    db  = { host = "10.0.0.10", host_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" }
    web = { host = "10.0.0.11", host_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB" }
  }
}

run "the_plan_names_exact_systems" {
  command = plan

  assert {
    condition     = alltrue([for system in nixos_deployment.quickstart.systems : startswith(system.toplevel, "/nix/store/")])
    error_message = "Every system is known before any machine was seen."
  }
}

run "another_domain_changes_only_web" {
  command = plan

  variables {
    domain = "example.net"
  }

  assert {
    condition     = nixos_deployment.quickstart.systems["db"].toplevel == run.the_plan_names_exact_systems.systems["db"]
    error_message = "db does not use the domain."
  }

  assert {
    condition     = nixos_deployment.quickstart.systems["web"].toplevel != run.the_plan_names_exact_systems.systems["web"]
    error_message = "web does."
  }
}
