# A key that you have. The name gets something unique behind the prefix.
variable "public_key" {
  description = "A public key, as in `~/.ssh/id_ed25519.pub`."
  type        = string
}

resource "nixos_ec2_key_pair" "mine" {
  key_name_prefix = "alice-"
  public_key      = var.public_key
  tags            = { owner = "alice" }
}
