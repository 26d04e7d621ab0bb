# The newest image of a release, for machines with ARM processors.
data "nixos_ami" "arm" {
  release      = "25.11"
  architecture = "arm64"
  region       = "eu-central-1"
}

# The newest of your own images.
data "nixos_ami" "own" {
  name   = "nixos-base-*"
  owners = ["self"]
}

resource "nixos_machine" "worker" {
  name = "worker"
  ec2 = {
    region        = "eu-central-1"
    ami           = data.nixos_ami.arm.id
    instance_type = "t4g.small"
    root_volume   = { size = max(20, data.nixos_ami.arm.root_volume_size) }
  }
}
