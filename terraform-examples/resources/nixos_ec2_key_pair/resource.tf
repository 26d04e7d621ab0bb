# A new key, whose private half is in a file of mode 0600 and in no state.
resource "nixos_ec2_key_pair" "admin" {
  key_name         = "admin"
  generate         = { type = "ed25519" }
  private_key_file = "${path.root}/admin.key"
}

# The same key in another region.
resource "nixos_ec2_key_pair" "admin_us" {
  key_name   = "admin"
  region     = "us-east-1"
  public_key = nixos_ec2_key_pair.admin.public_key
}
