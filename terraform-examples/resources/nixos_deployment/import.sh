# name=[user@]host[:port], several separated by commas
terraform import nixos_deployment.site web=192.0.2.11,db=deploy@10.0.0.12:2222
