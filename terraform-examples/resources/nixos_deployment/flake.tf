# The machines of a flake's `nixosConfigurations`, in waves, each kept only while the site answers.
resource "nixos_machine" "web" {
  for_each = toset(["web1", "web2", "web3"])

  name = each.key
  ssh  = { host = "${each.key}.example.org" }
}

resource "nixos_deployment" "site" {
  flake    = path.module
  machines = { for name, machine in nixos_machine.web : name => machine.target }
  reboot   = "if_needed"

  health_checks = {
    nginx = { units = ["nginx.service"], stable_for = "10s" }
    front = { http = { url = "http://127.0.0.1/health", contains = "ok" }, successes = 3 }
  }

  rollout = {
    waves        = [["web1"]] # the rest goes after it
    max_parallel = 2
  }
}
