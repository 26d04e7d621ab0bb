# A database and a web server in two regions of AWS and a machine that stands here, as one deployment.

terraform {
  required_providers {
    nixos = { source = "terraform-provider-nixos/nixos" }
  }
}

variable "regions" {
  description = "Where the two machines of the cloud are to run."
  type        = map(string)
  default     = { db = "eu-west-1", web = "us-east-1" }
}

variable "release" {
  description = "The NixOS release they are made from."
  type        = string
  default     = "25.11"
}

variable "amis" {
  description = "Images of your own by region. Default: the newest of NixOS' own."
  type        = map(string)
  default     = {}
}

variable "networks" {
  description = "By region: the subnet, and security groups that let SSH in from here, e.g. from modules of hashicorp/aws."
  type        = map(object({ subnet_id = string, security_group_ids = optional(list(string)) }))
}

variable "rack" {
  description = "The machine that is there already: where it is, and the SSH host key it must show."
  type        = object({ host = string, host_public_key = string })
}

provider "nixos" {
  # Credentials as for AWS' own tools: AWS_PROFILE, SSO, environment, instance role.
  aws = { default_tags = { project = "two-regions" } }
}

# One key for both regions: made in one, known in the other.
resource "nixos_ec2_key_pair" "db" {
  key_name_prefix  = "two-regions-"
  region           = var.regions.db
  generate         = { type = "ed25519" }
  private_key_file = "${path.root}/admin.key"
}

resource "nixos_ec2_key_pair" "web" {
  key_name_prefix = "two-regions-"
  region          = var.regions.web
  public_key      = nixos_ec2_key_pair.db.public_key
}

data "nixos_ami" "this" {
  for_each = { for name, region in var.regions : name => region if !contains(keys(var.amis), region) }

  release = var.release
  region  = each.value
}

resource "nixos_machine" "cloud" {
  for_each = var.regions

  name = each.key
  ec2 = {
    region             = each.value
    ami                = try(var.amis[each.value], data.nixos_ami.this[each.key].id)
    instance_type      = "t3.small"
    subnet_id          = var.networks[each.value].subnet_id
    security_group_ids = var.networks[each.value].security_group_ids
    key_name           = { db = nixos_ec2_key_pair.db, web = nixos_ec2_key_pair.web }[each.key].key_name
    private_key_file   = nixos_ec2_key_pair.db.private_key_file
    volumes            = each.key == "db" ? { data = { device = "/dev/sdf", size = 20 } } : null

    # `instance_type` may be changed: the machine is stopped and started for it.
    allow_stopping_for_update = true
  }
}

resource "nixos_machine" "rack" {
  name = "rack"
  ssh  = { host = var.rack.host, host_public_key = var.rack.host_public_key }
}

resource "nixos_s3_bucket" "backup" {
  bucket_prefix       = "two-regions-backup-"
  region              = var.regions.db
  versioning          = "Enabled"
  public_access_block = {}
  lifecycle_rules     = [{ id = "old", noncurrent_version_expiration = { noncurrent_days = 30 } }]
}

resource "nixos_deployment" "site" {
  network   = "${path.module}/network.nix"
  machines  = merge({ for name, machine in nixos_machine.cloud : name => machine.target }, { rack = nixos_machine.rack.target })
  arguments = { bucket = nixos_s3_bucket.backup.bucket }
}

output "web" {
  description = "Where the site is."
  value       = "http://${nixos_machine.cloud["web"].public_ipv4}/"
}
