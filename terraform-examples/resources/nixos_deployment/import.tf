# What the configuration says: then the plan is empty. With `id = "…"` among it, the deployment is the one it was before its state was lost.
import {
  to = nixos_deployment.site
  id = jsonencode({
    network  = "${path.module}/network.nix"
    machines = { web = { host = "192.0.2.11", user = "root" } }
  })
}

# Or where each machine is, by its name in the network. The next apply adds to the state what else the configuration says.
import {
  to = nixos_deployment.other
  id = "web=root@192.0.2.11,db=deploy@10.0.0.12:2222"
}
