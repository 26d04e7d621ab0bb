# A machine that is made on AWS EC2, with a disk for its data. Its SSH host key is known before the first login.
variable "subnet_id" {
  description = "The subnet it is to be in."
  type        = string
}

variable "security_group_ids" {
  description = "Security groups, one of which lets SSH in from where Terraform runs."
  type        = list(string)
}

data "nixos_ami" "nixos" {
  release = "25.11"
}

resource "nixos_ec2_key_pair" "admin" {
  key_name         = "admin"
  generate         = { type = "ed25519" }
  private_key_file = "${path.root}/admin.key"
}

resource "nixos_machine" "db" {
  name = "db"
  ec2 = {
    ami                = data.nixos_ami.nixos.id
    instance_type      = "t3.small"
    subnet_id          = var.subnet_id
    security_group_ids = var.security_group_ids
    key_name           = nixos_ec2_key_pair.admin.key_name
    private_key_file   = nixos_ec2_key_pair.admin.private_key_file
    root_volume        = { size = 20, type = "gp3" }
    volumes            = { data = { device = "/dev/sdf", size = 50, encrypted = true } }

    # `instance_type` may be changed: the machine is stopped and started for it.
    allow_stopping_for_update = true
  }
}

output "db" {
  description = "Where the database is."
  value       = nixos_machine.db.private_ipv4
}
