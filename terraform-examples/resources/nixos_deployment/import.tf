# The id is what the configuration says. After the import, the plan is empty, except for secrets: they are sent again.
locals {
  site = {
    network  = "${path.module}/network.nix"
    machines = { web = nixos_machine.web.target }
  }
}

resource "nixos_machine" "web" {
  name = "web"
  ssh  = { host = "192.0.2.11" }
}

resource "nixos_deployment" "site" {
  network  = local.site.network
  machines = local.site.machines
}

import {
  to = nixos_deployment.site
  # Where the state was lost: the `id` that it had, from a backup or an output. Without one the deployment gets a new id, and modules a new `uuid`.
  id = jsonencode(merge(local.site, { id = "3ae3c1d4-0f4c-11ef-8d7a-0242ac110002" }))
}

# Or where each machine is, by its name in the network: name=[user@]host[:port]. The next apply adds to the state what else the configuration
# says. The machines have to be in known_hosts.
import {
  to = nixos_deployment.other
  id = "web=192.0.2.11,db=deploy@10.0.0.12:2222"
}
