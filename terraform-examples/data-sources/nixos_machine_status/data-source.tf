resource "nixos_machine" "web" {
  name = "web"
  ssh  = { host = "web.example.org" }
}

# Looked at in every plan, without changing anything there.
data "nixos_machine_status" "web" {
  machine = nixos_machine.web.target
}

# A warning, not an error, when something is wrong.
check "web" {
  assert {
    condition     = data.nixos_machine_status.web.reachable
    error_message = "web cannot be reached: ${coalesce(data.nixos_machine_status.web.problem, "no reason given")}"
  }

  assert {
    condition     = length(data.nixos_machine_status.web.failed_units) == 0
    error_message = "Units have failed on web: ${join(", ", data.nixos_machine_status.web.failed_units)}"
  }

  assert {
    condition     = alltrue([for disk in data.nixos_machine_status.web.disks : disk.read_only || disk.available_bytes > disk.size_bytes * 0.1])
    error_message = "A disk of web is nearly full."
  }
}

output "reboot_required" {
  description = "Whether web runs another kernel than the one it was deployed with."
  value       = data.nixos_machine_status.web.reboot_required
}
