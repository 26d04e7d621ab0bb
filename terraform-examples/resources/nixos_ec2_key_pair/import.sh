# NAME or REGION:NAME
terraform import nixos_ec2_key_pair.admin admin
terraform import nixos_ec2_key_pair.admin_us us-east-1:admin
