# NAME or REGION:NAME
terraform import nixos_s3_bucket.backup example-backup
