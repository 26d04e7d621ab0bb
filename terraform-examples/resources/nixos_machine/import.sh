# A machine that is there: [user@]host[:port]
terraform import nixos_machine.web 192.0.2.11

# An instance on EC2: [REGION:]ID
terraform import nixos_machine.db i-0123456789abcdef0
