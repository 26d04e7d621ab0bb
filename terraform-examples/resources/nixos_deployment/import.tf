# Where each machine is, by its name in the network.
import {
  to = nixos_deployment.site
  id = "web=root@192.0.2.11,db=deploy@10.0.0.12:2222"
}
